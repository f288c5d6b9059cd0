"""What a training run is asked to do, as the worker gets it.

Owns names, defaults and limits of the fields; durations are in seconds. Never imports torch, so a
wrong field is told before anything is built. Invariant: a Plan that exists can be carried out as
far as its own values say: `epochs` or `steps` is given, not both, and every choice is a known one.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workers.train.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("fp32", "bf16", "fp16")
SCHEDULES = ("constant", "step", "cosine")
MODES = ("min", "max")
LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Loader:
    """How samples are fetched: `workers` processes, each `prefetch` batches ahead."""

    workers: int = 0
    prefetch: int = 2
    pin: bool | None = None  # None: where the device is a GPU


@dataclass(frozen=True)
class Save:
    """When the disk tier gets a checkpoint, and which of them stay."""

    every_s: float | None = 300.0
    steps: int | None = None
    keep: int = 3
    best: str | None = None  # the metric by which one is the best
    mode: str = "max"


@dataclass(frozen=True)
class Schedule:
    """The learning rate as a function of the step; `every` is in steps, for the kind `step`."""

    kind: str = "constant"
    warmup: int = 0
    every: int | None = None
    factor: float = 0.1
    floor: float = 0.0


@dataclass(frozen=True)
class Metrics:
    """How often a line of metrics is written, and whether TensorBoard gets them too."""

    every: int = 1
    tensorboard: bool = False


@dataclass(frozen=True)
class Profile:
    """Which steps are profiled."""

    start: int = 10
    steps: int = 5


@dataclass(frozen=True)
class Plan:
    """The section `train` of a job, or the keyword arguments of `workers.train.run`."""

    entry: str = ""
    args: dict[str, Any] = field(default_factory=dict)
    out: str = "out"
    epochs: int | None = None
    steps: int | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "fp32"
    accumulate: int = 1
    compile: bool = False
    processes: int = 1
    deterministic: bool = False
    loader: Loader = field(default_factory=Loader)
    snapshot_s: float | None = 5.0
    save: Save = field(default_factory=Save)
    evaluate: int | None = None
    schedule: Schedule = field(default_factory=Schedule)
    clip: float | None = None
    non_finite: int = 50
    metrics: Metrics = field(default_factory=Metrics)
    profile: Profile | None = None

    def __post_init__(self) -> None:
        """Raise TrainingError for a value that cannot be carried out."""
        if (self.epochs is None) == (self.steps is None):
            given = "neither" if self.epochs is None else "both"
            raise _bad(f"train: {given} of `epochs` and `steps` is given: give exactly one of them")
        _choice("device", self.device, DEVICES)
        _choice("precision", self.precision, PRECISIONS)
        _choice("schedule.kind", self.schedule.kind, SCHEDULES)
        _choice("save.mode", self.save.mode, MODES)
        if not 0 <= self.seed <= LARGEST_SEED:
            raise _bad(f"train.seed: {self.seed} is not between 0 and 2**63 - 1")
        if self.schedule.kind == "step" and self.schedule.every is None:
            raise _bad("train.schedule.every: missing: after how many steps does the rate decay?")
        for name in POSITIVE:
            _check_least(name, self._at(name), 1)
        for name in NOT_NEGATIVE:
            _check_least(name, self._at(name), 0)
        for name in ABOVE_ZERO:
            value = self._at(name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise _bad(f"train.{name}: {value} is not above zero")

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Plan:
        """Return the plan of plain values. Raises TrainingError naming the field that is wrong."""
        return cls(**_fields(cls, fields, "train"))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Return the plan of a JSON object. Raises TrainingError."""
        try:
            fields = json.loads(text)
        except ValueError as error:
            raise _bad(f"train: the plan is no JSON: {error}") from None
        if not isinstance(fields, dict):
            raise _bad(f"train: the plan is of type {type(fields).__name__}, not an object")
        return cls.of(fields)

    def _at(self, name: str) -> Any:  # noqa: ANN401 - whatever the field holds
        value: Any = self
        for part in name.split("."):
            value = None if value is None else getattr(value, part)
        return value


POSITIVE = (
    "epochs", "steps", "accumulate", "processes", "loader.prefetch", "save.steps", "save.keep",
    "evaluate", "schedule.every", "non_finite", "metrics.every", "profile.steps",
)  # fmt: skip
NOT_NEGATIVE = ("loader.workers", "schedule.warmup", "schedule.floor", "profile.start")
ABOVE_ZERO = ("snapshot_s", "save.every_s", "clip", "schedule.factor")

_SECTIONS: dict[str, Any] = {
    one.__name__: one for one in (Loader, Save, Schedule, Metrics, Profile)
}
_PLAIN: dict[str, Any] = {
    "str": str, "bool": bool, "int": int, "float": (int, float), "dict[str, Any]": dict,
}  # fmt: skip


def _fields(kind: Any, given: Mapping[str, Any], where: str) -> dict[str, Any]:  # noqa: ANN401 - a dataclass
    """Return the values of a dataclass's fields, with the types that they say."""
    known = {one.name: str(one.type) for one in dataclasses.fields(kind)}
    for name in given:
        if name not in known:
            raise _bad(f"{where}.{name}: there is no such field{_similar(str(name), known)}")
    return {name: _value(known[name], value, f"{where}.{name}") for name, value in given.items()}


def _value(wanted: str, value: Any, where: str) -> Any:  # noqa: ANN401 - plain values of any type
    # The text of an annotation, since Python 3.9 cannot evaluate `int | None`.
    for one in wanted.split(" | "):
        if one == "None" and value is None:
            return None
        if one in _SECTIONS:
            if isinstance(value, _SECTIONS[one]):
                return value
            if isinstance(value, dict):
                return _SECTIONS[one](**_fields(_SECTIONS[one], value, where))
        elif one in _PLAIN and isinstance(value, _PLAIN[one]):
            if isinstance(value, bool) and one != "bool":
                continue  # which Python takes for a number
            return float(value) if one == "float" else value
    words = wanted.replace("dict[str, Any]", "mapping").replace(" | ", " or ")
    raise _bad(f"{where}: {value!r} is of type {type(value).__name__}, not {words}")


def _choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise _bad(f"train.{name}: {value!r} is none of {', '.join(choices)}")


def _check_least(name: str, value: float | None, least: int) -> None:
    if value is not None and not value >= least:
        raise _bad(f"train.{name}: {value} is less than {least}")


def _similar(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f": did you mean {close[0]}?" if close else f"; there are: {', '.join(known)}"


def _bad(message: str) -> TrainingError:
    return TrainingError(message, kind="bad_config")
