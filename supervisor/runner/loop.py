"""The runner of one job: event -> journal commit -> `core.step` -> effects.

Owns the order of these four and the clock. It decides nothing: what a job does next is
`supervisor.core.machine`'s, how an effect is carried out is `effects.py`'s. Nothing is carried out
before the event that asked for it is durable, so a runner that is killed anywhere in between leaves
a journal from which the next one reaches the same end.
"""

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any

from supervisor.core.causes import State
from supervisor.core.events import (
    AttemptSpawned,
    DeadlineDeferred,
    DeadlinePassed,
    Event,
    PhaseEnded,
    RunnerStarted,
    SignSeen,
    StopRequested,
)
from supervisor.core.evidence import DeadlineName
from supervisor.core.hang import Verdict
from supervisor.core.machine import TRANSITIONS, step
from supervisor.core.state import JobState
from supervisor.host import identity
from supervisor.journal import JournalUnavailable
from supervisor.runner.listener import Listener
from supervisor.runner.opening import OpenJob
from supervisor.runner.tasks import Tasks

JOURNAL_RETRY_S = 2.0


FIGURES = re.compile(r"\d+")
WATCHED = {DeadlineName.STARTUP, DeadlineName.HEARTBEAT}


async def _nothing() -> None:
    """What a look at no worker brings."""


def _no_opinion(_name: DeadlineName) -> None:
    """What there is to say of a worker that nobody watches."""


class Loop:
    """Feeds one job's state machine. `perform` is told each effect once its event is durable."""

    def __init__(self, job: OpenJob, listener: Listener) -> None:
        self.job = job
        self.listener = listener
        self._held_up_s = 0.0
        self.last_sign_at = 0.0
        settings = job.settings
        self.state = JobState(timeouts=settings.timeouts, gpus_wanted=settings.resources.gpus)
        self.result: asyncio.Future[State] = asyncio.get_running_loop().create_future()
        self.tasks = Tasks(self.result)
        self.worker_lives: Callable[[], bool] = lambda: False
        self.look: Callable[[], Awaitable[None]] = _nothing
        self.judge: Callable[[DeadlineName], Verdict | None] = _no_opinion
        self._deferred_for = ""
        self.perform: Callable[..., None]
        self._turn = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self.forced = asyncio.Event()
        self._stops = 0

    def clock(self) -> float:
        """Seconds of a monotonic clock that stands still while this process does."""
        return time.monotonic() - self._held_up_s

    def was_held_up(self, lost_s: float) -> None:
        """This process did not run for a while: it was stopped, frozen or starved.

        What held it up may have held up the worker, so the time counts for no deadline.
        """
        self._held_up_s += lost_s

    def replay(self) -> None:
        """Rebuild the state from the journal; the effects were carried out, or are asked anew."""
        for event in self.job.journal.replay(self.job.id):
            self.state, _ = step(self.state, event, 0.0)
        # Instants of another process's clock mean nothing here.
        self.state = replace(self.state, deadlines=type(self.state.deadlines)())

    async def run(self) -> State:
        """Take the job over and bring it as far as it goes; the state in which it was left."""
        pid, boot = os.getpid(), identity.boot_id()
        rebooted = self.job.record.boot_id not in {None, boot}
        await self.feed(RunnerStarted(pid, identity.start_ticks(pid) or 0, boot, rebooted))
        try:
            return await self.result
        finally:
            if self._timer is not None:
                self._timer.cancel()
            await self.tasks.close()

    async def feed(self, event: Event) -> None:
        """One turn: step, commit, then the effects. Turns never overlap.

        An event that comes too late for the state (a stop for a job that has just ended, a
        checkpoint seen by the last look at a worker that is gone) is dropped.
        """
        async with self._turn:
            if (self.state.phase, type(event)) in TRANSITIONS:
                await self._take(event)

    async def _take(self, event: Event) -> None:
        if isinstance(event, SignSeen | AttemptSpawned | PhaseEnded):
            self.last_sign_at = self.clock()
            self._deferred_for = ""
        state, effects = step(self.state, event, self.clock())
        if event.durable:
            await self._commit(event, state)
        self.state = state
        self._arm()
        self.listener.saw(event, state)
        for effect in effects:
            self.perform(effect)

    async def spare(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        """Do work whose fault must not end a training: it is told of, and done without."""
        try:
            await work
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker is worth more
            self.listener.warned(f"{what} ended by a fault of supervise, please report: {error!r}")

    def stop(self, source: str) -> None:
        """A person or the host asks the job to stop: gracefully once, by force the second time."""
        self._stops += 1
        if self._stops > 1:
            self.forced.set()
        self.tasks.start(self.feed(StopRequested(source, forced=self._stops > 1)))

    @property
    def stopped_by_force(self) -> bool:
        """Whether the stop was asked for twice."""
        return self.forced.is_set()

    def show_progress(self, step: int | None, total: int | None) -> None:
        """Let `ps` and `show` see how far the worker is; not worth a word when it fails."""
        with suppress(JournalUnavailable):
            self.job.journal.show_progress(self.job.id, step, total)

    async def _commit(self, event: Event, state: JobState) -> None:
        """Store the event. A full disk is waited out: a worker may go on, a job need not end."""
        refused = False
        while True:
            try:
                self.job.journal.append(self.job.id, event, state)
            except JournalUnavailable as error:
                lives = self.worker_lives()
                waits = lives or (error.full and self.state.attempt > 0 and not self._stops)
                if not waits or self.stopped_by_force:
                    raise
                if not refused:
                    worker = " The worker goes on;" if lives else " The job waits;"
                    self.listener.warned(f"{error}{worker} trying again until it can.")
                refused = True
                await asyncio.sleep(JOURNAL_RETRY_S)
            else:
                break
        if refused:
            self.listener.warned("the journal can be written again")

    def _arm(self) -> None:
        """Keep one timer at or before the next deadline; it re-arms itself when it was early."""
        due = self.state.deadlines.next()
        if due is None:
            return
        at = due[1] + self._held_up_s
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(at, self._fired)

    def _fired(self) -> None:
        self._timer = None
        self.tasks.start(self._check_deadline())

    async def _check_deadline(self) -> None:
        # This process may have been starved, stopped or swapped out. Whoever notices that (`look`
        # runs in a rhythm) has the first word; then, what the worker wrote meanwhile counts.
        await asyncio.sleep(0)
        await self.look()
        async with self._turn:  # no sign of progress may come between the check and the kill
            due = self.state.deadlines.next()
            if due is None or due[1] > self.clock():
                self._arm()
                return
            verdict = self.judge(due[0]) if due[0] in WATCHED else None
            if verdict is None or verdict.kill:
                seen = "" if verdict is None else verdict.reason
                await self._take(DeadlinePassed(due[0], self.state.timeouts.of(due[0]), seen))
            else:
                self._tell_of_patience(verdict.reason)
                await self._take(DeadlineDeferred(due[0], verdict.extra_s, verdict.reason))

    def _tell_of_patience(self, reason: str) -> None:
        """A silent worker is left alone: say why, once for each kind of reason."""
        kind = FIGURES.sub("", reason.partition(":")[0])
        if kind and kind != self._deferred_for:
            self.listener.warned(reason)
        self._deferred_for = kind
