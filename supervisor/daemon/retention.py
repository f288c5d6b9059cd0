"""Old jobs are removed: by age, and until what is kept of them fits.

Owns when, and of whom; which jobs those are is `runner.remove`'s to say, and only ended ones ever
are. Nothing is removed unless the daemon was told how long to keep.
"""

import asyncio
from dataclasses import dataclass

from supervisor.daemon.contracts import Refusal, Shelf, Shelves
from supervisor.daemon.roster import Roster
from supervisor.host.lean import structlog
from supervisor.queue.model import Phase

EVERY_S = 3600.0


@dataclass(frozen=True, slots=True)
class Keep:
    """How long jobs are kept after their end, and how many bytes of each user's. None: for ever."""

    age_s: float | None = None
    size_bytes: int | None = None


FOR_EVER = Keep()


class Retention:
    """Removes what is old, every hour."""

    def __init__(self, roster: Roster, shelves: Shelves, keep: Keep) -> None:
        self._roster = roster
        self._shelves = shelves
        self._keep = keep
        self._log = structlog.get_logger()

    async def run(self) -> None:
        """Look until cancelled."""
        while self._keep != FOR_EVER:
            for uid in self._shelves.known():
                await self._tidy(uid)
            await asyncio.sleep(EVERY_S)

    async def _tidy(self, uid: int) -> None:
        wanted = {"older_than_s": self._keep.age_s, "keep_bytes": self._keep.size_bytes}
        try:
            shelf = self._shelves.of(uid)
            for job in (await shelf.ask("old", wanted))["ids"]:
                async with self._roster.turn(job):
                    if self._may_go(job, uid):
                        await self._remove(shelf, job)
        except Refusal as error:
            self._log.warning("not tidied", uid=uid, why=str(error))

    async def _remove(self, shelf: Shelf, job: str) -> None:
        await shelf.ask("remove", {"id": job})
        if self._roster.get(job) is not None:
            self._roster.forget([job])
        self._log.info("removed", job=job, why="old")

    def _may_go(self, job: str, uid: int) -> bool:
        # A shelf is its user's: what it says is about their own jobs, or it is a lie.
        entry = self._roster.get(job)
        ended = entry is None or (entry.uid == uid and entry.phase is Phase.ENDED)
        return ended and not any(job in one.after for one in self._roster.of(Phase.WAITING))
