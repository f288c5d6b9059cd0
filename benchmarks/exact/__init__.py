"""Trainings that are disturbed on purpose, and the comparison with one that was not.

Owns the toy training (`toy.py`), the faults that befall it (`faults.py`), one run of it under
`supervise` (`trial.py`) and the judge of what came out (`compare.py`).
"""
