"""What keeps an attempt's processes together and within their limits, as this host allows it.

Owns the control group of each attempt, and what is known of it after the end; kills nothing of a
living attempt (the ladder of `supervisor.process` does). Invariant: what an earlier runner of the
job left behind is found by a name that only this job in this state folder uses.
"""

import asyncio
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from supervisor.core.evidence import Oom
from supervisor.host import identity, processes
from supervisor.host.cgroup import Leaf, leftovers, survey
from supervisor.host.kernel_log import KernelLog, OomVictim, oom_victims
from supervisor.host.processes import ProcessId
from supervisor.process.limits import Limits
from supervisor.runner.cpus import CpuShare
from supervisor.runner.opening import OpenJob
from workers import protocol

FIRST_VICTIM, LAST_VICTIM = 1000, -900  # proc_pid_oom_score_adj(5)
LOOK_AGAIN_S = 0.02
_OWNER = protocol.ENV_OWNER.encode()
RECLAIM_S = 30.0
REMOVE_S = 0.5  # the kernel lets go of a group a moment after its last process


def owner_name(job: OpenJob) -> str:
    """What this job, in this state folder and no other, calls its processes and control groups."""
    digest = hashlib.sha256(os.fsencode(job.state_dir.resolve())).hexdigest()[:8]
    return f"{job.id}.{digest}"


@dataclass(frozen=True, slots=True)
class Enclosure:
    """One attempt's bounds. `leaf` is None where the host offers no control group.

    `victims_before` are as many as the kernel had named before: they are somebody else's.
    """

    leaf: Leaf | None
    limits: Limits
    host_kills_before: int
    memory_held: bool  # the kernel itself keeps it below `resources.memory`
    victims_before: int = 0


@dataclass(frozen=True, slots=True)
class Waiting:
    """The room of a worker that is still to come, made ahead. `leaf` is None as in Enclosure."""

    leaf: Leaf | None
    memory_held: bool


