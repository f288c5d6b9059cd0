"""The kinds of value a job file holds: durations, sizes, globs, expressions, signals.

Owns how one value is read and what the published schema says of it; relates no two fields.
Every refusal is a BadValue, whose sentence a person can act on.
"""

import re
import signal
import warnings
from pathlib import PurePosixPath
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from supervisor.spec.nodes import Filled, plain_value
from supervisor.spec.placeholders import check_placeholders
from supervisor.spec.problems import BadValue, closest, shown, suggest
from supervisor.spec.units import (
    DURATION_PATTERN,
    SIZE_PATTERN,
    read_duration,
    read_size,
    write_size,
)

# Signals that end a process without asking it, or suspend it: no way to stop gracefully.
_UNCATCHABLE = ("KILL", "STOP")
_MAX_PATTERN = 2000
_LEAST_ROOM_BYTES = 1024**2  # a limit below this is a slip of the unit
AUTO: Final = "auto"
DEVICES: Final = ("auto", "cpu", "cuda")


def _unfilled(value: object) -> object:
    return plain_value(value) if isinstance(value, Filled) else value


def _duration(value: object) -> float:
    return read_duration(_unfilled(value))


def _size(value: object) -> int:
    return read_size(_unfilled(value))


def _positive(value: float) -> float:
    if value == 0:
        raise BadValue("zero makes no sense here", "leave the key out for the default")
    return value


def _heartbeat(value: object) -> float | str:
    if isinstance(value, str) and closest(value, (AUTO,)):
        if value != AUTO:
            raise BadValue(f"{shown(value)} is not a duration", f"did you mean '{AUTO}'?")
        return AUTO
    return _positive(_duration(value))


def _roomy(count: int) -> int:
    if count == 0:
        raise BadValue("zero makes no sense here", "leave the key out for no limit")
    if count < _LEAST_ROOM_BYTES:
        raise BadValue(
            f"{write_size(count)} is less than any worker needs",
            "at least 1MiB; a number without a unit counts bytes",
        )
    return count


def _glob(text: str) -> str:
    if not text or text.startswith(("/", "~")) or ".." in PurePosixPath(text).parts:
        raise BadValue(
            f"{shown(text)} is not a pattern inside the checkpoint directory",
            "it is relative to `dir`, such as checkpoint-*; put the folder into `dir`",
        )
    return text


