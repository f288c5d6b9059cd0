"""What must hold between the fields of a training job, and what follows from its being one.

Owns these relations; semantics.py owns all others. Works on data of any shape, so that a slip in
one place does not keep the others from being reported.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Final

from supervisor.spec.places import dotted
from supervisor.spec.presets import PRESETS, SESSION
from supervisor.spec.problems import Finding
from supervisor.spec.raw import Data, count_of, number_of, plain, section_of
from supervisor.spec.train_sections import Profile, Schedule, Train

OUT: Final = Train.model_fields["out"].default
CHECKPOINTS: Final = "checkpoints"  # folder of the disk tier, below `out`
LONGEST_ARGUMENTS: Final = 96 * 1024  # MAX_ARG_STRLEN of Linux is 128 KiB, for the whole plan
_FACTOR = Schedule.model_fields["factor"].default
_START = Profile.model_fields["start"].default
# What a training job says by itself -> why nobody else does, and what to do instead.
_ITS_OWN = {
    "checkpoint": (
        "the built-in trainer writes and finds its own checkpoints",
        "remove it; train.out says where, train.save and train.snapshot how often",
    ),
    "resume": ("the built-in trainer resumes by itself", "remove it"),
    "progress": ("the built-in trainer reports its own progress", "remove it"),
    "done": (
        "the built-in trainer is done when its epochs or steps are",
        "remove it; train.epochs or train.steps says when",
    ),
}


def is_training(data: Data) -> bool:
    """Tell whether a job runs the built-in trainer."""
    return data.get("train") is not None


def implied(data: Data) -> dict[str, dict[str, object]]:
    """Return the sections that follow from `train`; the preset that they name fills in the rest."""
    out = section_of(data, "train").get("out")
    folder = PurePosixPath(out if isinstance(out, str) and out else OUT) / CHECKPOINTS
    return {"checkpoint": {"preset": SESSION, "dir": str(folder)}, "done": {"exit": 0}}


def processes(data: Data) -> int:
    """Return how many processes train; 1 where that cannot be read."""
    return count_of(section_of(data, "train").get("processes")) or 1


def train_relations(data: Data) -> Iterator[Finding]:
    """Yield every contradiction that has to do with training jobs."""
    if is_training(data):
        for check in _CHECKS:
            yield from check(data)


def _says_its_own(data: Data) -> Iterator[Finding]:
    """Report sections that say something else than what follows from `train`."""
    preset, ours = PRESETS[SESSION], implied(data)
    means: dict[str, Mapping[str, object]] = {
        "checkpoint": {**preset.checkpoint, **ours["checkpoint"]},
        "resume": preset.resume,
        "progress": {"parse": "auto"},
        "done": ours["done"],
    }
    for name, (why, remedy) in _ITS_OWN.items():
        section = section_of(data, name)
        if any(
            plain(value) not in (None, [], {}, means[name].get(key))
            for key, value in section.items()
        ):
            yield Finding((name,), f"{name}: {why}", remedy, key=True)


def _has_one_length(data: Data) -> Iterator[Finding]:
    train = data.get("train")
    if not isinstance(train, Mapping):
        return
    given = [name for name in ("epochs", "steps") if train.get(name) is not None]
    if not given:
        hint = "such as epochs: 30, or steps: 3000"
        yield Finding(("train",), "train: nothing says how long", hint, key=True)
    elif len(given) > 1:
        message = "train: 'steps' and 'epochs' are both given; one says how long"
        yield Finding(("train", "steps"), message, "keep one of epochs, steps", key=True)


def _processes_have_gpus(data: Data) -> Iterator[Finding]:
    gpus = count_of(section_of(data, "resources").get("gpus"))
    train = section_of(data, "train")
    if not gpus or gpus < 0:
        return
    if train.get("device") == "cpu":
        message = f"train.device: cpu, and the job holds {_counted(gpus, 'GPU')}"
        hint = "write device: auto, or remove resources.gpus"
        yield Finding(("train", "device"), message, hint)
    elif count_of(train.get("processes", 1)) not in (None, gpus):
        count = processes(data)
        message = (
            f"train.processes: {_counted(count, 'process')} for {_counted(gpus, 'GPU')}; "
            "each trains on one of its own"
        )
        where = ("train", "processes") if "processes" in train else ("resources", "gpus")
        hint = f"write train: {{processes: {gpus}}}, or resources: {{gpus: {count}}}"
        yield Finding(where, message, hint)


def _counted(count: int, what: str) -> str:
    plural = "es" if what.endswith("s") else "s"
    return f"{count} {what}" if count == 1 else f"{count} {what}{plural}"


def _ranks_are_not_warm(data: Data) -> Iterator[Finding]:
    if processes(data) > 1 and plain(data.get("warm")):
        message = "warm: torchrun starts each of several processes from nothing"
        yield Finding(("warm",), message, "remove it, or write processes: 1", key=True)


def _schedule_fits_its_kind(data: Data) -> Iterator[Finding]:
    schedule = section_of(data, "train", "schedule")
    kind = schedule.get("kind", "constant")
    where = ("train", "schedule")
    if kind == "step" and schedule.get("every") is None:
        hint = "such as every: 1000, the steps between two decays"
        yield Finding((*where, "kind"), "train.schedule: the kind step needs 'every'", hint)
    unused = {
        "every": kind != "step" and schedule.get("every") is not None,
        "factor": kind != "step" and number_of(schedule.get("factor", _FACTOR)) != _FACTOR,
        "floor": kind == "constant" and number_of(schedule.get("floor", 0)) != 0,
    }
    if kind not in ("constant", "step", "cosine"):
        return
    for key in (key for key, is_given in unused.items() if is_given):
        needed = "step" if key != "floor" else "step or cosine"
        message = f"train.schedule.{key} is not used in the kind {kind}"
        yield Finding((*where, key), message, f"remove it, or write kind: {needed}", key=True)


def _fits_into_the_steps(data: Data) -> Iterator[Finding]:
    """Report what begins when the run is over already; how long epochs are is not known here."""
    train = section_of(data, "train")
    total = count_of(train.get("steps"))
    if total is None or total < 1:
        return
    warmup = count_of(section_of(train, "schedule").get("warmup"))
    if warmup is not None and warmup >= total:
        message = f"train.schedule.warmup: {warmup} steps, and the run has {total}"
        hint = "the learning rate would never be reached; shorten it"
        yield Finding(("train", "schedule", "warmup"), message, hint)
    profile = train.get("profile")
    start = count_of(profile.get("start", _START)) if isinstance(profile, Mapping) else None
    if start is not None and start >= total:
        message = f"train.profile: it starts after {start} steps, and the run has {total}"
        yield Finding(("train", "profile", "start"), message, "start earlier, such as start: 0")


def _saves_something(data: Data) -> Iterator[Finding]:
    save = section_of(data, "train", "save")
    where = ("train", "save")
    if save.get("every", ...) is None and save.get("steps") is None:
        message = "train.save: neither 'every' nor 'steps', so nothing is saved before the end"
        yield Finding(where, message, "such as every: 5m", key=True)
    if save.get("mode") == "min" and save.get("best") is None:
        message = "train.save.mode: nothing says which metric is meant"
        yield Finding((*where, "mode"), message, "such as best: loss", key=True)


def _prefetch_has_workers(data: Data) -> Iterator[Finding]:
    loader = section_of(data, "train", "loader")
    ahead = count_of(loader.get("prefetch"))
    if count_of(loader.get("workers", 0)) == 0 and ahead not in (None, 2):
        message = "train.loader.prefetch: only workers load batches ahead, and there are none"
        hint = "add workers: 2, or remove it"
        yield Finding(("train", "loader", "prefetch"), message, hint, key=True)


def _arguments_fit(data: Data) -> Iterator[Finding]:
    where = ("train", "args")
    length = len(json.dumps(section_of(data, *where)))
    if length > LONGEST_ARGUMENTS:
        message = f"{dotted(where)}: {length} characters do not fit on a command line"
        yield Finding(where, message, "write them to a file, and give its name", key=True)


_CHECKS: tuple[Callable[[Data], Iterator[Finding]], ...] = (
    _says_its_own,
    _has_one_length,
    _processes_have_gpus,
    _ranks_are_not_warm,
    _schedule_fits_its_kind,
    _fits_into_the_steps,
    _saves_something,
    _prefetch_has_workers,
    _arguments_fit,
)
