"""What runner and batch worker say to each other: one small type for each message.

Owns the meaning of the messages; protocol.py says when they are sent, lines.py how they are
written. Does nothing. Invariant: a message holds plain values, no objects of either side.
"""

from __future__ import annotations

from typing import NamedTuple, Union


class Failure(NamedTuple):
    """What a call, or the loading of an entry, raised. `kind` is one of FAILURE_KINDS."""

    kind: str
    type_name: str
    message: str
    traceback: str
    fatal: bool = False  # the process cannot go on and leaves


class Setup(NamedTuple):
    """First line to a worker: what to load. A listing has no more than entry and args."""

    entry: str
    args: dict[str, object]
    out: str | None = None  # absolute folder
    batch: int | None = None  # as in Do; what the job asks for
    worker: int = 0  # its serial


class Do(NamedTuple):
    """Items to work on, in this order, behind those that the worker has."""

    items: list[tuple[int, object]]
    batch: int | None  # items a call, given as a list; None: one, given as it is


class Leave(NamedTuple):
    """Finish the call that has begun, then leave."""


class Ready(NamedTuple):
    """The entry is loaded and constructed."""

    setup_s: float


class Unready(NamedTuple):
    """The entry cannot be loaded or constructed; the process exits 1."""

    failure: Failure


class Begun(NamedTuple):
    """The call with these items begins now."""

    numbers: tuple[int, ...]


class Done(NamedTuple):
    """An item's outputs are durable; `result` is its JSON text, `ms` the time of the whole call."""

    number: int
    ms: float
    result: bytes


class Failed(NamedTuple):
    """The call with these items raised."""

    numbers: tuple[int, ...]
    failure: Failure


class Memory(NamedTuple):
    """What the process holds, and how many items it has finished by then."""

    rss_bytes: int
    gpu_bytes: int | None  # of torch's tensors; None where CUDA is not in use
    gpu_peak_bytes: int | None
    items: int


class Left(NamedTuple):
    """Last word of a worker that leaves in order."""


# Evaluated, and Python 3.9 knows no other way to write them.
Order = Union[Setup, Do, Leave]  # noqa: UP007 - see above
Report = Union[Ready, Unready, Begun, Done, Failed, Memory, Left]  # noqa: UP007 - see above
