"""What the daemon answers, as records.

Owns their types, and nothing else: whoever only names them need not load HTTP.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job that the queue has; not `new` where its key was known already."""

    id: str
    name: str
    state: str
    new: bool


@dataclass(frozen=True, slots=True)
class Told:
    """What became of a wish: the job's state, and what was done, in words."""

    id: str
    state: str
    words: str


@dataclass(frozen=True, slots=True)
class Waited:
    """Where a job was when the waiting was over. `exit_code` is None unless it has `ended`."""

    id: str
    state: str
    exit_code: int | None
    ended: bool


@dataclass(frozen=True, slots=True)
class LogPart:
    """A part of a log, `size` bytes in all. `attempt` is None where there is none yet.

    `next` is the offset behind the part; `ended`: that attempt writes no more.
    """

    attempt: int | None
    offset: int
    next: int
    size: int
    data: bytes
    ended: bool
