"""The memory of a crew: what is left to do, and what each worker is doing.

Owns the record. Nothing of it is stored: after a restart it is made anew from the ledger of items.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from supervisor.core.batch.growth import Growth
from supervisor.core.batch.ranges import Pending
from supervisor.core.cadence import Cadence
from supervisor.core.causes import Cause


class Isolation(StrEnum):
    """How long a worker lives: for many chunks, for one chunk, or for one item."""

    RECYCLE = "recycle"
    CHUNK = "chunk"
    ITEM = "item"


@dataclass(frozen=True, slots=True)
class Rules:
    """job.yaml's `chunks`, and its timeouts for items; None means never.

    `spare` is how many workers beyond `parallel` may be ready and wait for the end of another.
    `shrinks` says that a lack of GPU memory with several items blames none of them. `fatal` causes
    end the attempt, so that the job's own rule for them decides.
    """

    size: int = 16
    parallel: int = 1
    spare: int = 0
    batch: int | None = None
    isolation: Isolation = Isolation.RECYCLE
    items: int | None = None
    age_s: float | None = None
    host_growth_bytes: int | None = None
    gpu_growth_bytes: int | None = None
    poison_fails: bool = False
    shrinks: bool = True
    fatal: frozenset[Cause] = frozenset()
    item_s: float | None = None
    chunk_s: float | None = None

    @property
    def chunk(self) -> int:
        """How many items a worker is given at a time."""
        return 1 if self.isolation is Isolation.ITEM else self.size

    @property
    def lives_on(self) -> bool:
        """Whether a worker gets another chunk after its first."""
        return self.isolation is Isolation.RECYCLE


@dataclass(frozen=True, slots=True)
class Group:
    """Suspects that are tried together, apart from all others.

    `fresh` says that they get a worker of their own: they may have killed one.
    """

    items: tuple[int, ...]
    fresh: bool = True


@dataclass(frozen=True, slots=True)
class Worker:
    """One that lives, or is being started.

    `chunk` are the items it was given and has not finished, in order, `begun` those of the call it
    is in. It is `fresh` until it is given any. `tries` is the group of suspects that it was given.
    `silent_since` is when it last gave a sign of progress. Instants are of the runner's monotonic
    clock, in seconds.
    """

    serial: int
    slot: int
    started_at: float
    ready: bool = False
    ready_at: float = 0.0
    fresh: bool = True
    chunk: tuple[int, ...] = ()
    begun: tuple[int, ...] = ()
    tries: Group | None = None
    finished: int = 0
    failed: int = 0
    dismissed: str = ""
    ended_for: str = ""
    silent_since: float = 0.0
    item_since: float | None = None
    chunk_since: float | None = None
    chunk_finished: int = 0
    host: Growth = field(default_factory=Growth)
    gpu: Growth = field(default_factory=Growth)

    def moved_since(self, before: "Worker") -> bool:
        """Whether it finished, failed or began something since it was like this."""
        was = (before.finished, before.failed, before.begun)
        return (self.finished, self.failed, self.begun) != was


@dataclass(frozen=True, slots=True)
class Ending:
    """Why the crew does not go on: the cause and the reason, and by whose end it is known."""

    cause: Cause | None
    reason: str
    serial: int | None = None


@dataclass(frozen=True, slots=True)
class BatchState:
    """A crew between two events.

    `attempt` is the attempt it works in. `size` is how many items a worker is given at present:
    `rules.chunk`, or less since a GPU was too small. `done_here` counts what this crew finished,
    `done` what was done in all. `strikes` counts for a suspect how often it failed alone in a way
    that may not be its own. `serial` is the last worker's.
    """

    rules: Rules
    attempt: int
    total: int = 0
    done: int = 0
    done_here: int = 0
    quarantined: int = 0
    pending: Pending = field(default_factory=Pending)
    groups: tuple[Group, ...] = ()
    workers: tuple[Worker, ...] = ()
    serial: int = 0
    size: int = 1
    clean_since_oom: int = 0
    idle_ends: int = 0
    failed_first: int = 0
    strikes: tuple[tuple[int, int], ...] = ()
    ending: Ending | None = None
    cadence: Cadence = field(default_factory=Cadence)

    def worker(self, serial: int) -> Worker | None:
        """The worker of this serial, if it lives."""
        return next((one for one in self.workers if one.serial == serial), None)
