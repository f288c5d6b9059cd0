"""Is a training that was struck 1, 5 or 20 times the very one that was not? In bits.

The faults are SIGKILL, a hang, a graceful stop with the same command again, the newest checkpoint
of both tiers torn, and a memory tier that is gone; among 20 also a SIGKILL of the runner itself and
of a process that loads data. Steps and order come from a seed. Each row is compared with one
undisturbed run: weights, optimizer, random states, metrics log, evaluations, and the samples and
pixels of every step in every life. Ends only what its own runners started.
"""

import argparse
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.exact.compare import differences, steps_repeated
from benchmarks.exact.faults import ALL_KINDS, Course, drawn, mixed
from benchmarks.exact.trial import Toll, Trial
from benchmarks.figures import MET
from benchmarks.table import Cell, Promise, Table, show

STEPS, SAVE_EVERY = 400, 15
QUICK_STEPS = 150
COUNTS, QUICK_COUNTS = (1, 5, 20), (1, 5)
ROUNDS = 3  # of each count but the largest, with other seeds
LIMIT_S = 900.0
CAME_TO = ("attempts", "runs", "seconds", "steps", "repeated", "differs in")
HEADS = ("processes", "faults", "seed", *ALL_KINDS, *CAME_TO)


@dataclass(frozen=True, slots=True)
class Row:
    """One disturbed run: what befell it, what it came to, in what it differs."""

    course: Course
    seed: int
    kinds: Counter[str]
    toll: Toll
    repeated: int
    wrong: list[str]

    def cells(self) -> tuple[Cell, ...]:
        """As a line of the table."""
        plan: list[Cell] = [self.course.processes, self.kinds.total(), str(self.seed)]
        plan += [self.kinds[kind] for kind in ALL_KINDS]
        came_to: list[Cell] = [self.toll.causes.total(), self.toll.runs, self.toll.took_s]
        return (*plan, *came_to, self.course.steps, self.repeated, len(self.wrong))


def main() -> int:
    """Run and tell; 1 if a single bit was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1 and 5 faults, once each")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument("--seed", type=int, default=1, help="of the first round's faults")
    given = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="train-kills-") as folder:
        for processes in (1, 2):
            steps = QUICK_STEPS if given.quick else STEPS
            course = Course(steps, SAVE_EVERY, processes)
            rows += struck(Path(folder) / str(processes), course, given)
    table = Table("", HEADS, [row.cells() for row in rows])
    promises = judged(rows)
    show("train_kills", [table], promises, as_json=given.json)
    for row in rows:
        for line in row.wrong:
            print(f"{row.course.processes} processes, seed {row.seed}: {line}", file=sys.stderr)
    return int(any(one.verdict != MET for one in promises))


def struck(folder: Path, course: Course, given: argparse.Namespace) -> list[Row]:
    """Every disturbed run of a course, two at a time; the undisturbed one first."""
    calm = folder / "calm"
    with Trial(calm, course) as trial:
        toll = trial.run(LIMIT_S)
        if toll.code != 0:
            sys.exit(f"train_kills: the undisturbed run failed:\n{trial.explained()}")
    counts = QUICK_COUNTS if given.quick else COUNTS
    rounds = 1 if given.quick else ROUNDS
    plans = [
        (given.seed + number, count)
        for count in counts
        for number in range(1 if count == max(counts) else rounds)
    ]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda plan: row_of(calm, course, *plan), plans))


def row_of(calm: Path, course: Course, seed: int, count: int) -> Row:
    """One disturbed run, compared with the undisturbed one."""
    kinds = mixed(count, first=seed - 1)  # of a single fault, each round has another
    folder = calm.parent / f"{count}-{seed}"
    faults = drawn(seed, kinds, course)
    with Trial(folder, course, faults) as trial:
        toll = trial.run(LIMIT_S)
        wrong = [] if toll.code == 0 else [f"exit code {toll.code}:\n{trial.explained()}"]
        if left := trial.left_in_memory():
            wrong.append(f"left in memory: {left}")
    if len(toll.struck) != count:
        wrong.append(f"{len(toll.struck)} of {count} faults struck")
    if toll.code == 0:
        wrong += differences(calm, folder, course)
    return Row(course, seed, Counter(kinds), toll, steps_repeated(folder), wrong)


def judged(rows: list[Row]) -> list[Promise]:
    """What must hold."""
    return [
        Promise(
            f"{processes} process(es): runs that differ in a bit",
            sum(bool(row.wrong) for row in rows if row.course.processes == processes),
            most=0,
            note=f"of {sum(row.course.processes == processes for row in rows)}",
        )
        for processes in (1, 2)
    ]


if __name__ == "__main__":
    sys.exit(main())
