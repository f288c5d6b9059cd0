"""What is known of how an attempt ended, gathered before anything is concluded from it.

Owns the record only. It is stored with the attempt, so `explain` shows what the policy saw.
"""

from dataclasses import dataclass
from enum import StrEnum

from supervisor.core.gpu import GpuTrouble
from supervisor.core.signatures import RootError


class DeadlineName(StrEnum):
    """The four deadlines of a job, as job.yaml's `timeouts` names them."""

    STARTUP = "startup"
    HEARTBEAT = "heartbeat"
    STOP = "stop"
    TOTAL = "total"


@dataclass(frozen=True, slots=True)
class SpawnError:
    """Why no worker came to be: the launcher's stage and the kernel's error number."""

    stage: str
    errno: int
    message: str
    permanent: bool = True


class Limit(StrEnum):
    """The limits of `resources` that the runner itself watches."""

    MEMORY = "memory"
    GPU_MEMORY = "gpu_memory"
    GPU_MEMORY_SOFT = "gpu_memory_soft"

    @property
    def asks(self) -> bool:
        """Whether a worker beyond it is asked to leave; beyond the others it is killed."""
        return self is Limit.GPU_MEMORY_SOFT


@dataclass(frozen=True, slots=True)
class Breach:
    """A limit that the worker went beyond. `where` is the GPU it was on, if it was one."""

    limit: Limit
    used_bytes: int
    limit_bytes: int
    where: str = ""


@dataclass(frozen=True, slots=True)
class Oom:
    """What the kernel killed of this very worker for memory.

    `of_limit` says that the worker's own limit was reached, not the end of the host's memory.
    `source` tells how that is known, in words.
    """

    kills: int
    of_limit: bool
    source: str
    limit_bytes: int | None = None
    peak_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """What the worker itself said that it died of, over its session.

    `kind` is a word of the protocol's FAILURE_KINDS; `details` are facts for people, each a name
    and its value as text. `rank` is the process that said it.
    """

    kind: str
    type_name: str
    message: str
    step: int | None = None
    rank: int = 0
    details: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class GpuUse:
    """One moment of a worker on its GPUs: seconds since it was spawned, and bytes in all."""

    after_s: float
    used_bytes: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """The facts of one ended attempt. Steps are the job's own; None means unknown.

    `done` is None where job.yaml does not say what done is. `oom` is what the kernel killed of this
    worker; `oom_kills` counts what it killed on the whole host meanwhile, and is known only where
    nobody can say whom. `hang` is what was seen of a worker before it was called hung, `no_room`
    which of the job's disks was full when it ended, `report` its own word about its end. `gpus` are
    those it held; `gpu_curve` is the memory it used there. Of a batch job: `items_done` by the
    attempt, `items_quarantined` in all, and `nothing_works`, why no item is worth another try.
    """

    exit_code: int | None = None
    signal: int | None = None
    spawn_error: SpawnError | None = None
    runner_lost: bool = False
    host_rebooted: bool = False
    stop_requested: bool = False
    deadline: DeadlineName | None = None
    deadline_s: float | None = None
    survivors: tuple[int, ...] = ()
    oom_kills: int = 0
    oom: Oom | None = None
    breach: Breach | None = None
    hang: str = ""
    no_room: str = ""
    gpus: tuple[str, ...] = ()
    gpu_troubles: tuple[GpuTrouble, ...] = ()
    gpu_curve: tuple[GpuUse, ...] = ()
    done: bool | None = None
    done_detail: str = ""
    report: ErrorReport | None = None
    root_error: RootError | None = None
    error_line: str | None = None
    step: int | None = None
    resumed_step: int | None = None
    checkpoint_step: int | None = None
    progressed: bool = False
    items_done: int = 0
    items_quarantined: int = 0
    nothing_works: str = ""

    @property
    def at_start(self) -> bool:
        """Whether it reported no step beyond where it began, or none at all."""
        return self.step == self.resumed_step
