"""`supervise attach`: the view of `supervise run`, of a job that another runner brings home.

Owns the verb. It reads the journal and follows the worker's output, as the runner does; it asks the
runner nothing and changes nothing, so leaving it leaves the job alone.
"""

import select
import time
from collections.abc import Callable
from pathlib import Path

import click

from supervisor.cli.jobs import chosen_job, job_argument
from supervisor.cli.run import view_of
from supervisor.core.causes import State
from supervisor.core.events import CheckpointChosen, Event
from supervisor.core.machine import step
from supervisor.core.state import JobState
from supervisor.journal.codec import decode
from supervisor.runner.alive import ATTENDED, runner_lives
from supervisor.runner.exits import exit_code
from supervisor.runner.listener import BatchSnapshot, Listener, Snapshot
from supervisor.runner.settings import Settings
from supervisor.spec.batch import batch_of
from supervisor.spec.frozen import thaw
from supervisor.views.chosen import Chosen
from supervisor.views.frozen import verb
from supervisor.watch.follow import LogFollower
from supervisor.watch.progress import Progress, latest
from supervisor.watch.rate import Pace

LOOK_S = 0.25
GONE_LOOKS = 8  # a runner that takes a job over is named in the journal a moment later


@click.command("attach")
@job_argument
@click.option("--plain", is_flag=True, help="Plain lines, also on a terminal.")
@click.pass_obj
def command(state_dir: Path, job: str | None, *, plain: bool) -> None:
    """Watch a job as `supervise run` shows it. Ctrl-C leaves the view; the job goes on.

    When the job ends meanwhile, the exit code is that of `run`.
    """
    with chosen_job(state_dir, job) as chosen:
        spec = thaw(chosen.record.spec)
        view = view_of(spec, chosen.journal.ledger(chosen.record.id), plain=plain)
        try:
            with view as listener:
                watched = _Watched(chosen, listener)
                state = watched.until_ended()
        except KeyboardInterrupt:
            stop = verb(state_dir, "stop", chosen.record.id)
            click.echo(f"\nleft the view; {chosen.record.id} goes on. To stop it: {stop}")
            return
        if state is None:
            raise click.ClickException(
                f"{chosen.record.id}: its runner is gone. Bring it on: "
                + verb(state_dir, "resume", chosen.record.id)
            )
        record = chosen.journal.job(chosen.record.id) or chosen.record
        why = f": {record.why}" if record.why else ""
        click.echo(f"{record.id} is {state}{why}")
        raise click.exceptions.Exit(exit_code(state, forced=False))


class _Watched:
    """One job, seen from outside."""

    def __init__(self, chosen: Chosen, listener: Listener) -> None:
        self._chosen = chosen
        self._listener = listener
        spec = thaw(chosen.record.spec)
        settings = Settings.of(spec)
        self._parser = settings.parser
        self._is_batch = batch_of(spec) is not None
        self._state = JobState(timeouts=settings.timeouts)
        self._seq = 0
        self._log: LogFollower | None = None
        self._number = 0
        self._progress = Progress()
        self._pace = Pace()
        self._look: Callable[[], None] = self._count if self._is_batch else self._read

    def until_ended(self) -> State | None:
        """Show it until it is over; None where nobody is left to bring it on."""
        self._begin()
        gone = 0
        while True:
            # The state is read before the output: what a finished job wrote is complete by then.
            record = self._chosen.journal.job(self._chosen.record.id) or self._chosen.record
            self._hear()
            self._look()
            lives = runner_lives(record)
            if record.state not in ATTENDED and not lives:
                return State(record.state)
            gone = 0 if lives or record.runner_pid is None else gone + 1
            if gone >= GONE_LOOKS:
                return None
            select.select([], [], [], LOOK_S)

    def _begin(self) -> None:
        """Take in what happened before; of the last attempt, let the view tell it."""
        past = self._chosen.journal.events(self._chosen.record.id)
        chosen = [place for place, one in enumerate(past) if one.kind == CheckpointChosen.__name__]
        told_from = chosen[-1] if chosen else 0
        for place, one in enumerate(past):
            self._take(decode(one.kind, one.body), one.seq, told=place >= told_from)

    def _hear(self) -> None:
        for one in self._chosen.journal.events(self._chosen.record.id, self._seq):
            self._take(decode(one.kind, one.body), one.seq, told=True)

    def _take(self, event: Event, seq: int, *, told: bool) -> None:
        self._seq = seq
        self._state, _ = step(self._state, event, 0.0)
        if told:
            self._listener.saw(event, self._state)

    def _count(self) -> None:
        """How many items are done, as the ledger has them."""
        counts = self._chosen.journal.ledger(self._chosen.record.id).counts()
        now = time.monotonic()
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
        """What the worker prints of its progress; where it prints none, what it reported."""
        if self._state.attempt != self._number:
            self._number = self._state.attempt
            self._progress = Progress(step=self._state.resumed_step)
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
