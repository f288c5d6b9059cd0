"""Accepted jobs on their way to their owners' shelves.

Owns trying until it works. What a shelf refuses for good is undone; what it only cannot do now is
tried again, for the queue has the job and its owner may have been told so. Invariant: a job that is
not on its shelf yet is held: nobody places it.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from supervisor.core.causes import State
from supervisor.daemon.contracts import Json, Refusal, ShelfUnavailable, Shelves
from supervisor.daemon.placing import Placing
from supervisor.daemon.roster import Roster
from supervisor.host.lean import structlog
from supervisor.queue.model import Entry, Phase
from supervisor.queue.store import Queue, QueueError, Submitted

AGAIN_S, LONGEST_S = 2.0, 60.0
EMPTY_S = 1.0


class Shelving:
    """Puts accepted jobs where their runners will look for them."""

    def __init__(self, queue: Queue, roster: Roster, shelves: Shelves, placing: Placing) -> None:
        self._queue = queue
        self._roster = roster
        self._shelves = shelves
        self._placing = placing
        self._later: set[asyncio.Task[None]] = set()
        self._emptying: asyncio.TimerHandle | None = None
        self._log = structlog.get_logger()

    def resume(self, left: Sequence[Submitted]) -> None:
        """Go on with what the daemon before this one had accepted."""
        by_user: defaultdict[int, list[Submitted]] = defaultdict(list)
        for one in left:
            by_user[one.entry.uid].append(one)
        for theirs in by_user.values():
            holding = ExitStack()
            holding.enter_context(self._roster.held([one.entry.id for one in theirs]))
            fresh_of = {one.entry.id: old for one in theirs if (old := self._before(one.entry))}
            self._keep_trying(theirs, fresh_of, holding, first_s=0.0)

    def _before(self, entry: Entry) -> str | None:
        """The ended job that a `--fresh` one takes over from: no other may claim its folders."""
        others = [
            other
            for claim in entry.claims
            for other in self._roster.claiming(entry.uid, claim)
            if other.seq < entry.seq and other.phase is Phase.ENDED
        ]
        return max(others, key=lambda one: one.seq).id if others else None

    async def put(self, made: Sequence[Submitted], fresh_of: Mapping[str, str]) -> None:
        """Put jobs of one user on their shelf.

        Raises:
            Refusal: the shelf does not take them, and never will. The queue has forgotten them.
        """
        if not made:
            return
        ids = [one.entry.id for one in made]
        with ExitStack() as holding:
            holding.enter_context(self._roster.held(ids))
            try:
                await self._accept(made, fresh_of)
            except ShelfUnavailable as error:
                self._log.warning("not shelved yet", jobs=len(ids), why=str(error))
                self._keep_trying(made, fresh_of, holding.pop_all(), first_s=AGAIN_S)
            except Refusal:
                await self._undo(made[0].entry.uid, ids)
                raise

    async def close(self) -> None:
        """Try no more; the next daemon does."""
        if self._emptying is not None:
            self._emptying.cancel()
        for task in self._later:
            task.cancel()
        await asyncio.gather(*self._later, return_exceptions=True)

    def _keep_trying(
        self,
        made: Sequence[Submitted],
        fresh_of: Mapping[str, str],
        holding: ExitStack,
        first_s: float,
    ) -> None:
        task = asyncio.get_running_loop().create_task(
            self._until_shelved(made, fresh_of, holding, first_s)
        )
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _until_shelved(
        self,
        made: Sequence[Submitted],
        fresh_of: Mapping[str, str],
        holding: ExitStack,
        pause_s: float,
    ) -> None:
        with holding:
            while True:
                await asyncio.sleep(pause_s)
                pause_s = min(max(AGAIN_S, 2 * pause_s), LONGEST_S)
                left = [one for one in made if self._roster.get(one.entry.id) is not None]
                try:
                    await self._accept(left, fresh_of)
                except (Refusal, QueueError) as error:
                    self._log.warning("not shelved yet", jobs=len(left), why=str(error))
                else:
                    break
        self._placing.nudge()

    async def _accept(self, made: Sequence[Submitted], fresh_of: Mapping[str, str]) -> None:
        """Ask the shelf to take them; again and again changes nothing."""
        if not made:
            return
        rows = [_row(one, fresh_of.get(one.entry.id)) for one in made]
        await self._shelves.of(made[0].entry.uid).ask("accept", {"jobs": rows})
        await self._conclude([one.entry.id for one in made])
        with suppress(QueueError):  # then they are put there once more by the next daemon
            self._queue.shelved([one.entry.id for one in made])
        if self._emptying is None:
            self._emptying = asyncio.get_running_loop().call_later(EMPTY_S, self._empty)

    def _empty(self) -> None:
        """Erase environments from the queue's log too: once, however many jobs came meanwhile."""
        self._emptying = None
        if not self._queue.empty_log():
            self._emptying = asyncio.get_running_loop().call_later(LONGEST_S, self._empty)

    async def _conclude(self, ids: Sequence[str]) -> None:
        """Have the shelf know of those that were ended on their way to it."""
        entries = [entry for job in ids if (entry := self._roster.get(job)) is not None]
        for one in entries:
            if one.phase is Phase.ENDED:
                verb = "cancel" if one.state is State.CANCELLED else "stop"
                asked = {"id": one.id, "source": one.why}
                await self._shelves.of(one.uid).ask(f"conclude_{verb}", asked)

    async def _undo(self, uid: int, ids: Sequence[str]) -> None:
        """Take back what the shelf took before it refused one of them."""
        for job in ids:
            with suppress(Refusal):  # what stays there is in no queue: nobody runs it
                await self._shelves.of(uid).ask("remove", {"id": job})
        self._roster.forget(ids)


def _row(one: Submitted, fresh_of: str | None) -> dict[str, Json]:
    surroundings: dict[str, Any] | None = json.loads(one.surroundings)
    return {
        "id": one.entry.id,
        "spec": one.spec,
        "surroundings": surroundings,
        "created_s": one.entry.submitted_s,
        "fresh_of": fresh_of,
    }
