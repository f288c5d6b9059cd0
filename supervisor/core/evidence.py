"""What is known of how an attempt ended, gathered before anything is concluded from it.

Owns the record only. It is stored with the attempt, so `explain` shows what the policy saw.
"""

from dataclasses import dataclass
from enum import StrEnum

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


@dataclass(frozen=True, slots=True)
class Evidence:
    """The facts of one ended attempt. Steps are the job's own; None means unknown.

    `done` is None where job.yaml does not say what done is. `oom_kills` counts what the kernel
    killed for memory on this host while the attempt ran.
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
    done: bool | None = None
    done_detail: str = ""
    root_error: RootError | None = None
    error_line: str | None = None
    step: int | None = None
    resumed_step: int | None = None
    checkpoint_step: int | None = None
    progressed: bool = False

    @property
    def at_start(self) -> bool:
        """Whether it reported no step beyond where it began, or none at all."""
        return self.step == self.resumed_step
