"""One process per running job: watches the worker, feeds `core`, carries out what it decides.

Owns everything that touches the world on a job's behalf. Needs no daemon and no terminal.
"""
