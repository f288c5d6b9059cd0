"""A daemon that keeps its jobs in a dict, for tests of the API.

Owns no process and no file: a job is what a test says it is. It refuses as the real one does.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from supervisor.daemon.contracts import Conflict, NoSuchJob, NotYours, Peer

STATES_OVER = {"succeeded", "failed", "stopped", "cancelled"}


@dataclass(slots=True)
class FakeJob:
    """One job. `logs` are the bytes of each attempt; `over`, how many of these have ended."""

    id: str
    uid: int = 0
    state: str = "running"
    step: int = 0
    logs: list[bytes] = field(default_factory=list)
    over: int = 0
    body: dict[str, Any] = field(default_factory=dict)


class FakeDaemon:
    """A Facade. `asked` lists the questions that shelves were asked; `happened`, the queue's."""

    def __init__(self) -> None:
        self.kept: dict[str, FakeJob] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.surroundings: dict[str, Any] = {}
        self.happened: list[dict[str, Any]] = []
        self.news = asyncio.Event()
        self.listeners = 0
        self.held = {"sweep": True}
        self.aside = {"GPU-1"}
        self.retried: Any = None

    def add(self, job: FakeJob) -> FakeJob:
        """Keep a job."""
        self.kept[job.id] = job
        return job

    def happen(self, job: str, kind: str) -> None:
        """Let something happen in the queue."""
        seq = len(self.happened) + 1
        self.happened.append({"seq": seq, "at_s": 1.0 * seq, "job": job, "kind": kind})
        self.news.set()

    async def submit(
        self, peer: Peer, jobs: Sequence[Mapping[str, Any]], surroundings: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Take jobs in, under names by their number."""
        self.surroundings = dict(surroundings)
        answers = []
        for body in jobs:
            job = self.add(FakeJob(f"job-{len(self.kept)}", peer.uid, "queued", body=dict(body)))
            answers.append({"id": job.id, "name": job.id, "state": job.state, "new": True})
        return {"jobs": answers, "left_out": []}

    async def jobs(self, _peer: Peer, /, **wanted: Any) -> list[dict[str, Any]]:
        """List jobs; `state` and `limit` are heard."""
        rows = [self._row(one) for one in self.kept.values()]
        rows = [one for one in rows if wanted["state"] in {None, one["state"]}]
        return rows[: wanted["limit"] or None]

    async def ask(
        self, peer: Peer, job: str, question: str, arguments: Mapping[str, Any] | None = None
    ) -> Any:
        """Answer as a shelf would."""
        found = self._find(job)
        given = dict(arguments or {})
        if question == "log" and found.uid != peer.uid and not peer.admin:
            raise NotYours(f"{job} belongs to user {found.uid}")
        self.asked.append((question, given))
        if question == "log":
            return self._log(found, given)
        if question == "progress":
            attempt = len(found.logs) or None
            row = {"state": found.state, "step": found.step, "total": None, "attempt": attempt}
            return {found.id: row}
        if question == "events":
            return [{"seq": 1, "at": "2031-05-01T12:00:00.000Z", "kind": "JobAccepted"}]
        document = self._row(found)
        lists = {"attempts": [], "checkpoints": [], "rows": [], "totals": {}}
        return document | lists

    async def stop(self, peer: Peer, job: str, *, kill: bool = False) -> dict[str, Any]:
        """Stop it."""
        return self._end(peer, job, "stopped", "killed" if kill else "stopped")

    async def cancel(self, peer: Peer, job: str) -> dict[str, Any]:
        """Cancel it."""
        return self._end(peer, job, "cancelled", "cancelled")

    async def resume(self, peer: Peer, job: str) -> dict[str, Any]:
        """Queue it again."""
        return self._end(peer, job, "queued", "waits")

    async def retry(self, peer: Peer, job: str, items: Any = None) -> dict[str, Any]:
        """Queue it again."""
        self.retried = items
        return self._end(peer, job, "queued", "waits")

    async def remove(self, peer: Peer, job: str) -> dict[str, Any]:
        """Forget it."""
        found = self._own(peer, job)
        if found.state not in STATES_OVER:
            raise Conflict(f"{job} has not ended")
        del self.kept[job]
        return {"id": job, "state": found.state, "words": "removed"}

    async def wait(self, _peer: Peer, job: str, timeout_s: float) -> dict[str, Any]:
        """Wait for its end."""
        found = self._find(job)
        deadline = asyncio.get_running_loop().time() + timeout_s
        while (  # noqa: ASYNC110 - a test changes the state from another thread
            found.state not in STATES_OVER and asyncio.get_running_loop().time() < deadline
        ):
            await asyncio.sleep(0.005)
        over = found.state in STATES_OVER
        code = {"succeeded": 0}.get(found.state, 1) if over else None
        return {"id": found.id, "state": found.state, "exit_code": code, "ended": over}

    async def groups(self, peer: Peer) -> list[dict[str, Any]]:
        """List groups."""
        return [
            {"name": name, "uid": peer.uid, "hold_after": 3, "failures": 3, "held": held}
            for name, held in self.held.items()
        ]

    async def release_group(self, _peer: Peer, name: str) -> dict[str, Any]:
        """Release one."""
        if name not in self.held:
            raise NoSuchJob(f"no group of yours is called {name!a}")
        self.held[name] = False
        return {"name": name, "held": False, "words": f"{name} may start jobs again"}

    async def gpus(self, _peer: Peer, /) -> list[dict[str, Any]]:
        """List GPUs."""
        return [{"uuid": one, "state": "set_aside"} for one in sorted(self.aside)]

    async def release_gpu(self, _peer: Peer, uuid: str, /) -> dict[str, Any]:
        """Release one."""
        if uuid not in self.aside:
            raise Conflict(f"{uuid} is not set aside")
        self.aside.discard(uuid)
        return {"uuid": uuid, "words": f"{uuid} may be used again"}

    async def status(self) -> dict[str, Any]:
        """Tell of itself."""
        return {
            "version": "1",
            "api": 1,
            "pid": 1,
            "state_dir": "/var/lib/supervise",
            "system": False,
            "launcher": "session",
            "jobs": {"waiting": len(self.kept)},
        }

    async def subscribe(
        self, _peer: Peer, /, after: int | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Tell what happens."""
        seen = len(self.happened) if after is None else after
        self.listeners += 1
        try:
            while True:
                self.news.clear()
                for one in self.happened[seen:]:
                    seen = one["seq"]
                    yield one
                await self.news.wait()
        finally:
            self.listeners -= 1

    def _find(self, job: str) -> FakeJob:
        if job not in self.kept:
            raise NoSuchJob(f"the queue has no job {job}")
        return self.kept[job]

    def _own(self, peer: Peer, job: str) -> FakeJob:
        found = self._find(job)
        if found.uid != peer.uid and not peer.admin:
            raise NotYours(f"{job} belongs to user {found.uid}: only they, and admins, may")
        return found

    def _end(self, peer: Peer, job: str, state: str, words: str) -> dict[str, Any]:
        self._own(peer, job).state = state
        return {"id": job, "state": state, "words": words}

    def _row(self, job: FakeJob) -> dict[str, Any]:
        return {
            "id": job.id,
            "name": job.id,
            "state": job.state,
            "why": "",
            "step": job.step,
            "total": None,
            "user": f"u{job.uid}",
            "uid": job.uid,
            "phase": "ended" if job.state in STATES_OVER else "started",
            "priority": 0,
            "group": None,
            "waits": None,
            "position": None,
        }

    def _log(self, job: FakeJob, given: dict[str, Any]) -> dict[str, Any]:
        number = given["attempt"] if given["attempt"] is not None else len(job.logs) or None
        if number is None:
            return {"attempt": None, "offset": 0, "next": 0, "size": 0, "data": "", "ended": False}
        if number > len(job.logs):
            raise NoSuchJob(f"{job.id} has no attempt {number}")
        whole = job.logs[number - 1]
        offset = min(given["offset"], len(whole))
        data = whole[offset : offset + given["limit"]]
        return {
            "attempt": number,
            "offset": offset,
            "next": offset + len(data),
            "size": len(whole),
            "data": base64.b64encode(data).decode(),
            "ended": number <= job.over,
        }
