"""The memory tier of a job: snapshots in a tmpfs, which survive every process but not the host.

Owns the folder `/dev/shm/supervise-UID/DIGITS-JOB`, how much it may hold, and the way of its newest
snapshot to the disk. /dev/shm is everybody's: what does not belong to this user alone, or to this
very job of this very state folder (containers may share /dev/shm and have equal paths), is neither
read nor written. Invariant: that the folder is gone, at any moment, is never an error.

A bad snapshot is removed and the reason told, where one on disk would be set aside: memory is
scarce, and nothing is lost that the disk tier would have kept.
"""

import hashlib
import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from supervisor.checkpoint import (
    Chosen,
    Fingerprint,
    Found,
    Kind,
    Layout,
    Outcome,
    Rejected,
    Verdict,
    find,
    promote,
    verify,
)
from supervisor.checkpoint.names import REMOVED_SUFFIX, hidden
from supervisor.core.causes import State
from supervisor.host.tmpfs import available_bytes, free_bytes, is_tmpfs, whole_bytes
from supervisor.runner import shared_memory
from supervisor.runner.home import JobFolder
from supervisor.runner.shared_memory import (
    OWNER,
    base,
    delete,
    is_leftover,
    objection,
    owner_of,
    said_owner,
)
from workers import protocol

if TYPE_CHECKING:
    from supervisor.runner.opening import OpenJob

_DIGITS: Final = 12
LEAST_BYTES: Final = 256 << 20  # of the tmpfs: a container has 64 MiB unless it is told otherwise
_PRIVATE: Final = 0o700
# The clock of a tmpfs ticks every few milliseconds; a write later than that shows in the times.
_TICKS_NS: Final = 20_000_000
# A state folder may be out of sight for a while: not mounted, or another container's.
_OUT_OF_SIGHT_S: Final = 86_400.0


class TierUnusable(OSError):
    """There can be no snapshots in memory; the message says why."""