def compiled(text: str) -> re.Pattern[str]:
    """Compile an expression of the user's; BadValue says what is wrong with it and where."""
    if len(text) > _MAX_PATTERN:
        raise BadValue(f"an expression of more than {_MAX_PATTERN} characters", "shorten it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of doubtful spellings; they are the author's business
            return re.compile(text)
    except re.error as error:
        at = f" at character {error.pos + 1}" if error.pos is not None else ""
        hint = "single quotes keep backslashes as they are: 'step-(\\d+)'"
        raise BadValue(f"not a regular expression: {error.msg}{at}", hint) from error
    except (RecursionError, OverflowError) as error:
        raise BadValue("not a regular expression: nested too deeply", "simplify it") from error


def _regex(text: str) -> str:
    compiled(text)
    return text


def _step_regex(text: str) -> str:
    groups = compiled(text).groups
    if groups != 1:
        raise BadValue(
            f"the expression has {groups} groups, and exactly one is the step",
            "put the digits in parentheses: 'step-(\\d+)'; write (?:...) for other groups",
        )
    return text


def _progress_pattern(text: str) -> str:
    known = ("step", "total", "loss", "epoch")
    names = list(compiled(text).groupindex)
    for name in names:
        if name not in known:
            raise BadValue(f"the group {shown(name)} means nothing here", suggest(name, known))
    if "step" not in names:
        raise BadValue("the expression has no group named step", r"write it as (?P<step>\d+)")
    return text


def _signal(value: object) -> str:
    known = [name.removeprefix("SIG") for name in sorted(signal.Signals.__members__)]
    known = [name for name in known if name not in _UNCATCHABLE]
    if isinstance(value, int) and not isinstance(value, bool):
        by_number = {int(number): number.name.removeprefix("SIG") for number in signal.Signals}
        name = by_number.get(value, "")
        hint = f"write {name}" if name in known else "such as TERM or USR1"
        raise BadValue(f"{shown(value)} is not the name of a signal", hint)
    name = value.upper().removeprefix("SIG") if isinstance(value, str) else ""
    if name in _UNCATCHABLE:
        raise BadValue(
            f"{name} cannot be caught, so nothing could be saved",
            "list what your script handles, such as TERM; the kill comes by itself afterwards",
        )
    if name not in known:
        near = suggest(name, known)
        hint = near if near.startswith("did") else "such as TERM, INT or USR1"
        raise BadValue(f"{shown(value)} is not the name of a signal", hint)
    return name


def _device(value: object) -> str:
    if isinstance(value, str) and value in DEVICES:
        return str(value)
    word = str(value).lower()
    hint = suggest(value, DEVICES)
    if word in ("gpu", "nvidia"):
        hint = "write cuda"
    elif word.startswith("cuda:"):
        hint = "write cuda; resources.gpus says how many GPUs, and supervise chooses which"
    raise BadValue(f"{shown(value)} is no device", hint)


def _env_name(text: str) -> str:
    if not text or "=" in text:
        raise BadValue(f"{shown(text)} cannot name an environment variable", "no '=', not empty")
    return text


DURATION_SCHEMA = {
    "anyOf": [
        {"type": "string", "pattern": DURATION_PATTERN},
        {"type": "number", "minimum": 0},
    ],
    "examples": ["90s", "10m", "1h30m", "7d"],
}
SIZE_SCHEMA = {
    "anyOf": [{"type": "string", "pattern": SIZE_PATTERN}, {"type": "integer", "minimum": 0}],
    "examples": ["512MiB", "20GiB"],
}
_ROOMY_SCHEMA = {
    "anyOf": [
        {"type": "string", "pattern": SIZE_PATTERN},
        {"type": "integer", "minimum": _LEAST_ROOM_BYTES},
    ],
    "examples": ["512MiB", "20GiB"],
}

Duration = Annotated[float, BeforeValidator(_duration), WithJsonSchema(DURATION_SCHEMA)]
PositiveDuration = Annotated[
    float,
    AfterValidator(_positive),
    BeforeValidator(_duration),
    WithJsonSchema(DURATION_SCHEMA),
]
Heartbeat = Annotated[
    float | Literal["auto"],
    BeforeValidator(_heartbeat),
    WithJsonSchema({"anyOf": [{"const": AUTO}, *DURATION_SCHEMA["anyOf"]]}),
]
Size = Annotated[int, BeforeValidator(_size), WithJsonSchema(SIZE_SCHEMA)]
RoomySize = Annotated[
    int,
    AfterValidator(_roomy),
    BeforeValidator(_size),
    WithJsonSchema(_ROOMY_SCHEMA),
]
UNFILLED = BeforeValidator(_unfilled)  # `${n}` may stand where a number belongs
Number = Annotated[float, Field(strict=True, allow_inf_nan=False), UNFILLED]
Flag = Annotated[bool, Field(strict=True), UNFILLED]
Text = Annotated[str, Field(min_length=1)]
# Numbers and true/false are taken as they are written, so the schema allows them.
Argument = Annotated[str, WithJsonSchema({"type": ["string", "number", "boolean"]})]
Template = Annotated[
    str,
    AfterValidator(check_placeholders),
    WithJsonSchema({"type": ["string", "number", "boolean"]}),
]
Device = Annotated[Literal["auto", "cpu", "cuda"], BeforeValidator(_device)]
EnvName = Annotated[str, AfterValidator(_env_name)]
Glob = Annotated[str, AfterValidator(_glob)]
Regex = Annotated[Text, AfterValidator(_regex)]
StepRegex = Annotated[Text, AfterValidator(_step_regex)]
ProgressPattern = Annotated[Text, AfterValidator(_progress_pattern)]
SignalName = Annotated[
    str, BeforeValidator(_signal), WithJsonSchema({"type": "string", "examples": ["TERM", "USR1"]})
]
