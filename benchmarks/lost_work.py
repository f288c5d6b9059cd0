"""How much training a SIGKILL at a random moment costs, with a snapshot to memory every second.

Lost are the steps between the last one before the death and the checkpoint that the next life began
from, times what a step takes. A network as small as the digits', and one whose state is 100 MB.
Ends only what its own runner started.
"""

import argparse
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from benchmarks.exact.lives import ENDLESS, Life, Lives, Silent
from benchmarks.exact.training import SupervisedTraining
from benchmarks.figures import Figure, Spread, show

INTERVAL_S = 1.0
ALLOWED_INTERVALS = 1.5
KILLS, QUICK_KILLS = 30, 6
LEAST_LIFE_S, LONGEST_LIFE_S = 0.2, 4.0
BIRTH_LIMIT_S = 90.0
TICKING = Path(__file__).parent / "exact/ticking.py"
MODELS = {"digits (1 MB of state)": {"width": 48}, "100 MB of state": {"hidden": 2900}}


@dataclass(frozen=True, slots=True)
class Loss:
    """What one kill cost."""

    steps: int
    step_s: float

    @property
    def work_s(self) -> float:
        """In time of training."""
        return self.steps * self.step_s


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="six kills: a look, not a figure")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    given = parser.parse_args()
    kills = QUICK_KILLS if given.quick else KILLS
    figures: list[Figure] = []
    for name, args in MODELS.items():
        with tempfile.TemporaryDirectory(prefix="lost-work-") as folder:
            lost = measured(Path(folder) / "job", args, kills, given.seed)
        figures += told(name, lost)
    show(f"lost_work ({kills} kills, snapshot every {INTERVAL_S:.0f} s, seed {given.seed})",
         figures, as_json=given.json)  # fmt: skip


def measured(folder: Path, args: dict[str, int], kills: int, seed: int) -> list[Loss]:
    """What each kill cost."""
    chance = random.Random(seed)  # noqa: S311 - to be the same every time
    with SupervisedTraining(folder, [TICKING], job_of(args)) as training:
        training.start()
        lives = Lives(folder / "ticks")
        try:
            for number in range(kills):
                born = lives.trains(number, BIRTH_LIMIT_S)
                time.sleep(chance.uniform(LEAST_LIFE_S, LONGEST_LIFE_S))
                with suppress(ProcessLookupError):
                    os.kill(born.pid, signal.SIGKILL)
            lives.trains(kills, BIRTH_LIMIT_S)
        except Silent as error:
            sys.exit(f"lost_work: {error}\n{training.explained()}")
    return list(losses(lives.all))


def losses(lives: list[Life]) -> Iterator[Loss]:
    """What lies between each death and the birth after it."""
    for died, born in pairwise(lives):
        steps = died.last_step - born.began_from()
        taken = [after - before for before, after in pairwise(died.steps)]
        yield Loss(steps, statistics.median(taken) if taken else 0.0)


def job_of(args: dict[str, int]) -> dict[str, object]:
    """job.yaml: a training without end that is saved to memory only."""
    return {
        "train": {
            "entry": "ticking:build",
            "args": args,
            "steps": ENDLESS,
            "device": "cpu",
            "snapshot": f"{INTERVAL_S * 1000:.0f}ms",
            "save": {"every": "1h"},
        },
        "env": {"OMP_NUM_THREADS": "1"},
        "timeouts": {"startup": "2m", "heartbeat": "1m", "stop": "20s"},
        "restart": {"budget": 1000, "backoff": {"initial": 0}},
    }


def told(name: str, lost: list[Loss]) -> list[Figure]:
    """The figures of one network."""
    spread = Spread.of([one.work_s for one in lost])
    step_ms = statistics.median(one.step_s for one in lost) * 1000
    steps = statistics.median(one.steps for one in lost)
    return [
        Figure(
            f"{name}: training lost by a SIGKILL, median",
            spread.median,
            "s",
            limit=ALLOWED_INTERVALS * INTERVAL_S,
            ratio=spread.median / INTERVAL_S,
            beside="the interval",
            note=f"{steps:.0f} steps of {step_ms:.1f} ms",
        ),
        Figure(f"{name}: p5", spread.low, "s"),
        Figure(f"{name}: p95", spread.high, "s"),
    ]


if __name__ == "__main__":
    main()