@dataclass(slots=True)
class MemoryTier:
    """One job's. `memory_bytes` is the host memory that the job may use, if that is bounded."""

    folder: Path
    owner: str
    memory_bytes: int | None = None
    _judged: dict[Path, tuple[Fingerprint, Verdict]] = field(default_factory=dict)

    @classmethod
    def of(cls, job: "OpenJob") -> "MemoryTier | None":
        """The memory tier of a job that wants one, whether it exists or not."""
        settings = job.settings
        # A script that finds its own latest checkpoint would not find one in memory.
        if not settings.snapshots or settings.layout is None or settings.in_place:
            return None
        return cls.at(job.state_dir, job.id, settings.resources.memory_bytes)

    @classmethod
    def at(cls, state_dir: Path, job_id: str, memory_bytes: int | None = None) -> "MemoryTier":
        """The memory tier of that job of this state folder."""
        owner = owner_of(state_dir, job_id)
        digits = hashlib.sha256(owner.encode()).hexdigest()[:_DIGITS]
        return cls(base() / f"{digits}-{job_id}", owner, memory_bytes)

    @property
    def layout(self) -> Layout:
        """How the snapshots lie."""
        return Layout(self.folder, "step-*", require=("manifest.json",))

    def environment(self) -> dict[str, str]:
        """What tells a worker of the tier, which is made if need be.

        Raises:
            OSError: there can be no snapshots in memory; why, and what to do.
        """
        self._make()
        return {
            protocol.ENV_MEMORY_TIER: str(self.folder),
            protocol.ENV_MEMORY_BUDGET: str(self.budget_bytes()),
        }

    def budget_bytes(self) -> int:
        """What the tier may hold in all, counting what lies in it now.

        Raises:
            OSError: the folder is gone.
        """
        own = sum(found.fingerprint.size_bytes for found in find(self.layout).found)
        most = [(free_bytes(self.folder) + own) // 2, (available_bytes() + own) // 4]
        return min(most if self.memory_bytes is None else [*most, self.memory_bytes // 4])

    def newest(self) -> Chosen | None:
        """The newest snapshot that verifies. Call it while no worker lives; so of what follows."""
        return self._search(None)[0]

    def choose(self, below: int | None) -> tuple[Chosen | None, tuple[Rejected, ...]]:
        """The newest that verifies, and what was passed over; bad ones are removed.

        So are those from step `below` on, which a sick run left.
        """
        chosen, passed = self._search(below)
        return chosen, tuple(
            Rejected(
                found.path,
                found.step,
                f"{reason}; {_removed(found.path)}" if is_bad else reason,
            )
            for found, reason, is_bad in passed
        )

    def promote(self, disk: Layout) -> Path | None:
        """Copy the newest that verifies to the disk, if none there is as new; where it is then.

        Raises:
            OSError: there is no room, or reading or writing failed; all is as it was.
        """
        chosen = self.newest()
        return None if chosen is None else promote(chosen.found, disk)

    def clean(self) -> None:
        """Remove the tier, if it is ours.

        Raises:
            OSError: it could not be removed.
        """
        if self._is_ours():
            delete(self.folder)

    def _make(self) -> None:
        if not is_tmpfs(shared_memory.ROOT):
            raise TierUnusable(f"{shared_memory.ROOT} is no tmpfs here")
        whole = whole_bytes(shared_memory.ROOT)
        if whole < LEAST_BYTES:
            size = f"{shared_memory.ROOT} has {whole >> 20} MiB, which data loaders need"
            raise TierUnusable(f"{size} (a container's is made larger by --shm-size)")
        for folder in (self.folder.parent, self.folder):
            with suppress(FileExistsError):
                folder.mkdir(mode=_PRIVATE)
            why = objection(folder)
            if why is not None:
                raise TierUnusable(f"{folder} {why}; nothing is kept there. Have it removed")
        said = said_owner(self.folder)
        if said is None:
            (self.folder / OWNER).write_text(self.owner, encoding="utf-8")
        elif said != self.owner:
            raise TierUnusable(f"{self.folder} belongs to another job: {said[:200]}")
        for entry in os.scandir(self.folder):
            if is_leftover(entry.name):
                delete(Path(entry.path))

    def _is_ours(self) -> bool:
        private = objection(self.folder.parent) is None and objection(self.folder) is None
        return private and said_owner(self.folder) == self.owner

    def _search(
        self, below: int | None
    ) -> tuple[Chosen | None, tuple[tuple[Found, str, bool], ...]]:
        """The newest good one, and for each before it the reason and whether it is to go."""
        passed = []
        for found in find(self.layout).found if self._is_ours() else ():
            if below is not None and found.step >= below:
                passed.append((found, "the policy resumes from an earlier checkpoint", True))
                continue
            verdict = self._verdict(found)
            if verdict.ok:
                return Chosen(found, verdict), tuple(passed)
            if os.path.lexists(found.path):  # else it vanished meanwhile
                passed.append((found, verdict.reason, verdict.outcome is Outcome.BAD))
        return None, tuple(passed)

    def _verdict(self, found: Found) -> Verdict:
        """Judge it; once, for the look after an attempt and the choice for the next."""
        known = self._judged.get(found.path)
        if known is not None and known[0] == found.fingerprint:
            return known[1]
        seen = found.fingerprint
        at_rest = time.time_ns() - max(seen.mtime_ns, seen.ctime_ns) > _TICKS_NS
        verdict = verify(found, self.layout, expect=Kind.PUBLISHED, worker_lives=False)
        if at_rest:
            self._judged = {found.path: (seen, verdict)}
        return verdict


def sweep(job: "OpenJob | None" = None) -> None:
    """Remove the tiers of jobs that are no more; of `job`'s state folder also the finished ones'.

    Raises:
        OSError: one could not be removed.
    """
    if objection(base()) is not None:
        return
    for entry in os.scandir(base()):
        folder = Path(entry.path)
        if objection(folder) is None and _is_abandoned(folder, job):
            delete(folder)


def _is_abandoned(folder: Path, job: "OpenJob | None") -> bool:
    said = said_owner(folder)
    try:
        fields = json.loads(said or "")
        state_dir, job_id = Path(fields["state_dir"]), str(fields["job"])
        in_sight = owner_of(state_dir, job_id) == said
        if in_sight and not JobFolder.of(state_dir, job_id).path.exists():
            return True
        known = job.journal.job(job_id) if job and _is_same(state_dir, job.state_dir) else None
    except (ValueError, KeyError, TypeError, OSError):
        in_sight, known = False, None
    if in_sight:
        return known is not None and known.state == State.SUCCEEDED
    try:
        return time.time() - folder.stat().st_mtime > _OUT_OF_SIGHT_S
    except OSError:  # another runner was quicker
        return False


def _is_same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _removed(path: Path) -> str:
    """Remove a snapshot; what became of it, in words."""
    gone = path.with_name(hidden(path.name, REMOVED_SUFFIX))
    try:
        path.rename(gone)
        delete(gone)
    except FileNotFoundError:
        return "it is gone"
    except OSError as error:
        return f"it cannot be removed ({error.strerror})"
    return "the snapshot was removed from memory"
