"""Everything that looks at the running attempt, as one.

Owns the lifetimes of the lookers: output and checkpoints, GPUs, memory, and whether it is hung.
Each turns what it finds into events; none waits for the worker, and none decides.
"""

import asyncio
from dataclasses import dataclass

from supervisor.core.activity import GpuActivity
from supervisor.core.events import PhaseBegan, PhaseEnded
from supervisor.core.evidence import DeadlineName, GpuUse
from supervisor.core.hang import Verdict
from supervisor.process.orphans import Orphans
from supervisor.runner.checkpoints import Checkpoints
from supervisor.runner.gpu_watch import GpuWatch
from supervisor.runner.gpus import Gpus
from supervisor.runner.isolation import Enclosure
from supervisor.runner.loop import Loop
from supervisor.runner.memory_watch import MemoryWatch
from supervisor.runner.observe import Observer
from supervisor.runner.session.session import Session
from supervisor.runner.suspicion import Suspicion
from supervisor.runner.worker import LiveWorker
from supervisor.watch.progress import Progress


@dataclass(frozen=True, slots=True)
class Subject:
    """The attempt that is looked at."""

    number: int
    live: LiveWorker
    enclosure: Enclosure
    session: Session | None = None


class Watcher:
    """Looks at one attempt, from its spawn to its end."""

    def __init__(self, loop: Loop, subject: Subject, checkpoints: Checkpoints, gpus: Gpus) -> None:
        self._loop = loop
        self._subject = subject
        self._orphans = Orphans()
        self.known: frozenset[int] = frozenset({subject.live.child.pid})
        self._tasks: list[asyncio.Task[None]] = []
        resources = loop.job.settings.resources
        self._suspicion = Suspicion(loop, self)
        self._observer = Observer(loop, checkpoints, subject.number, self._at_each_look)
        own = (lambda: None) if subject.session is None else subject.session.said.own_gpu_bytes
        self._gpu = GpuWatch(loop, gpus, subject.number, own) if resources.gpus else None
        self._memory = (
            MemoryWatch(loop, subject.number, self.pids, resources.memory_bytes)
            if resources.memory_bytes is not None and not subject.enclosure.memory_held
            else None
        )

    def start(self) -> None:
        """Begin to look."""
        start = self._loop.tasks.start
        self._tasks = [start(self._observer.run())]
        if self._subject.session is not None:
            self._subject.session.serve(self)
        if self._gpu is not None:
            self._tasks.append(start(self._loop.spare("watching the GPUs", self._gpu.run())))
        if self._memory is not None:
            self._tasks.append(start(self._memory.run()))

    def end(self) -> None:
        """Look no more, but for `last_words`."""
        for task in self._tasks:
            task.cancel()

    async def progressed(self, progress: Progress, *, is_sign: bool) -> None:
        """A process of the worker said how far it is."""
        await self._observer.hear(progress, is_sign=is_sign)

    async def phase_began(self, name: str, limit_s: float) -> None:
        """The worker said that it will show no progress for a while."""
        await self._loop.feed(PhaseBegan(self._subject.number, name, limit_s))

    async def phases_ended(self) -> None:
        """That is over."""
        await self._loop.feed(PhaseEnded(self._subject.number))

    async def published(self) -> None:
        """A checkpoint lies there, whole."""
        await self._observer.hear_of_checkpoint()

    async def last_words(self) -> None:
        """Read what the worker wrote before it ended."""
        await self._observer.look_at_output()

    async def look_at_everything(self) -> None:
        """Before a deadline counts: take in what was missed while this process was held up."""
        await self._observer.look_at_everything()

    def judge(self, name: DeadlineName) -> Verdict:
        """Whether the silent worker is hung."""
        return self._suspicion.judge(name)

    @property
    def main_pid(self) -> int:
        """The worker's main process."""
        return self._subject.live.child.pid

    def pids(self) -> frozenset[int]:
        """The processes of its tree; `known` are all that were ever seen of it.

        Where there is a control group it is asked alone: looking at every process of the host, for
        one that left the group, is for the end.
        """
        leaf = self._subject.enclosure.leaf
        found = self._subject.live.child.members() if leaf is None else leaf.members()
        now = frozenset(one.pid for one in found)
        self.known |= now
        return now

    def frozen(self) -> bool:
        """Whether its control group is frozen."""
        leaf = self._subject.enclosure.leaf
        return leaf is not None and leaf.frozen()

    def gpus(self) -> tuple[GpuActivity, ...]:
        """What its GPUs did at the last look."""
        return () if self._gpu is None else self._gpu.activity()

    def gpu_lines(self) -> list[str]:
        """The last look at its GPUs, for people."""
        return [] if self._gpu is None else self._gpu.lines()

    def gpu_curve(self) -> tuple[GpuUse, ...]:
        """The memory it used on its GPUs."""
        return () if self._gpu is None else tuple(self._gpu.curve)

    def _at_each_look(self) -> None:
        self._orphans.reap()
        self._suspicion.look()
