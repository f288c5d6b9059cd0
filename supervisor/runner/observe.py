"""Watches the running worker from outside: its output, and its checkpoints as they grow.

Owns the rhythm of looking. A look costs microseconds where nothing is new; it never waits for the
worker, and what it finds becomes events.
"""

import asyncio

from supervisor.checkpoint import growth
from supervisor.core.events import ProgressBegan, SignSeen
from supervisor.runner.checkpoints import Checkpoints
from supervisor.runner.listener import Snapshot
from supervisor.runner.loop import Loop
from supervisor.watch.follow import LogFollower
from supervisor.watch.progress import Progress, latest
from supervisor.watch.rate import Pace

LOOK_S = 0.5
CHECKPOINT_LOOK_S = 2.0
SHOW_S = 5.0  # how often other processes (`ps`, `show`) see a new step
SHARE = 0.005  # looking for checkpoints in a huge or slow folder takes at most this share of time
# A worker that saves every second is not worth a copy every second: verifying and copying take at
# most this share of time, unless that would leave the newest ones without a copy for too long.
VERIFY_SHARE = 0.002
VERIFY_PAUSE_S = 10.0


class Observer:
    """Looks at one attempt until it is cancelled."""

    def __init__(self, loop: Loop, checkpoints: Checkpoints, number: int) -> None:
        self._loop = loop
        self._checkpoints = checkpoints
        self._number = number
        self._log = LogFollower(loop.job.folder.attempt(number).log)
        self._progress = Progress()
        self._pace = Pace()
        self._growth: object = None
        self._next_growth_at = 0.0
        self._next_survey_at = 0.0
        self._news = False
        self._next_show_at = 0.0
        self._began = False
        self._surveying: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Look again and again."""
        try:
            while True:
                await asyncio.sleep(LOOK_S)
                await self.look()
        finally:
            self._log.close()

    async def look(self) -> None:
        """One look: output first, then, less often, the checkpoints."""
        signs = self._loop.job.settings.signs
        wrote = self._read_log() and "output" in signs
        grew = self._checkpoints_grew() and "checkpoint" in signs
        if not (wrote or grew):
            return
        if not self._began:
            self._began = True
            await self._loop.feed(ProgressBegan(self._number))
        await self._loop.feed(SignSeen(self._progress.step))

    def _read_log(self) -> bool:
        """Read what is new of the output; whether there was anything."""
        chunk = self._log.read_new()
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

    def _checkpoints_grew(self) -> bool:
        layout, now = self._loop.job.settings.layout, self._loop.clock()
        if layout is None or now < self._next_growth_at:
            return False
        before, self._growth = self._growth, growth(layout)
        took_s = self._loop.clock() - now
        self._next_growth_at = now + max(CHECKPOINT_LOOK_S, took_s / SHARE)
        grew = self._growth != before
        self._news |= grew or self._checkpoints.unsettled
        if self._news and now >= self._next_survey_at:
            self._survey()
        return before is not None and grew  # the first look is no comparison

    def _survey(self) -> None:
        """Verify what is new, beside the watching; one survey at a time."""
        if self._surveying is None or self._surveying.done():
            self._news = False
            self._surveying = self._loop.tasks.start(self._verify())

    async def _verify(self) -> None:
        started = self._loop.clock()
        found = await self._checkpoints.survey(worker_lives=True)
        ended = self._loop.clock()
        pause_s = min((ended - started) / VERIFY_SHARE, VERIFY_PAUSE_S)
        self._next_survey_at = ended + pause_s
        if found is not None:
            await self._loop.feed(found)
