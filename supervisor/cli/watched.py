"""A job whose runner is somebody else, as the views of `run` want it told.

Owns the way from the journal and the worker's log to a listener. Reads only; never waits.
Invariant: what happened before the first look is not told as if it happened now.
"""

import time
from collections.abc import Callable

from supervisor.core.causes import State
from supervisor.core.events import CheckpointChosen, Event, GpusAwaited, ProgressBegan
from supervisor.core.machine import step
from supervisor.core.state import JobState
from supervisor.journal.codec import decode
from supervisor.runner.listener import BatchSnapshot, Listener, Snapshot
from supervisor.runner.settings import Settings
from supervisor.spec.batch import batch_of
from supervisor.spec.job import JobSpec
from supervisor.views.chosen import Chosen
from supervisor.watch.follow import LogFollower
from supervisor.watch.progress import Progress, latest
from supervisor.watch.rate import Pace

COUNT_S = 1.0  # items are counted no more often


class Watched:
    """One job, seen from outside. `look` tells the listener what is new."""

    def __init__(self, chosen: Chosen, spec: JobSpec, listener: Listener) -> None:
        self._chosen = chosen
        self._listener = listener
        settings = Settings.of(spec)
        self._parser = settings.parser
        self._state = JobState(timeouts=settings.timeouts)
        self._seq = 0
        self._log: LogFollower | None = None
        self._number = 0
        self._progress = Progress()
        self._pace = Pace()
        self._count_at = 0.0
        self._measure: Callable[[], None] = self._read if batch_of(spec) is None else self._count
        self._begin()

    def look(self) -> None:
        """Tell what happened since the last look, and how far the job is."""
        for one in self._chosen.journal.events(self._chosen.record.id, self._seq):
            event = self._taken(one.kind, one.body, one.seq)
            self._listener.saw(event, self._state)
        self._measure()

    def _begin(self) -> None:
        """Take in what happened before. The views show the time of day at which they are told."""
        last: Event | None = None
        for one in self._chosen.journal.events(self._chosen.record.id):
            last = self._taken(one.kind, one.body, one.seq)
        if last is None:
            return
        lasts = isinstance(last, GpusAwaited) or self._state.phase is State.HOLDING
        # What still lasts is told; anything else only says where the job is, without a sentence.
        known = last if lasts else ProgressBegan(self._state.attempt)
        self._listener.saw(known, self._state)

    def _taken(self, kind: str, body: str, seq: int) -> Event:
        event = decode(kind, body)
        self._seq = seq
        self._state, _ = step(self._state, event, 0.0)
        if isinstance(event, CheckpointChosen):
            self._pace = Pace()  # the next attempt has a rate of its own
        return event

    def _count(self) -> None:
        """How many items are done, as the ledger has them."""
        now = time.monotonic()
        if now < self._count_at:
            return
        self._count_at = now + COUNT_S
        counts = self._chosen.journal.ledger(self._chosen.record.id).counts()
        self._pace.observe(counts.done, now)
        self._listener.batch_progressed(
            BatchSnapshot(
                attempt=self._state.attempt,
                total=counts.total,
                done=counts.done,
                quarantined=counts.quarantined,
                suspects=counts.suspect,
                items_per_s=self._pace.steps_per_s(now),
                eta_s=self._pace.eta_s(counts.total - counts.quarantined, now),
            )
        )

    def _read(self) -> None:
        """What the worker prints of its progress; where it prints none, what the journal has."""
        if self._state.attempt != self._number:
            self._number = self._state.attempt
            self._progress = Progress(step=self._state.resumed_step)
            if self._log is not None:
                self._log.close()
            self._log = LogFollower(self._chosen.folder.attempt(self._number).log)
        if self._log is None:
            return
        chunk = self._log.read_new()
        said = latest(self._parser, chunk.lines, self._log.partial) if chunk.new_bytes else None
        if said is None:
            record = self._chosen.journal.job(self._chosen.record.id) or self._chosen.record
            if record.step is None or record.step <= (self._progress.step or 0):
                return
            said = Progress(step=record.step, total=record.total)
        self._progress = self._progress.updated(said)
        now = time.monotonic()
        if self._progress.step is not None:
            self._pace.observe(self._progress.step, now)
        rate, eta_s = self._pace.steps_per_s(now), self._pace.eta_s(self._progress.total, now)
        self._listener.progressed(Snapshot(self._number, self._progress, rate, eta_s))
