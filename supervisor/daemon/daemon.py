"""The daemon: the parts joined, and the one door through which everybody asks.

Owns who may do what, and the order in which parts begin and end. It has no thread and no lock of
its own: all of it runs in one event loop, whose lateness is measured. What it promised is in the
queue before it says so.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from supervisor import __version__
from supervisor.daemon import lookup
from supervisor.daemon.contracts import (
    Conflict,
    Json,
    Launcher,
    NoSuchJob,
    Peer,
    Refusal,
    Shelves,
)
from supervisor.daemon.dispatch import Dispatch, Ground
from supervisor.daemon.gpus import GpuDesk
from supervisor.daemon.intake import Intake
from supervisor.daemon.intents import Intents
from supervisor.daemon.lag import LoopLag
from supervisor.daemon.retention import FOR_EVER, Keep, Retention
from supervisor.daemon.roster import Roster
from supervisor.daemon.shared import Shared
from supervisor.daemon.shelving import Shelving
from supervisor.queue.model import Entry, Phase
from supervisor.queue.plan import Capacity
from supervisor.queue.store import Queue
from supervisor.runner.exits import exit_code

# Questions that show what a job printed or was given: its owner's, and admins'. The end of its
# output is part of the evidence.
PRIVATE = frozenset({"log", "record", "events", "explain"})
DOCUMENTS = frozenset({"document", "explain", "report"})
LONGEST_WAIT_S = 300.0
START_S = 5.0  # so long the start waits for users' shelves
LEFT_S = 30.0  # for a runner to conclude what its worker left


@dataclass(frozen=True, slots=True)
class Parts:
    """What a daemon is made of. `system`: it serves all users of the host."""

    state_dir: Path
    queue: Queue
    shelves: Shelves
    launcher: Launcher
    gpus: GpuDesk
    capacity: Capacity
    system: bool = False
    keep: Keep = FOR_EVER


class Daemon:
    """A host's jobs. Every method raises Refusal where it does not do what is asked."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.started_s = time.time()
        self.lag = LoopLag()
        self.roster = Roster(parts.queue)
        ground = Ground(self.roster, parts.shelves, parts.launcher, parts.gpus, parts.capacity)
        self.dispatch = Dispatch(ground)
        placing = self.dispatch.placing
        self._shelving = Shelving(parts.queue, self.roster, parts.shelves, placing)
        self.intake = Intake(parts.queue, ground, self._shelving)
        self.intents = Intents(self.roster, parts.shelves, self.dispatch)
        self._retention = Retention(self.roster, parts.shelves, parts.keep)
        self._shared = Shared()
        self._beside: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Finish what the daemon before this one had promised, find its runners, begin to place.

        All users' shelves at once, and no longer than START_S: what takes more goes on beside.
        """
        self.lag.start()
        self._shelving.resume(self.parts.queue.unshelved())
        finding = asyncio.create_task(self.dispatch.adopt())
        sweeping = asyncio.create_task(self._sweep())
        await asyncio.wait({finding, sweeping}, timeout=START_S)
        self._beside = [finding, sweeping]
        self._beside += map(
            asyncio.create_task, (self.dispatch.placing.run(), self._retention.run())
        )

    async def _sweep(self) -> None:
        """Finish the removals that were broken off."""
        for uid in self.parts.shelves.known():
            with suppress(Refusal):  # it is done when the job's name is used again
                await self.parts.shelves.of(uid).ask("sweep", {})

    async def close(self) -> None:
        """Let go of everything; runners go on."""
        self.lag.stop()
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        await self._shelving.close()
        await self.dispatch.close()
        await self.parts.gpus.close()
        await self.parts.shelves.close()
        self.parts.launcher.close()
        self.parts.queue.close()

    def leave(self) -> None:
        """Place nobody any more; who is stopped from now on goes on with the next daemon."""
        self.dispatch.placing.leaving = True

    async def park(self) -> None:
        """Ask all running jobs to stop; they are resumed when a daemon is back."""
        self.leave()
        started = self.roster.of(Phase.STARTED)
        for entry in started:
            self.dispatch.signals.tell(entry)
        longest_s = max((entry.stop_s for entry in started), default=0.0)
        away = self.dispatch.resting | self.dispatch.silent
        last = [one for one in started if one.id not in away]
        ends = [self.dispatch.until_ended(one.id, longest_s + LEFT_S) for one in last]
        await asyncio.gather(*ends)

    async def submit(
        self, peer: Peer, jobs: Sequence[Mapping[str, Json]], surroundings: Mapping[str, Json]
    ) -> dict[str, Json]:
        """Accept jobs: all of them, or none."""
        answer = await self.intake.submit(peer, jobs, surroundings)
        self.dispatch.placing.nudge()
        return answer

    async def jobs(self, peer: Peer, /, **wanted: Json) -> list[dict[str, Json]]:
        """The jobs of all users, oldest first: their documents, with what the queue knows.

        `wanted`: state, user (name or uid), group, after_seq, limit; each may be left out. A limit
        alone gives the newest, behind `after_seq` the next ones.
        """
        turns = self.dispatch.placing.turns
        key = ("jobs", self.roster.changes, turns, *sorted(wanted.items()))
        rows: list[dict[str, Json]] = await self._shared.get(key, lambda: self._jobs(wanted))
        return [lookup.as_told(peer, one) for one in rows]

    async def _jobs(self, wanted: Mapping[str, Json]) -> list[dict[str, Json]]:
        chosen = [one for one in self.roster.all() if lookup.is_wanted(one, wanted)]
        limit = wanted.get("limit") or len(chosen)
        # Who pages goes forward; who only wants few wants the newest.
        chosen = chosen[:limit] if wanted.get("after_seq") else chosen[-limit:]
        documents = await lookup.documents(self.parts.shelves, chosen)
        places = {one: place for place, one in enumerate(self.dispatch.placing.waits, start=1)}
        return [documents[one.id] | self._fields(one, places.get(one.id)) for one in chosen]

    async def ask(
        self, peer: Peer, job: str, question: str, arguments: Mapping[str, Json] | None = None
    ) -> Json:
        """What a job's shelf knows of it."""
        entry = self._find(peer, job)
        if question in PRIVATE:
            lookup.refuse_others(peer, entry, "see what it prints")
        shelf = self.parts.shelves.of(entry.uid)
        if question in DOCUMENTS and not arguments:
            answer: dict[str, Json] = await self._shared.get(
                (entry, question), lambda: shelf.ask(question, {"id": entry.id})
            )
            told = lookup.as_told(peer, answer | self._fields(entry))
            return told if question == "document" else {name: told[name] for name in answer}
        whose = {"ids": [entry.id]} if question == "progress" else {"id": entry.id}
        return await shelf.ask(question, {**(arguments or {}), **whose})

    async def stop(self, peer: Peer, job: str, *, kill: bool = False) -> dict[str, Json]:
        """Ask it to stop, or end it by force."""
        entry = self._own(peer, job, "stop it")
        return self._told(entry, await self.intents.stop(peer, entry.id, kill=kill))

    async def cancel(self, peer: Peer, job: str) -> dict[str, Json]:
        """End it for good."""
        entry = self._own(peer, job, "cancel it")
        return self._told(entry, await self.intents.cancel(peer, entry.id))

    async def resume(self, peer: Peer, job: str) -> dict[str, Json]:
        """Let it wait for its turn again."""
        entry = self._own(peer, job, "resume it")
        return self._told(entry, await self.intents.resume(peer, entry.id))

    async def retry(
        self, peer: Peer, job: str, items: Sequence[str | int] | str | None = None
    ) -> dict[str, Json]:
        """The same, with items of a batch job that were set aside."""
        entry = self._own(peer, job, "try it again")
        named = [items] if isinstance(items, str) else [str(one) for one in items or ()]
        return self._told(entry, await self.intents.retry(peer, entry.id, named))

    async def remove(self, peer: Peer, job: str) -> dict[str, Json]:
        """Forget an ended job."""
        entry = self._own(peer, job, "remove it")
        return self._told(entry, await self.intents.remove(peer, entry.id))

    async def wait(self, peer: Peer, job: str, timeout_s: float) -> dict[str, Json]:
        """Wait until a job has ended; at most `timeout_s`."""
        entry = self._find(peer, job)
        ended = await self.dispatch.until_ended(entry.id, min(timeout_s, LONGEST_WAIT_S))
        entry = self.roster.get(entry.id) or entry
        ended = ended and entry.phase is Phase.ENDED
        code = int(exit_code(entry.state, forced=False)) if ended else None
        return {
            "id": entry.id,
            "state": str(lookup.state_of(entry)),
            "exit_code": code,
            "ended": ended,
        }

    async def groups(self, peer: Peer) -> list[dict[str, Json]]:
        """The groups of the one who asks; an admin sees all."""
        seen = [one for one in self.roster.groups() if peer.admin or one.uid == peer.uid]
        return [
            {
                "name": one.name,
                "uid": one.uid,
                "hold_after": one.hold_after,
                "failures": one.failures,
                "held": one.held,
            }
            for one in seen
        ]

    async def release_group(self, peer: Peer, name: str) -> dict[str, Json]:
        """Let a held group start jobs again."""
        group = next(
            (one for one in self.roster.groups() if (one.uid, one.name) == (peer.uid, name)), None
        )
        if group is None:
            raise NoSuchJob(f"no group of yours is called {name}")
        self.roster.change_group(
            replace(group, held=False, failures=0), "GroupReleased", by=peer.name
        )
        self.dispatch.placing.nudge()
        return {"name": name, "held": False, "words": f"{name} may start jobs again"}

    async def gpus(self, _peer: Peer, /) -> list[dict[str, Json]]:
        """The GPUs of the host, and who has them."""
        return await self.parts.gpus.documents()

    async def release_gpu(self, _peer: Peer, uuid: str, /) -> dict[str, Json]:
        """Let a GPU that was set aside be used again."""
        if not await self.parts.gpus.release(uuid):
            raise Conflict(f"{uuid} is not set aside")
        self.dispatch.placing.nudge()
        return {"uuid": uuid, "words": f"{uuid} may be used again"}

    async def status(self) -> dict[str, Json]:
        """The daemon itself."""
        return {
            "version": __version__,
            "api": 1,
            "pid": os.getpid(),
            "state_dir": str(self.parts.state_dir),
            "system": self.parts.system,
            "started_s": self.started_s,
            "launcher": self.parts.launcher.name,
            "jobs": {phase.value: self.roster.count(phase) for phase in Phase},
            "lag_s": self.lag.last_s,
            "worst_lag_s": self.lag.worst_s,
            "capacity": {
                "cpus": self.parts.capacity.cpus,
                "memory_bytes": self.parts.capacity.memory_bytes,
            },
        }

    async def subscribe(
        self, peer: Peer, after: int | None = None
    ) -> AsyncIterator[dict[str, Json]]:
        """What happens in the queue, for as long as it is read."""
        async for one in self.roster.happenings(after):
            of = self.roster.get(one.job_id) if one.job_id is not None else None
            yield lookup.happening(peer, None if of is None else of.uid, one)

    def _find(self, peer: Peer, text: str) -> Entry:
        return lookup.find(self.roster, peer, text)

    def _own(self, peer: Peer, text: str, what: str) -> Entry:
        entry = self._find(peer, text)
        lookup.refuse_others(peer, entry, what)
        return entry

    def _fields(self, entry: Entry, place: int | None = None) -> dict[str, Json]:
        return lookup.queue_fields(entry, self.dispatch.placing.waits.get(entry.id), place)

    def _told(self, entry: Entry, words: str) -> dict[str, Json]:
        now = self.roster.get(entry.id) or entry
        return {"id": entry.id, "state": str(lookup.state_of(now)), "words": words}
