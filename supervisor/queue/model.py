"""The words of the queue: an entry, what it needs, and where it is on its way.

Owns these records; all of them are plain data. What a job does once it runs is `supervisor.core`'s;
here it is only waiting, started or ended. Times are wall clock, epoch seconds.
"""

from dataclasses import dataclass
from enum import StrEnum

from supervisor.core.causes import State

PRIORITIES = range(-100, 101)


class Phase(StrEnum):
    """Where an entry is: whether a runner of it lives, or is to be started, is told by STARTED."""

    WAITING = "waiting"
    STARTED = "started"
    ENDED = "ended"


class Wish(StrEnum):
    """What its owner wants of the job."""

    RUN = "run"
    STOP = "stop"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Needs:
    """What a job takes of the host while it runs.

    `gpu_memory_bytes` is of each GPU, `cpus` at least one core. None: it did not say.
    """

    gpus: int = 0
    gpu_memory_bytes: int | None = None
    share_gpu: bool = False
    cpus: int = 1
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One submitted job. `seq` is the order of submission over all users.

    `after` are ids of jobs that must succeed first. `claims` are the absolute folders it writes to
    (checkpoints, outputs): two jobs never share one at a time. `queued_s` is when it began to wait;
    a job that is resumed waits anew. `state` and `why` are those of the job when its runner was
    last seen to end. `launches` counts the runners it was given, `lost` those in a row that died.
    `stop_s` is how long it may take to stop.
    """

    id: str
    seq: int
    uid: int
    name: str
    folder: str
    needs: Needs
    submitted_s: float
    queued_s: float
    priority: int = 0
    after: tuple[str, ...] = ()
    key: str | None = None
    group: str | None = None
    claims: tuple[str, ...] = ()
    stop_s: float = 60.0
    phase: Phase = Phase.WAITING
    wish: Wish = Wish.RUN
    state: State = State.QUEUED
    why: str = ""
    placed_s: float | None = None
    ended_s: float | None = None
    launches: int = 0
    lost: int = 0
    boot_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Jobs of one user, held together after `hold_after` failures in a row (None: never)."""

    uid: int
    name: str
    hold_after: int | None = None
    failures: int = 0
    held: bool = False
