"""How long a quick verb takes, whole process, beside an interpreter that does nothing.

Owns the timing of commands that end by themselves. All are run in turn, many times, from warm
bytecode: that is how a person meets them.
"""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from benchmarks.figures import Figure, Spread

CHECK_MS, PS_MS = 250.0, 150.0
BARE = "python -c pass"


def verb_figures(supervise: Sequence[str], job_file: str, rounds: int) -> list[Figure]:
    """`check` and `ps` of a state folder that has jobs."""
    commands = {
        BARE: [sys.executable, "-c", "pass"],
        "supervise check": [*supervise, "check", job_file],
        "supervise ps": [*supervise, "ps"],
    }
    took = times_ms(commands, rounds)
    bare = Spread.of(took[BARE]).median
    limits = {"supervise check": CHECK_MS, "supervise ps": PS_MS}
    return [_figure(name, took[name], limits.get(name), bare) for name in commands]


def times_ms(commands: Mapping[str, Sequence[str]], rounds: int) -> dict[str, list[float]]:
    """Wall milliseconds of each command, in every round; an unmeasured round warms up first."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    took: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
            if number:
                took[name].append((time.perf_counter() - started) * 1000)
    return took


def _figure(name: str, took: list[float], limit: float | None, bare: float) -> Figure:
    spread = Spread.of(took)
    note = f"p5 {spread.low:.0f}, p95 {spread.high:.0f}"
    return Figure(name, spread.median, "ms", limit, spread.median / bare, BARE, note)
