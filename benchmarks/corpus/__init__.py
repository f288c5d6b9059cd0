"""Trainings in miniature that go through something slow, or hang: to try a judge of hangs on.

Owns the scripts and the table of what each must come to (`cases.py`). Each is an ordinary program:
it prints its steps and knows nothing of being supervised.
"""
