"""SIGKILL of the daemon at random moments while jobs run and wait: what is lost, what runs twice.

Twenty jobs run for as long as it takes and write down each of their steps with the time; two
hundred short ones wait for two places and write down that they ran. The daemon is killed and
started again, over and over. At the end every short job must have run exactly once, and no long one
may have noticed anything.
"""

import argparse
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from benchmarks.figures import Figure, show
from benchmarks.served import Served

LONG, SHORT, PLACES = 20, 200, 2
KILLS, QUICK_KILLS = 200, 10
LEAST_LIFE_S, LONGEST_LIFE_S = 0.0, 1.5
PAUSE_LIMIT_S = 1.0
BEGIN_LIMIT_S, END_LIMIT_S = 120.0, 1200.0

STEPS = """
import sys, time
with open(sys.argv[1], "a", buffering=1) as steps:
    steps.write(f"began {time.monotonic()}\\n")
    while True:
        time.sleep(0.05)
        steps.write(f"{time.monotonic()}\\n")
"""
RAN = """
import sys, time
time.sleep(0.2)
with open(sys.argv[1], "a") as ran:
    ran.write("ran\\n")
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the kills did. Seconds for times."""

    lost: int
    twice: int
    disturbed: int
    longest_pause_s: float
    ready_s: list[float]


def main() -> int:
    """Kill, count, tell; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="ten kills: a look, not a figure")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    given = parser.parse_args()
    kills = QUICK_KILLS if given.quick else KILLS
    with tempfile.TemporaryDirectory(prefix="daemon-kills-") as folder:
        seen = attacked(Path(folder), kills, random.Random(given.seed))  # noqa: S311 - repeatable
    ready = sorted(seen.ready_s)
    figures = [
        Figure("jobs lost", seen.lost, "", limit=0),
        Figure("jobs run twice", seen.twice, "", limit=0),
        Figure("running workers started anew", seen.disturbed, "", limit=0),
        Figure("longest pause of a worker", seen.longest_pause_s, "s", limit=PAUSE_LIMIT_S),
        Figure("start of the daemon to its answer, median", ready[len(ready) // 2], "s"),
        Figure("the same, worst", ready[-1], "s"),
    ]
    show(f"daemon_kills ({kills} kills, seed {given.seed})", figures, as_json=given.json)
    return 1 if seen.lost or seen.twice or seen.disturbed else 0


def attacked(folder: Path, kills: int, chance: random.Random) -> Outcome:
    """Run the jobs through so many deaths of their daemon."""
    (folder / "steps.py").write_text(STEPS)
    (folder / "ran.py").write_text(RAN)
    with Served(folder, "--cpus", str(LONG + PLACES)) as served:
        long_ids = served.submit([job("steps", number) for number in range(LONG)])
        served.until(lambda: all(began(folder, one) for one in range(LONG)), BEGIN_LIMIT_S)
        short_ids = served.submit([job("ran", number) for number in range(SHORT)])
        ready_s = []
        for _ in range(kills):
            time.sleep(chance.uniform(LEAST_LIFE_S, LONGEST_LIFE_S))
            served.kill()
            ready_s.append(served.start())
        served.until(lambda: set(served.unfinished()) <= set(long_ids), END_LIMIT_S)
        jobs = served.jobs()
        pauses = [pause for number in range(LONG) for pause in pauses_of(folder, number)]
        counts = [ran(folder, number) for number in range(SHORT)]
        ended_well = [jobs.get(one, {}).get("state") == "succeeded" for one in short_ids]
        return Outcome(
            lost=counts.count(0)
            + ended_well.count(False)
            + sum(one not in jobs for one in long_ids),
            twice=sum(count > 1 for count in counts),
            disturbed=sum(began(folder, number) != 1 for number in range(LONG)),
            longest_pause_s=max(pauses),
            ready_s=ready_s,
        )


def job(kind: str, number: int) -> dict[str, object]:
    """job.yaml of one job."""
    return {
        "name": f"{kind}-{number}",
        "command": [sys.executable, f"{kind}.py", f"{kind}-{number}.txt"],
        "python": sys.executable,
        "timeouts": {"stop": "5s"},
    }


def began(folder: Path, number: int) -> int:
    """How often a long job began."""
    path = folder / f"steps-{number}.txt"
    return path.read_text().count("began") if path.exists() else 0


def pauses_of(folder: Path, number: int) -> list[float]:
    """The times between its steps."""
    lines = (folder / f"steps-{number}.txt").read_text().splitlines()
    instants = [float(line.removeprefix("began ")) for line in lines]
    return [after - before for before, after in pairwise(instants)]


def ran(folder: Path, number: int) -> int:
    """How often a short job ran."""
    path = folder / f"ran-{number}.txt"
    return path.read_text().count("ran") if path.exists() else 0


if __name__ == "__main__":
    sys.exit(main())
