"""Watches the running worker from outside: its output, and its checkpoints as they grow.

Owns the rhythm of looking at the output. A look costs microseconds where nothing is new; it never
waits for the worker, and what it finds becomes events.
"""

import asyncio
from collections.abc import Callable

from supervisor.core.events import ProgressBegan, SignSeen
from supervisor.runner.checkpoints import Checkpoints
from supervisor.runner.growing import CheckpointWatch
from supervisor.runner.listener import Snapshot
from supervisor.runner.loop import Loop
from supervisor.watch.follow import LogFollower
from supervisor.watch.progress import Progress, latest
from supervisor.watch.rate import Pace

LOOK_S = 0.5
HELD_UP_S = 1.0  # a look that is later than this: the process was stopped, frozen or starved
SHOW_S = 5.0  # how often other processes (`ps`, `show`) see a new step


class Observer:
    """Looks at one attempt until it is cancelled; `others` look in its rhythm."""

    def __init__(
        self, loop: Loop, checkpoints: Checkpoints, number: int, others: Callable[[], None]
    ) -> None:
        self._others = others
        self._loop = loop
        self._number = number
        self._signs = loop.job.settings.signs
        self._log = LogFollower(loop.job.folder.attempt(number).log)
        self._checkpoints = CheckpointWatch(loop, checkpoints, self._grew)
        self._progress = Progress()
        self._pace = Pace()
        self._next_show_at = 0.0
        self._began = False
        self._unreadable = False

    async def run(self) -> None:
        """Look again and again."""
        try:
            while True:
                slept_at = self._loop.clock()
                await asyncio.sleep(LOOK_S)
                late_s = self._loop.clock() - slept_at - LOOK_S
                if late_s > HELD_UP_S:
                    self._loop.was_held_up(late_s)
                await self.look_at_output()
                self._checkpoints.look()
                self._others()
        finally:
            self._log.close()
            self._checkpoints.close()

    async def look_at_output(self) -> None:
        """Read what is new of it."""
        if self._read_log() and "output" in self._signs:
            await self._sign()

    async def hear(self, progress: Progress, *, is_sign: bool) -> None:
        """Take in what the worker itself said, on its session."""
        if progress != Progress():
            self._progress = self._progress.updated(progress)
            self._tell()
        if is_sign and "heartbeat" in self._signs:
            await self._sign()

    async def hear_of_checkpoint(self) -> None:
        """The worker said that one lies there, whole."""
        await self._grew()

    async def look_at_everything(self) -> None:
        """Before a deadline counts: take in what was missed while this process was held up."""
        await self.look_at_output()
        await self._checkpoints.look_now()

    async def _grew(self) -> None:
        if "checkpoint" in self._signs:
            await self._sign()

    async def _sign(self) -> None:
        if not self._began:
            self._began = True
            await self._loop.feed(ProgressBegan(self._number))
        await self._loop.feed(SignSeen(self._progress.step))

    def _read_log(self) -> bool:
        """Read what is new of the output; whether there was anything."""
        try:
            chunk = self._log.read_new()
        except OSError as error:  # somebody put another thing in its place; the worker may be well
            if not self._unreadable:
                self._unreadable = True
                self._loop.listener.warned(f"the worker's output cannot be read: {error}")
            return False
        if not chunk.new_bytes:
            return False
        said = latest(self._loop.job.settings.parser, chunk.lines, self._log.partial)
        if said is not None:
            self._progress = self._progress.updated(said)
            self._tell()
        return True

    def _tell(self) -> None:
        now, progress = self._loop.clock(), self._progress
        if progress.step is not None:
            self._pace.observe(progress.step, now)
        rate = self._pace.steps_per_s(now)
        eta_s = self._pace.eta_s(progress.total, now)
        self._loop.listener.progressed(Snapshot(self._number, progress, rate, eta_s))
        if now >= self._next_show_at:
            self._next_show_at = now + SHOW_S
            self._loop.show_progress(progress.step, progress.total)
