"""How a script of the corpus talks, and how long its phases last.

Owns the notes from which a phase is timed from outside: each sign of progress leaves its instant in
a file that no supervisor looks at. All lengths are multiples of one heartbeat.
"""

import time
from collections.abc import Iterator
from pathlib import Path

HEARTBEAT_S = 3.0
BUSY_S = 1.2 * HEARTBEAT_S
"""A phase that only computes: nothing tells it from a spin, so it gets less than twice the time."""

WORKING_S = 3 * HEARTBEAT_S
"""A phase whose work can be seen from outside."""

SIGNS = Path("signs.txt")
PHASE = Path("phase.txt")


def say(text: str, end: str = "\n") -> None:
    """Print it at once, and note when."""
    print(text, end=end, flush=True)
    note()


def note() -> None:
    """There was a sign of progress, of whatever kind, just now."""
    with SIGNS.open("a", encoding="ascii") as file:
        file.write(f"{time.time()}\n")


def turns(for_s: float, every_s: float = 0.0) -> Iterator[int]:
    """Numbers from 0, one every `every_s` at most, until the time is over."""
    until = time.monotonic() + for_s
    number = 0
    while time.monotonic() < until:
        yield number
        number += 1
        time.sleep(every_s)
