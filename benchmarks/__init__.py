"""Benchmarks: what supervision costs, measured beside what people use today.

Each module is a program: `python -m benchmarks.NAME [--quick] [--json]`; `python -m benchmarks`
runs them all. None is a test: on a busy machine a time proves nothing, a ratio within one run does.
"""
