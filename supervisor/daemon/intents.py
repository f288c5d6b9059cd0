"""What a person wants of a job that is in the queue: stop, kill, cancel, resume, retry, remove.

Owns these verbs. A wish is committed before anything is done about it, so it also holds for a
runner that is only about to start. Whose job it is was checked before.
"""

import time
from collections.abc import Sequence
from dataclasses import replace

from supervisor.core.causes import State
from supervisor.daemon.contracts import Conflict, Json, Peer, Shelves
from supervisor.daemon.dispatch import Dispatch
from supervisor.daemon.roster import Roster
from supervisor.queue.model import Entry, Phase, Wish

CANCELLED_FOR_GOOD = "{} was cancelled for good. Submit it again: supervise submit --fresh"


class Intents:
    """Carries out what people ask for."""

    def __init__(self, roster: Roster, shelves: Shelves, dispatch: Dispatch) -> None:
        self._roster = roster
        self._shelves = shelves
        self._dispatch = dispatch

    async def stop(self, peer: Peer, entry: Entry, *, kill: bool = False) -> str:
        """End its worker, gracefully or by force; it can be resumed."""
        if entry.phase is Phase.ENDED:
            return f"{entry.id} has already {_ended(entry)}"
        source = f"supervise {'kill' if kill else 'stop'} by {peer.name}"
        if entry.phase is Phase.WAITING:
            await self._ask(entry, "conclude_stop", source=source)
            await self._end(entry, State.STOPPED, source)
            return f"{entry.id} is stopped; it had not begun to run"
        if entry.wish is Wish.RUN:
            entry = replace(entry, wish=Wish.STOP)
            self._roster.change(entry, "KillAsked" if kill else "StopAsked", by=peer.name)
        await self._dispatch.ask_to_stop(entry, kill=kill)
        return f"{entry.id} is being {'killed' if kill else 'stopped'}"

    async def cancel(self, peer: Peer, entry: Entry) -> str:
        """End it for good."""
        source = f"supervise cancel by {peer.name}"
        if entry.phase is Phase.ENDED and entry.state in {State.SUCCEEDED, State.CANCELLED}:
            return f"{entry.id} has already {_ended(entry)}"
        if entry.phase is Phase.STARTED:
            entry = replace(entry, wish=Wish.CANCEL)
            self._roster.change(entry, "CancelAsked", by=peer.name)
            await self._dispatch.ask_to_stop(entry)
            return f"{entry.id} is being stopped, and is cancelled then"
        await self._ask(entry, "conclude_cancel", source=source)
        await self._end(replace(entry, wish=Wish.CANCEL), State.CANCELLED, source)
        return f"{entry.id} is cancelled"

    async def resume(self, peer: Peer, entry: Entry) -> str:
        """Let it wait for its turn again; it goes on from its newest checkpoint that verifies."""
        if entry.phase is Phase.WAITING:
            return f"{entry.id} is waiting for its turn already"
        if entry.phase is Phase.STARTED:
            if entry.wish is Wish.RUN:
                return f"{entry.id} is running already"
            raise Conflict(f"{entry.id} is stopping; resume it when it has stopped")
        if entry.state is State.CANCELLED:
            raise Conflict(CANCELLED_FOR_GOOD.format(entry.id))
        if entry.state is State.SUCCEEDED:
            raise Conflict(f"{entry.id} has succeeded. To run it anew: supervise submit --fresh")
        self._requeue(peer, entry, "Resumed")
        return f"{entry.id} waits for its turn"

    async def retry(self, peer: Peer, entry: Entry, items: Sequence[str]) -> str:
        """Resume it; with items of a batch job, those are tried again."""
        if not items:
            return await self.resume(peer, entry)
        if entry.phase is Phase.STARTED:
            raise Conflict(f"{entry.id} is running: its items can be tried again when it has ended")
        answer = await self._ask(entry, "requeue", items=list(items))
        if entry.phase is Phase.ENDED:
            self._requeue(peer, entry, "Retried")
        return f"{entry.id} waits for its turn; {answer['words']}"

    async def remove(self, entry: Entry) -> str:
        """Forget it: its journal, logs and copies. What it wrote itself stays."""
        if entry.phase is not Phase.ENDED:
            hint = f"cancel it first: supervise cancel {entry.id}"
            raise Conflict(f"{entry.id} has not ended; {hint}")
        for other in self._roster.of(Phase.WAITING):
            if entry.id in other.after:
                raise Conflict(f"{other.id} waits for {entry.id}; cancel that first")
        await self._ask(entry, "remove")
        self._roster.forget([entry.id])
        return f"{entry.id} is removed"

    def _requeue(self, peer: Peer, entry: Entry, kind: str) -> None:
        self._refuse_collision(entry)
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
        self._dispatch.nudge()

    def _refuse_collision(self, entry: Entry) -> None:
        for claim in entry.claims:
            for other in self._roster.claiming(entry.uid, claim):
                if other.id != entry.id and other.phase is not Phase.ENDED:
                    where = f"writes to the same folder, {claim}"
                    raise Conflict(f"{other.id} has not ended and {where}")

    async def _end(self, entry: Entry, state: State, why: str) -> None:
        ended = replace(
            entry, phase=Phase.ENDED, state=state, why=why, ended_s=time.time(), placed_s=None
        )
        self._roster.change(ended, "Ended", state=str(state), why=why)
        self._dispatch.settled(entry.id)

    async def _ask(self, entry: Entry, question: str, **more: Json) -> Json:
        return await self._shelves.of(entry.uid).ask(question, {"id": entry.id, **more})


def _ended(entry: Entry) -> str:
    return {State.STOPPED: "been stopped", State.CANCELLED: "been cancelled"}.get(
        entry.state, str(entry.state)
    )
