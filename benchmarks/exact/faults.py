"""Which faults befall a training, and when.

Owns the plan of one run. Everything is drawn from a seed, so that a run that came out wrong can be
had again. Invariant: of two checkpoints torn in a row, the second was written after the first.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

KINDS = ("kill", "hang", "stop", "torn", "lost")
ALL_KINDS = (*KINDS, "runner", "loader")
ROUNDS = 10_000
STOPPING_STEPS = 15  # that a training may still do before it is told to stop, on a busy machine


@dataclass(frozen=True, slots=True)
class Fault:
    """Befalls `rank` right after `step`, once; `kind` is one of ALL_KINDS."""

    step: int
    kind: str
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Course:
    """The training that is to be disturbed."""

    steps: int
    save_every: int  # steps from one checkpoint on disk to the next
    processes: int = 1


def drawn(seed: int, kinds: Sequence[str], course: Course) -> list[Fault]:
    """One fault of each of these kinds, at random steps, in the order of the steps.

    Raises:
        ValueError: so many do not fit into so few steps.
    """
    chance = random.Random(seed)  # noqa: S311 - to be the same every time
    for _ in range(ROUNDS):
        steps = sorted(chance.sample(range(2, course.steps - STOPPING_STEPS), len(kinds)))
        order = chance.sample(list(kinds), len(kinds))
        faults = [
            Fault(step, kind, chance.randrange(course.processes))
            for step, kind in zip(steps, order, strict=True)
        ]
        if _are_told_apart(faults) and _can_be_survived(faults, course):
            return faults
    raise ValueError(f"{len(kinds)} faults do not fit into {course.steps} steps")


def mixed(count: int, first: int = 0) -> list[str]:
    """So many kinds, each about as often as the others; the first of them is the one to begin at.

    With more than one of each, the runner and the loaders of the data are struck too.
    """
    kinds = KINDS if count <= len(KINDS) else ALL_KINDS
    return [kinds[number % len(kinds)] for number in range(first, first + count)]


def _are_told_apart(faults: list[Fault]) -> bool:
    """Whether nothing strikes a training that has been asked to stop and has not left yet."""
    return all(
        before.kind != "stop" or after.step - before.step >= STOPPING_STEPS
        for before, after in pairwise(faults)
    )


def _can_be_survived(faults: list[Fault], course: Course) -> bool:
    """Whether there is always a checkpoint before the one that is torn."""
    torn = [0, *(one.step for one in faults if one.kind == "torn")]
    between = 2 * course.save_every + 2
    return all(later - earlier > between for earlier, later in pairwise(torn))
