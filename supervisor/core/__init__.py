"""What a job does next: pure functions over frozen data.

No clock, no randomness, no file: instants and jitter arrive as arguments. `machine.step` is the
whole behaviour of a job; everything else here is what it is made of.
"""
