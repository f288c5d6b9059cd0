"""What happened: the facts that the journal keeps and `machine.step` is fed with.

Owns the vocabulary of the past tense. Every field is plain data (numbers, text, tuples), so that an
event survives JSON. Instants never appear here but as wall-clock time for people (`at_s`).
"""

from dataclasses import dataclass, field
from typing import ClassVar

from supervisor.core.causes import Action, Cause
from supervisor.core.evidence import Breach, DeadlineName, Evidence
from supervisor.core.gpu import GpuTrouble


@dataclass(frozen=True, slots=True)
class Event:
    """One fact. `durable` ones are journaled before their effects are carried out."""

    durable: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class RunnerStarted(Event):
    """A runner took the job over: the first one, or the next after a stop, an end or a crash."""

    pid: int
    start_ticks: int
    boot_id: str
    rebooted: bool = False


@dataclass(frozen=True, slots=True)
class SpecChanged(Event):
    """A person continued the job under a changed job.yaml."""

    differences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RejectedCheckpoint:
    """One that did not verify, and where it stands now."""

    path: str
    step: int | None
    reason: str
    set_aside_to: str | None = None


@dataclass(frozen=True, slots=True)
class CheckpointVerified(Event):
    """A checkpoint's bytes were checked; `pinned` says that a copy of it is safe with us.

    `tier` is where it lies: "disk", or "memory", which a reboot takes away.
    """

    step: int
    path: str
    kind: str
    level: str
    size_bytes: int
    written_at_s: float
    pinned: bool
    tier: str = "disk"


@dataclass(frozen=True, slots=True)
class CheckpointChosen(Event):
    """What the next attempt starts from: a checkpoint, or the beginning (`path` is None).

    `candidates` counts what was looked at on disk, so that "none" and "none that verifies" differ.
    """

    path: str | None
    step: int | None
    candidates: int = 0
    restored: bool = False
    rejected: tuple[RejectedCheckpoint, ...] = ()
    written_at_s: float | None = None
    tier: str = "disk"


@dataclass(frozen=True, slots=True)
class HoldRequired(Event):
    """The next attempt must not start until a person has looked."""

    cause: Cause
    reason: str


@dataclass(frozen=True, slots=True)
class RefusedGpu:
    """One that the next attempt does not get, and why, for people."""

    uuid: str
    reason: str


@dataclass(frozen=True, slots=True)
class GpusLeased(Event):
    """The GPUs of the next attempt are ours. `waited_s` is how long that took."""

    gpus: tuple[str, ...]
    refused: tuple[RefusedGpu, ...] = ()
    waited_s: float = 0.0


@dataclass(frozen=True, slots=True)
class GpusAwaited(Event):
    """There are not enough free GPUs; the job waits for them."""

    reason: str
    refused: tuple[RefusedGpu, ...] = ()


@dataclass(frozen=True, slots=True)
class GpusSetAside(Event):
    """Nobody gets these GPUs any more, until a person releases them or the host is restarted."""

    gpus: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SpaceReturned(Event):
    """The disk that was full has room again."""


@dataclass(frozen=True, slots=True)
class AttemptSpawned(Event):
    """The worker's main process exists."""

    number: int
    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True)
class ProgressBegan(Event):
    """The first sign of progress of an attempt."""

    number: int


@dataclass(frozen=True, slots=True)
class SignSeen(Event):
    """One more sign of progress. Too frequent to keep: replay needs none of them."""

    durable: ClassVar[bool] = False
    step: int | None = None


@dataclass(frozen=True, slots=True)
class DeadlinePassed(Event):
    """A deadline fired; `timeout_s` is the duration it stood for, `seen` what the worker did."""

    name: DeadlineName
    timeout_s: float
    seen: str = ""


@dataclass(frozen=True, slots=True)
class DeadlineDeferred(Event):
    """A deadline passed, but the worker is not hung: it is looked at again later.

    Not kept: it is about instants, and a new runner starts those anew. `reason` is for people, and
    empty where nothing is known of the worker yet.
    """

    durable: ClassVar[bool] = False
    name: DeadlineName
    extra_s: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PhaseBegan(Event):
    """The worker said that it will show no progress for a while, for at most `limit_s`.

    Not kept, for the same reason. A longer limit replaces a shorter one.
    """

    durable: ClassVar[bool] = False
    number: int
    name: str
    limit_s: float


@dataclass(frozen=True, slots=True)
class PhaseEnded(Event):
    """What it said that of is over: progress is expected again."""

    durable: ClassVar[bool] = False
    number: int


@dataclass(frozen=True, slots=True)
class WorkerRevived(Event):
    """A sign of progress came while the evidence of a hang was taken: it is not killed."""

    number: int


@dataclass(frozen=True, slots=True)
class LimitExceeded(Event):
    """The worker went beyond one of its limits."""

    number: int
    breach: Breach


@dataclass(frozen=True, slots=True)
class GpuTroubleSeen(Event):
    """Something went wrong with a GPU that the attempt holds."""

    number: int
    trouble: GpuTrouble


@dataclass(frozen=True, slots=True)
class StopRequested(Event):
    """Somebody asked the job to stop; `forced` by asking twice."""

    source: str
    forced: bool = False


@dataclass(frozen=True, slots=True)
class JobCancelled(Event):
    """Its owner ended the job for good; `source` says who or what asked (`supervise cancel`)."""

    source: str


@dataclass(frozen=True, slots=True)
class WorkerExited(Event):
    """The main process ended by itself or by us."""

    number: int
    exit_code: int | None
    signal: int | None


@dataclass(frozen=True, slots=True)
class AttemptEnded(Event):
    """Evidence, cause and decision of one attempt, concluded once and never computed again."""

    number: int
    cause: Cause
    reason: str
    action: Action
    decision_reason: str
    delay_s: float
    counted: bool
    ran_s: float
    at_s: float
    evidence: Evidence = field(default_factory=Evidence)


@dataclass(frozen=True, slots=True)
class BackoffElapsed(Event):
    """The wait before the next attempt is over."""