class Isolation:
    """The bounds of one job's workers."""

    def __init__(self, job: OpenJob, warn: Callable[[str], None]) -> None:
        self._wanted = job.settings.resources
        self._warn = warn
        self._offer = survey()
        self._log = KernelLog()
        self._cpus = CpuShare(self._wanted.cpus)
        self.name = owner_name(job)
        self._told: set[str] = set()
        self._empty: list[Leaf] = []
        self._ahead: tuple[int, Waiting] | None = None
        self._victims: list[OomVictim] = []

    def protect_runner(self) -> None:
        """Make this process the kernel's last victim, where it may be."""
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(str(LAST_VICTIM), encoding="ascii")

    def enclose(self, number: int, room: Waiting | None = None) -> Enclosure:
        """The bounds of a new worker, in the room that was made for it, if one was."""
        wanted = self._wanted
        room = room or self._taken(number) or self._made(number)
        if room.leaf is not None:
            room.leaf.begin()
        if wanted.pids is not None and (room.leaf is None or self._offer.pids is None):
            self._say_once("resources.pids cannot be kept on this host: see `supervise doctor`")
        before = len(self._read_victims())
        kills = identity.oom_kills()
        return Enclosure(room.leaf, self.limits(), kills, room.memory_held, before)

    def limits(self) -> Limits:
        """What every process of the job inherits."""
        return Limits(
            open_files=self._wanted.open_files,
            core_dumps=self._wanted.core_dumps,
            cpus=self._cpus.numbers,
            oom_score_adj=FIRST_VICTIM,
        )

    def prepare(self, number: int, launcher_pid: int) -> None:
        """Have the room of the attempt after this one ready."""
        if self._ahead is None:
            self._ahead = (number, self.room_for(number, launcher_pid))

    def room_for(self, number: int, launcher_pid: int) -> Waiting:
        """Make the group of a worker that is to come, and let its launcher wait in there.

        Entering a group waits for the kernel, 5 to 10 ms: now nobody else waits for that.
        """
        room = self._made(number)
        if room.leaf is not None:
            with suppress(OSError):  # then it enters when it is needed
                room.leaf.adopt(launcher_pid)
        return room

    def discard(self, room: Waiting) -> None:
        """The worker for which this was made does not come."""
        if room.leaf is not None:
            self._empty.append(room.leaf)
            self._remove_empty()

    def _taken(self, number: int) -> Waiting | None:
        """The room that was made ahead for this attempt."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return None
        made_for, room = ahead
        if made_for == number:
            return room
        if room.leaf is not None:
            self._empty.append(room.leaf)
        return None

    def _made(self, number: int) -> Waiting:
        """A new group for a worker, and whether it holds it below its memory."""
        if not (self._offer.kill or self._offer.memory or self._offer.pids):
            return Waiting(None, memory_held=False)
        return self._leaf(f"supervise-{self.name}-{number}-{secrets.token_hex(4)}")

    def opened(self, one: Enclosure, pids: Iterable[int]) -> tuple[Oom | None, int]:
        """After the end of an attempt: what the kernel killed of it, and the group is removed.

        The number is what it killed on the whole host, where nobody can say whom, else 0.
        """
        victims = self._read_victims()
        if one.leaf is not None:
            facts = one.leaf.memory()
            self._empty.append(one.leaf)
            self._remove_empty()
            if facts.source:
                if not facts.oom_kills:
                    return None, 0
                oom = Oom(
                    kills=facts.oom_kills,
                    of_limit=facts.at_limit,
                    source=facts.source,
                    limit_bytes=facts.limit_bytes,
                    peak_bytes=facts.peak_bytes,
                )
                return oom, 0
        if self._log.available:
            known = frozenset(pids)
            since = victims[one.victims_before :]
            ours = {victim.pid: victim for victim in since if victim.pid in known}
            if not ours:
                return None, 0
            of_limit = all(victim.scope == "limit" for victim in ours.values())
            return Oom(len(ours), of_limit, "the kernel's log names it"), 0
        return None, identity.oom_kills() - one.host_kills_before

    async def reclaim(self, clock: Callable[[], float]) -> tuple[int, ...]:
        """End what an earlier runner of this job left alive; the pids that do not end."""
        ends_at = clock() + RECLAIM_S
        groups = leftovers(self._offer, f"supervise-{self.name}-")
        while True:
            left = {one.pid for leaf in groups for one in leaf.members()}
            owned = _owned_by(self.name)
            left |= {one.pid for one in owned}
            if not left or clock() > ends_at:
                break
            for leaf in groups:
                leaf.kill()
            for one in owned:
                identity.kill(one)
            await asyncio.sleep(LOOK_AGAIN_S)
        for leaf in groups:
            leaf.remove()
        return tuple(sorted(left))

    def close(self) -> None:
        """Give the cores back, and leave no control group behind."""
        self._taken(0)
        give_up_at = time.monotonic() + REMOVE_S
        while self._remove_empty() and time.monotonic() < give_up_at:
            time.sleep(LOOK_AGAIN_S)
        self._cpus.close()
        self._log.close()

    def _read_victims(self) -> list[OomVictim]:
        """Whom the kernel killed on this host since this job began, in order."""
        self._victims += oom_victims(self._log.read_new())
        return self._victims

    def _remove_empty(self) -> bool:
        """Remove the groups of ended attempts; whether one is left, busy for a moment longer."""
        self._empty = [leaf for leaf in self._empty if not leaf.remove()]
        return bool(self._empty)

    def _leaf(self, name: str) -> Waiting:
        wanted = self._wanted
        try:
            leaf = Leaf.make(self._offer, name)
        except OSError as error:
            self._say_once(
                "no control group for the worker", f"({error}); its tree is swept instead"
            )
            return Waiting(None, memory_held=False)
        try:
            leaf.limit(memory_bytes=wanted.memory_bytes, pids=wanted.pids)
        except OSError as error:
            self._say_once("the kernel does not take the worker's limits", f"({error})")
            return Waiting(leaf, memory_held=False)
        held = wanted.memory_bytes is not None and self._offer.memory is not None
        return Waiting(leaf, memory_held=held)

    def _say_once(self, what: str, more: str = "") -> None:
        """Not again for the next attempt, whose control group only has another name."""
        if what not in self._told:
            self._told.add(what)
            self._warn(f"{what} {more}".strip())


def _owned_by(name: str) -> list[ProcessId]:
    """Who was started for this job, however far it fled; this process is not meant."""
    wanted, found = name.encode(), []
    for pid in processes.snapshot():
        # Who it is comes first: should the number pass to another process in between, that is not
        # the one that is killed.
        one = None if pid == os.getpid() else processes.living(pid)
        if one is not None and processes.variable(pid, _OWNER) == wanted:
            found.append(one)
    return found
