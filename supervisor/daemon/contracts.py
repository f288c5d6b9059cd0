"""What the parts of the daemon are to each other.

Owns the protocols between the daemon and what it stands on (launchers, shelves), who asks (Peer),
and in which words it refuses. Imports none of its parts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

Json = Any  # what json.loads gives


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks, as the kernel says (SO_PEERCRED), or who holds the token. `admin` may do all."""

    uid: int
    gid: int
    name: str
    admin: bool = False
    pid: int | None = None


class Refusal(Exception):
    """Something that is not done; the message says what, why and what to do. `status` is HTTP's."""

    status = 400


class NoSuchJob(Refusal):
    """No job of that name or id."""

    status = 404


class UnknownItem(Refusal):
    """No item of that name or number."""

    status = 404


class NotYours(Refusal):
    """It belongs to somebody else."""

    status = 403


class Conflict(Refusal):
    """It cannot be done to a job in this state, or beside another job."""

    status = 409


class Unacceptable(Refusal):
    """The job itself: wrong, or it could never run on this host."""

    status = 422


class ShelfUnavailable(Refusal):
    """The folder of a user's jobs cannot be used now: full disk, damage, not theirs."""

    status = 503


@dataclass(frozen=True, slots=True)
class Launch:
    """One runner to start. `shelf` is the state folder that has the job; `gpus` are preferred.

    `stop_s` is how long the job may take to stop; its supervisor, if there is one, waits longer.
    `stopped_by` says who wants the runner only to see out what is left, and to begin no attempt.
    """

    job_id: str
    uid: int
    shelf: Path
    gpus: tuple[str, ...] = ()
    stop_s: float = 60.0
    stopped_by: str = ""


class LaunchFailed(Exception):
    """The runner could not be started; the message says why."""


class Launcher(Protocol):
    """Starts runners that outlive the daemon."""

    name: str

    async def launch(self, launch: Launch) -> int:
        """Start a runner and return the pid of its process. Raises LaunchFailed."""

    def close(self) -> None:
        """Let go; no runner ends."""


class Shelf(Protocol):
    """The jobs of one user: a state folder, read and written with that user's rights.

    `ask` runs one of `desk.QUESTIONS`, here or in a process of the user's. All raise Refusal.
    """

    path: Path

    async def ask(self, question: str, arguments: Mapping[str, Json]) -> Json:
        """Answer one question; arguments and answer are JSON."""

    async def close(self) -> None:
        """End what was started for it."""


class Shelves(Protocol):
    """All shelves of this host's users."""

    def of(self, uid: int) -> Shelf:
        """The shelf of a user, made if there is none yet. Raises ShelfUnavailable."""

    def known(self) -> Sequence[int]:
        """Users who have one."""

    async def close(self) -> None:
        """Close all."""
