"""Watches a job's checkpoints grow while a worker runs, and has the new ones verified.

Owns the rhythm of both. Looking is done in a thread of its own: a file system that does not answer
may hold that up, and nothing else. Verifying takes a small share of one core, however often the
script saves.
"""

import asyncio
from collections.abc import Awaitable, Callable

from supervisor.checkpoint import Growth, growth
from supervisor.runner.checkpoints import Checkpoints
from supervisor.runner.disk import DiskThread
from supervisor.runner.loop import Loop

LOOK_S = 2.0
LOOK_SHARE = 0.005  # looking into a huge or slow folder takes at most this share of the time
# A worker that saves every second is not worth a copy every second: verifying and copying take at
# most this share of time, unless that would leave the newest ones without a copy for too long.
VERIFY_SHARE = 0.001
VERIFY_PAUSE_S = 10.0
PATIENCE_S = 5.0  # for a folder that does not answer, before a deadline counts


class CheckpointWatch:
    """Looks at one attempt's checkpoints. `grew` is awaited when there is a sign of progress."""

    def __init__(
        self, loop: Loop, checkpoints: Checkpoints, grew: Callable[[], Awaitable[None]]
    ) -> None:
        self._loop = loop
        self._checkpoints = checkpoints
        self._grew = grew
        self._thread = DiskThread()
        self._looking: asyncio.Task[None] | None = None
        self._surveying: asyncio.Task[None] | None = None
        self._seen: Growth | None = None
        self._news = False
        self._next_look_at = 0.0
        self._next_survey_at = 0.0

    def look(self) -> None:
        """Begin a look, if one is due and none is under way."""
        if self._loop.clock() >= self._next_look_at:
            self._begin()

    async def look_now(self) -> None:
        """Look, due or not, and wait for it: somebody is about to call this worker hung."""
        looking = self._begin()
        if looking is not None:
            await asyncio.wait({looking}, timeout=PATIENCE_S)

    def close(self) -> None:
        """Begin no more looks."""
        self._thread.close()

    def _begin(self) -> "asyncio.Task[None] | None":
        layout = self._loop.job.settings.layout
        if layout is not None and (self._looking is None or self._looking.done()):
            self._looking = self._loop.tasks.start(self._look(lambda: growth(layout)))
        return self._looking

    async def _look(self, measure: Callable[[], Growth]) -> None:
        started = self._loop.clock()
        now_seen = await self._thread.run(measure)
        ended = self._loop.clock()
        self._next_look_at = started + max(LOOK_S, (ended - started) / LOOK_SHARE)
        before, self._seen = self._seen, now_seen
        changed = now_seen != before
        self._news |= changed or self._checkpoints.unsettled
        if self._news and ended >= self._next_survey_at:
            self._survey()
        if changed and before is not None:  # the first look is no comparison
            await self._grew()

    def _survey(self) -> None:
        """Verify what is new, beside the watching; one survey at a time."""
        if self._surveying is None or self._surveying.done():
            self._news = False
            self._surveying = self._loop.tasks.start(self._verify())

    async def _verify(self) -> None:
        started = self._loop.clock()
        found = await self._checkpoints.survey(worker_lives=True)
        ended = self._loop.clock()
        self._next_survey_at = ended + min((ended - started) / VERIFY_SHARE, VERIFY_PAUSE_S)
        if found is not None:
            await self._loop.feed(found)
