"""The kinds of value that only a training run has: its builder, precision and snapshot interval.

Owns how one value is read. Every refusal is a BadValue, whose sentence a person can act on.
"""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from supervisor.spec.batch_kinds import ENTRY_SCHEMA, entry_for
from supervisor.spec.kinds import DURATION_SCHEMA, Text
from supervisor.spec.nodes import Filled, plain_value
from supervisor.spec.problems import BadValue, shown, suggest
from supervisor.spec.units import read_duration, write_duration

SHORTEST_SNAPSHOT_S: Final = 0.5  # more often, and copying would keep the host busy
PRECISIONS: Final = ("fp32", "bf16", "fp16")
# What people write instead, and what they mean by it.
_OTHER_PRECISIONS = {
    **dict.fromkeys(("float32", "f32", "float", "full", "single", "32"), "write fp32"),
    **dict.fromkeys(("bfloat16", "bfloat", "brain"), "write bf16"),
    **dict.fromkeys(("float16", "f16", "half", "16"), "write fp16"),
    **dict.fromkeys(("amp", "mixed", "16-mixed"), "write bf16, or fp16 on a GPU without it"),
    **dict.fromkeys(("fp64", "float64", "double", "64"), "for doubles, build a model of doubles"),
}


def _builder(text: str) -> str:
    return entry_for(text, "build")


def _precision(value: object) -> object:
    given = plain_value(value) if isinstance(value, Filled) else value
    if isinstance(given, str) and given in PRECISIONS:
        return str(given)
    hint = _OTHER_PRECISIONS.get(str(given).lower(), "") or suggest(given, PRECISIONS)
    raise BadValue(f"{shown(given)} is no precision", hint)


def _pin(value: object) -> object:
    given = plain_value(value) if isinstance(value, Filled) else value
    if isinstance(given, bool) or given == "auto":
        return given
    raise BadValue(f"{shown(given)} where auto, true or false belongs", "such as pin: auto")


def _snapshot(value: object) -> float:
    seconds = read_duration(plain_value(value) if isinstance(value, Filled) else value)
    if seconds < SHORTEST_SNAPSHOT_S:
        least = write_duration(SHORTEST_SNAPSHOT_S)
        raise BadValue(
            f"a snapshot every {write_duration(seconds)} would do little else",
            f"at least {least}, such as 5s; null for none",
        )
    return seconds


Builder = Annotated[Text, AfterValidator(_builder), WithJsonSchema(ENTRY_SCHEMA)]
Precision = Annotated[Literal["fp32", "bf16", "fp16"], BeforeValidator(_precision)]
Pin = Annotated[
    bool | Literal["auto"],
    BeforeValidator(_pin),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "boolean"}]}),
]
SnapshotInterval = Annotated[float, BeforeValidator(_snapshot), WithJsonSchema(DURATION_SCHEMA)]
