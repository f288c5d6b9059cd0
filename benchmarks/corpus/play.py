"""One script of the corpus: steps, the phase, more steps. `python -m benchmarks.corpus.play PHASE`.

PHASE is `module.function` of this package. With `--first` the phase comes before the first output.
Works in the current folder, whose `phase.txt` says which process has reached the phase.
"""

import importlib
import os
import sys
import time
from collections.abc import Callable

from benchmarks.corpus.signs import PHASE, say

STEPS = 6
STEP_S = 0.1


def main(name: str, *options: str) -> None:
    """Train."""
    module, _, function = name.partition(".")
    phase: Callable[[], None] = getattr(
        importlib.import_module(f"benchmarks.corpus.{module}"), function
    )
    at = 0 if "--first" in options else STEPS // 2
    for step in range(1, STEPS + 1):
        if step == at + 1:
            enter(phase)
        time.sleep(STEP_S)
        say(f"step {step}/{STEPS} loss {1 / step:.4f}")
    say("done")


def enter(phase: Callable[[], None]) -> None:
    """Say that it begins, then go through it."""
    unfinished = PHASE.with_suffix(".tmp")
    unfinished.write_text(f"{os.getpid()}\n", encoding="ascii")
    unfinished.rename(PHASE)
    phase()


if __name__ == "__main__":
    main(*sys.argv[1:])
