"""What a crew is told, and what it is told to do: the vocabulary of `machine.step`.

Owns these words only. None of them is stored; what must be is among `core.item_events`.
"""

from dataclasses import dataclass
from enum import StrEnum

from supervisor.core.batch.state import Ending
from supervisor.core.causes import Cause


@dataclass(frozen=True, slots=True)
class Made:
    """What a worker had to wait for is there, a GPU for example: it starts now."""

    serial: int


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker has loaded the user's code."""

    serial: int


@dataclass(frozen=True, slots=True)
class Reported:
    """What a worker said of its items, in one reading of its channel.

    `finished` are those it finished, in order; `begun` those of the call that it is in now.
    """

    serial: int
    finished: tuple[int, ...]
    begun: tuple[int, ...]


class Fault(StrEnum):
    """What kind of exception a call raised."""

    ERROR = "error"
    BAD_RESULT = "bad_result"
    MEMORY = "memory"
    CUDA_OOM = "cuda_oom"
    CUDA_ERROR = "cuda_error"
    DISK_FULL = "disk_full"


@dataclass(frozen=True, slots=True)
class Failed:
    """A call raised an exception; the worker lives, unless it is `fatal`: then it leaves."""

    serial: int
    items: tuple[int, ...]
    fault: Fault
    reason: str
    detail: str = ""
    fatal: bool = False


@dataclass(frozen=True, slots=True)
class MemorySeen:
    """The memory of a worker, after so many items."""

    serial: int
    items: int
    host_bytes: int | None
    gpu_bytes: int | None


@dataclass(frozen=True, slots=True)
class Overdue:
    """A deadline of a worker has passed, and nothing excuses it; `seen` says which, in words."""

    serial: int
    seen: str


@dataclass(frozen=True, slots=True)
class Outgrown:
    """A worker went beyond a limit at which it is to leave, and not to be killed."""

    serial: int
    reason: str


@dataclass(frozen=True, slots=True)
class Revived:
    """A worker that was to be ended moved while it was looked at: it was slow, not hung."""

    serial: int


@dataclass(frozen=True, slots=True)
class Gone:
    """A worker and its whole tree have ended, and why that was.

    `in_order` says that it left as it was asked to, or because nothing was left for it. `outside`
    says that a signal from elsewhere ended it.
    """

    serial: int
    cause: Cause
    reason: str
    detail: str = ""
    in_order: bool = False
    outside: bool = False
    ran_s: float = 0.0


@dataclass(frozen=True, slots=True)
class StopAsked:
    """The attempt is to end: for a person, for a limit, or for its GPUs."""

    reason: str = ""


Word = (
    Made | Ready | Reported | Failed | MemorySeen | Outgrown | Overdue | Revived | Gone | StopAsked
)


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Start a worker in a slot."""

    serial: int
    slot: int


@dataclass(frozen=True, slots=True)
class HandOut:
    """Give a worker these items, `batch` of them a call; None: each in a call of its own."""

    serial: int
    items: tuple[int, ...]
    batch: int | None


@dataclass(frozen=True, slots=True)
class Dismiss:
    """Ask a worker to leave after the call that it is in."""

    serial: int


@dataclass(frozen=True, slots=True)
class EndWorker:
    """End a worker and its tree at once; look at its stacks first."""

    serial: int


@dataclass(frozen=True, slots=True)
class CrewEnded:
    """No worker is left, and none is to come. `ending` is None when all there is was done."""

    ending: Ending | None


Instruction = StartWorker | HandOut | Dismiss | EndWorker | CrewEnded
