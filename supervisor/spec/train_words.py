"""What a training job will do, in the words of `supervise check`.

Owns the sentences; the blob of a plan is for the worker, and nobody is shown it.
"""

import shlex
from collections.abc import Iterator

from supervisor.spec.launch import TRAIN, torchrun
from supervisor.spec.presets import PRESETS, SESSION
from supervisor.spec.problems import printable
from supervisor.spec.train import TrainPlan
from supervisor.spec.train_semantics import CHECKPOINTS
from supervisor.spec.units import write_duration


def train_in_words(plan: TrainPlan) -> Iterator[str]:
    """Yield the lines that tell what runs, what a restart does, and what is kept where."""
    given = plan.given
    folder = plan.out / CHECKPOINTS
    yield f"# first attempt: {printable(_command(plan))}"
    yield f"#                {_length(plan)}, {_processes(plan)}, in {given.precision}"
    yield f"# a restart:     the same, and it goes on from the newest {_kinds(plan)} that verifies,"
    yield f"#                such as {printable(str(folder / PRESETS[SESSION].example))}"
    if given.snapshot_s is None:
        yield "# in memory:     nothing"
    else:
        every = write_duration(given.snapshot_s)
        yield f"# in memory:     a snapshot every {every}; it outlives the worker, not the host"
    yield f"# on disk:       {printable(_saved(plan))}"
    yield f"# results:       {printable(str(plan.out))}, when the run is complete"


def _command(plan: TrainPlan) -> str:
    launcher = () if plan.processes == 1 else torchrun(plan)
    return shlex.join(("python", *launcher, "-m", "workers", TRAIN, plan.given.entry))


def _length(plan: TrainPlan) -> str:
    epochs, steps = plan.given.epochs, plan.given.steps
    return f"{epochs} epoch{_s(epochs)}" if epochs is not None else f"{steps} step{_s(steps)}"


def _s(count: int | None) -> str:
    return "" if count == 1 else "s"


def _processes(plan: TrainPlan) -> str:
    count = plan.processes
    return "in one process" if count == 1 else f"in {count} processes"


def _kinds(plan: TrainPlan) -> str:
    return "checkpoint" if plan.given.snapshot_s is None else "snapshot or checkpoint"


def _saved(plan: TrainPlan) -> str:
    save = plan.given.save
    every = [] if save.every_s is None else [f"every {write_duration(save.every_s)}"]
    every += [] if save.steps is None else [f"every {save.steps} step{_s(save.steps)}"]
    kept = "the newest is kept" if save.keep == 1 else f"the newest {save.keep} are kept"
    best = "" if save.best is None else f", and that with the best {save.best} ({save.mode})"
    return f"a checkpoint {' and '.join(every)}, on a stop and at the end; {kept}{best}"
