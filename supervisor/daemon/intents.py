"""What a person wants of a job that is in the queue: stop, kill, cancel, resume, retry, remove.

Owns these verbs, one at a time for each job. A wish is committed before anything is done about it,
so it also holds for a runner that is only about to start. Whose job it is was checked before.
Invariant: a waiting job is not placed while a verb is about it.
"""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from supervisor.core.causes import State
from supervisor.daemon.contracts import Conflict, Json, NoSuchJob, Peer, ShelfUnavailable, Shelves
from supervisor.daemon.dispatch import Dispatch
from supervisor.daemon.roster import Roster
from supervisor.queue.model import Entry, Phase, Wish

CANCELLED_FOR_GOOD = "{} was cancelled for good. Submit it again: supervise submit --fresh JOB.YAML"


class Intents:
    """Carries out what people ask for."""

    def __init__(self, roster: Roster, shelves: Shelves, dispatch: Dispatch) -> None:
        self._roster = roster
        self._shelves = shelves
        self._dispatch = dispatch

    async def stop(self, peer: Peer, job: str, *, kill: bool = False) -> str:
        """End its worker, gracefully or by force; it can be resumed."""
        async with self._turn(job) as entry:
            if entry.phase is Phase.ENDED:
                return _ended(entry)
            if entry.phase is Phase.WAITING:
                source = f"supervise stop by {peer.name}"
                with suppress(NoSuchJob):  # it is still on its way to its shelf
                    await self._ask(entry, "conclude_stop", source=source)
                self._end(entry, State.STOPPED, source)
                return f"{entry.id} is stopped; it had not begun to run"
            words = f"{entry.id} is being {'killed' if kill else 'stopped'}"
            wish = Wish.STOP if entry.wish is Wish.RUN else entry.wish
            return self._wished(peer, replace(entry, wish=wish), words, kill=kill)

    async def cancel(self, peer: Peer, job: str) -> str:
        """End it for good."""
        async with self._turn(job) as entry:
            if entry.phase is Phase.ENDED and entry.state in {State.SUCCEEDED, State.CANCELLED}:
                return _ended(entry)
            source = f"supervise cancel by {peer.name}"
            if entry.phase is Phase.STARTED:
                if peer.admin and await self._dispatch.is_lost(entry):
                    self._end(replace(entry, wish=Wish.CANCEL), State.CANCELLED, source)
                    return f"{entry.id} is cancelled; its owner's folder of jobs could not be told"
                words = f"{entry.id} is being stopped, and is cancelled then"
                return self._wished(peer, replace(entry, wish=Wish.CANCEL), words)
            with suppress(NoSuchJob):  # nothing is left that could go on
                await self._ask(entry, "conclude_cancel", source=source)
            self._end(replace(entry, wish=Wish.CANCEL), State.CANCELLED, source)
            return f"{entry.id} is cancelled"

    async def resume(self, peer: Peer, job: str) -> str:
        """Let it wait for its turn again; it goes on from its newest checkpoint that verifies."""
        async with self._turn(job) as entry:
            return self._resume(peer, entry)

    async def retry(self, peer: Peer, job: str, items: Sequence[str]) -> str:
        """Resume it; with items of a batch job, those are tried again."""
        async with self._turn(job) as entry:
            if not items:
                return self._resume(peer, entry)
            if entry.phase is Phase.STARTED:
                raise Conflict(
                    f"{entry.id} is running: its items can be tried again when it has ended"
                )
            answer = await self._ask(entry, "requeue", items=list(items))
            self._roster.touch()
            if entry.phase is Phase.ENDED:
                self._requeue(peer, entry, "Retried")
            return f"{entry.id} waits for its turn; {answer['words']}"

    async def remove(self, peer: Peer, job: str) -> str:
        """Forget it: its journal, logs and copies. What it wrote itself stays."""
        async with self._turn(job) as entry:
            if entry.phase is not Phase.ENDED:
                hint = f"cancel it first: supervise cancel {entry.id}"
                raise Conflict(f"{entry.id} has not ended; {hint}")
            for other in self._roster.of(Phase.WAITING):
                if entry.id in other.after:
                    raise Conflict(f"{other.id} waits for {entry.id}; cancel that first")
            words = f"{entry.id} is removed"
            try:
                with suppress(NoSuchJob):  # a daemon died between the two
                    await self._ask(entry, "remove")
            except ShelfUnavailable as error:
                if not peer.admin or peer.uid == entry.uid:
                    raise
                words = (
                    f"{entry.id} is removed from the queue; what its owner has of it stays: {error}"
                )
            self._roster.forget([entry.id])
            return words

    @asynccontextmanager
    async def _turn(self, job: str) -> AsyncIterator[Entry]:
        """The job as it stands, in our hands alone. Raises NoSuchJob where it is gone."""
        try:
            async with self._roster.turn(job):
                entry = self._roster.get(job)
                if entry is None:
                    raise NoSuchJob(f"{job} was removed meanwhile")
                yield entry
        finally:
            self._dispatch.placing.nudge()

    def _wished(self, peer: Peer, entry: Entry, words: str, *, kill: bool = False) -> str:
        """Note the wish about a started job, and tell its runner.

        A disk that is full is no reason to let the job go on: perhaps it is what fills it.
        """
        kind = "KillAsked" if kill else f"{entry.wish.title()}Asked"
        try:
            self._roster.change(entry, kind, by=peer.name)
        except ShelfUnavailable as error:
            words = f"{words}, but that could not be noted: {error}"
        self._dispatch.signals.tell(entry, kill=kill)
        return words

    def _resume(self, peer: Peer, entry: Entry) -> str:
        if entry.phase is Phase.WAITING:
            return f"{entry.id} is waiting for its turn already"
        if entry.phase is Phase.STARTED:
            if entry.wish is Wish.RUN:
                return f"{entry.id} is running already"
            raise Conflict(f"{entry.id} is stopping; resume it when it has stopped")
        if entry.state is State.CANCELLED:
            raise Conflict(CANCELLED_FOR_GOOD.format(entry.id))
        if entry.state is State.SUCCEEDED:
            raise Conflict(
                f"{entry.id} has succeeded. To run it anew: supervise submit --fresh JOB.YAML"
            )
        self._requeue(peer, entry, "Resumed")
        return f"{entry.id} waits for its turn"

    def _requeue(self, peer: Peer, entry: Entry, kind: str) -> None:
        for claim in entry.claims:
            for other in self._roster.claiming(entry.uid, claim):
                if other.id != entry.id and other.phase is not Phase.ENDED:
                    where = f"writes to the same folder, {claim}"
                    raise Conflict(f"{other.id} has not ended and {where}")
        waiting = replace(
            entry,
            phase=Phase.WAITING,
            wish=Wish.RUN,
            queued_s=time.time(),
            placed_s=None,
            ended_s=None,
            lost=0,
            why="",
        )
        self._roster.change(waiting, kind, by=peer.name)

    def _end(self, entry: Entry, state: State, why: str) -> None:
        """End a job that has no runner."""
        ended = replace(
            entry, phase=Phase.ENDED, state=state, why=why, ended_s=time.time(), placed_s=None
        )
        self._roster.change(ended, "Ended", state=str(state), why=why)
        self._dispatch.settled(entry.id)

    async def _ask(self, entry: Entry, question: str, **more: Json) -> Json:
        return await self._shelves.of(entry.uid).ask(question, {"id": entry.id, **more})


def _ended(entry: Entry) -> str:
    """That it has ended, in words."""
    if entry.state is State.HOLDING:
        return f"{entry.id} is holding: it needs a person, see supervise explain {entry.id}"
    passive = {State.STOPPED: "been stopped", State.CANCELLED: "been cancelled"}
    return f"{entry.id} has already {passive.get(entry.state, entry.state)}"
