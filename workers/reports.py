"""What a worker's session and its runner say to each other: one small type for each message.

Owns the messages and how they are written: one JSON object a packet of a Unix seqpacket socket.
Does no I/O. Invariant: what cannot be read is None, whoever sent it: neither side ends by a message
of the other.

    worker -> runner   Hello first; then Progressed (the latest, at most twice a second), Listens,
                       PhaseBegan, PhaseEnded, Published, Errored, Outcome
    runner -> worker   StopAsked
"""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple, Union

REPORT_LIMIT_BYTES = 64 * 1024  # of one packet
REPORTS_VERSION = 1
MOST = 2**63 - 1  # of an integer: what a database takes


class Hello(NamedTuple):
    """A process of the worker begins to report. `rank` is its number among `world` equals."""

    pid: int
    rank: int = 0
    world: int = 1
    version: int = REPORTS_VERSION


class Progressed(NamedTuple):
    """How far it is. `gpu_bytes` is what its own allocator holds on its GPUs, where it knows."""

    step: int
    total: int | None = None
    metrics: dict[str, float] = {}  # noqa: RUF012 - never changed; a NamedTuple needs a default
    gpu_bytes: int | None = None


class Listens(NamedTuple):
    """It looks at `stopping`: being told is enough, a signal is not needed."""


class PhaseBegan(NamedTuple):
    """A stretch without progress begins; `number` is the sender's own count of them."""

    number: int
    name: str
    limit_s: float | None = None


class PhaseEnded(NamedTuple):
    """It is over."""

    number: int


class Published(NamedTuple):
    """A checkpoint lies whole at `path`."""

    path: str
    step: int
    tier: str
    size_bytes: int


class Errored(NamedTuple):
    """What it dies of. `kind` is one of FAILURE_KINDS; `details` are facts for `explain`."""

    kind: str
    type_name: str
    message: str
    traceback: str = ""
    step: int | None = None
    details: dict[str, Any] = {}  # noqa: RUF012 - as above


class Outcome(NamedTuple):
    """How it left in order: `stopped` or `finished`."""

    word: str
    step: int | None = None


class StopAsked(NamedTuple):
    """Stop at the next batch boundary; after the grace it is killed."""

    reason: str
    grace_s: float


# Evaluated, and Python 3.9 knows no other way to write it.
Report = Union[  # noqa: UP007 - see above
    Hello, Progressed, Listens, PhaseBegan, PhaseEnded, Published, Errored, Outcome
]  # fmt: skip

_TYPES: dict[str, Any] = {
    one.__name__: one
    for one in (
        Hello, Progressed, Listens, PhaseBegan, PhaseEnded, Published, Errored, Outcome, StopAsked,
    )
}  # fmt: skip


def encode(report: Any) -> bytes:  # noqa: ANN401 - any of the types above
    """Return the packet of a message; figures that are not finite are written as text."""
    fields = report._asdict()
    fields["is"] = type(report).__name__
    return json.dumps(_plain(fields), separators=(",", ":"), ensure_ascii=True).encode()


def decode(packet: bytes) -> Any:  # noqa: ANN401 - any of the types above, or None
    """Return the message of a packet, None for what is none that this version knows."""
    try:
        fields = json.loads(packet)
        kind = _TYPES[fields.pop("is")]
        known = {name: fields[name] for name in kind._fields if name in fields}
        return _checked(kind(**known))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None


_INTEGERS = ("pid", "rank", "world", "step", "total", "number", "size_bytes", "gpu_bytes")
_TEXTS = ("name", "path", "tier", "kind", "type_name", "message", "traceback", "word", "reason")
_SECONDS = ("limit_s", "grace_s")


def _checked(report: Any) -> Any:  # noqa: ANN401 - as above
    """Return a message whose fields have their types. Raises TypeError, ValueError."""
    for name, value in report._asdict().items():
        if value is None and report._field_defaults.get(name, ...) is None:
            continue
        if name in _INTEGERS and (not isinstance(value, int) or isinstance(value, bool)):
            raise TypeError(name)
        if name in _INTEGERS and not -MOST <= value <= MOST:
            raise ValueError(name)
        if name in _TEXTS and not isinstance(value, str):
            raise TypeError(name)
        if name in _SECONDS and not (
            isinstance(value, (int, float)) and math.isfinite(value) and value >= 0
        ):
            raise ValueError(name)
        if name in ("metrics", "details") and not isinstance(value, dict):
            raise TypeError(name)
    if isinstance(report, Progressed):
        return report._replace(metrics={k: float(v) for k, v in report.metrics.items()})
    return report


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value
