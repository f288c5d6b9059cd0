"""Watches a worker from outside: what it prints, how far it says it is, how fast it goes.

Owns the reading of a log file and of the progress in it. Never talks to the worker and decides
nothing: no fault of a worker's output (flood, garbage, silence) may cost more than a bounded read.
"""
