"""Benchmarks: what supervision costs, measured beside what people use today.

Each module is a program, `python -m benchmarks.NAME [--quick] [--json]`; `python -m benchmarks` runs
all of them. They belong to no test: on a busy machine times prove nothing, ratios within one run do.
"""
