"""`supervise attach`: the view of `supervise run`, of a job that another runner brings home.

Owns the verb and its three parts: what a job in the queue waits for, the view, the farewell. It
reads the journal and asks the daemon; it asks the runner nothing and changes nothing. Invariant:
however it is left, the job goes on and the terminal is as it was.
"""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import click

from supervisor.cli.farewell import farewell
from supervisor.cli.jobs import job_argument
from supervisor.cli.remote import Far, job_of_anyone
from supervisor.cli.remote_queue import Served
from supervisor.cli.titles import title
from supervisor.core.causes import State
from supervisor.journal import JobRecord, Journal
from supervisor.runner.alive import runner_lives
from supervisor.runner.exits import Exit, exit_code
from supervisor.spec.frozen import thaw
from supervisor.spec.job import JobSpec
from supervisor.views import frozen
from supervisor.views.chosen import Chosen

LOOK_S = 0.25  # at the journal and the output
CALM_LOOK_S = 0.5  # at the journal, while nothing is expected to move
GONE_LOOKS = 8  # a runner that takes a job over is named in the journal a moment later

Tell = Callable[[str], None]


@click.command("attach")
@job_argument
@click.option("--plain", is_flag=True, help="Plain lines, also on a terminal.")
@click.pass_obj
def command(state_dir: Path, job: str | None, *, plain: bool) -> None:
    """Watch a job as `supervise run` shows it, until it ends; then leave with its exit code.

    While it waits in the queue, what it waits for is told. Ctrl-C leaves the view (exit code 130);
    the job goes on.
    """
    with job_of_anyone(state_dir, job) as chosen:
        _refuse_far(chosen)
        attached = Attached(chosen, Served(state_dir, chosen.record.id), plain=plain)
        try:
            with _left_by_signals():
                code = attached.until_ended()
        except KeyboardInterrupt:
            stop = frozen.verb(state_dir, "stop", chosen.record.id)
            told = f"left the view; {chosen.record.id} goes on. To stop it: {stop}"
            click.echo(f"\n{told}", err=True)
            code = Exit.INTERRUPTED
    raise click.exceptions.Exit(code)


def _refuse_far(chosen: Chosen) -> None:
    if isinstance(chosen, Far):
        job = chosen.record.id
        raise click.UsageError(
            f"{job} is a job of {chosen.user}; the view is for one's own. "
            f"Instead: supervise show {job}; for admins also: supervise logs -f {job}"
        )


@contextmanager
def _left_by_signals() -> Iterator[None]:
    """Whoever asks us to end gets the terminal back first, as with Ctrl-C."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@dataclass(frozen=True, slots=True)
class _How:
    """How it ended."""

    state: State
    why: str


@dataclass(frozen=True, slots=True)
class _Ended:
    """What the farewell reads of a job."""

    id: str
    record: JobRecord
    spec: JobSpec
    journal: Journal
    state_dir: Path


class Attached:
    """One job, from the queue to its end."""

    def __init__(self, chosen: Chosen, served: Served, *, plain: bool) -> None:
        self._chosen = chosen
        self._served = served
        self._plain = plain
        self._submitted = chosen.submitted
        self._spec = thaw(chosen.record.spec)
        self._told = ""

    def until_ended(self) -> int:
        """Show it until it is over, then say how it ended; the exit code.

        Raises:
            KeyboardInterrupt: a person, or a signal, asked us to leave.
            click.ClickException: the job was removed.
        """
        over = self._over(self._record()) or self._until_begun() or self._in_view()
        if over is not None:
            return self._farewell(over)
        record = self._record()
        words = f"{record.id} is {record.state}, and its runner is gone: nobody brings it on"
        click.echo(f"supervise: {words}. Go on with it: {self._again(record)}", err=True)
        return Exit.HOLDING

    def _over(self, record: JobRecord) -> JobRecord | None:
        """The job as it ended; None while it goes on."""
        if runner_lives(record):
            self._served.has_runner()
            return None
        return self._served.over(record, submitted=self._submitted)

    def _until_begun(self) -> JobRecord | None:
        """Tell what the job waits for until it has a runner: None, or is over."""
        if not self._submitted:
            return None
        with _waiting(self._spec.name, plain=self._plain) as tell:
            while not runner_lives(record := self._record()):
                if over := self._over(record):
                    return over
                self._tell_waits(record, tell)
                time.sleep(CALM_LOOK_S)
        self._told = ""
        return None

    def _in_view(self) -> JobRecord | None:
        """Show the view of `run` until the job is over; None where its runner is gone for good."""
        # How an ended job ended, and what a waiting one waits for, is told without these.
        from supervisor.cli.run import view_of  # noqa: PLC0415 - see above
        from supervisor.cli.watched import Watched  # noqa: PLC0415 - see above

        gone = 0
        journal, job_id = self._chosen.journal, self._chosen.record.id
        attempts = journal.attempts(job_id)
        if attempts:
            click.echo(title(attempts[-1]))
        with view_of(self._spec, journal.ledger(job_id), plain=self._plain) as view:
            watched = Watched(self._chosen, self._spec, view)
            while True:
                # The state is read before the output: what a finished job wrote is complete.
                record = self._record()
                over = self._over(record)
                watched.look()
                if over is not None:
                    return over
                gone = 0 if runner_lives(record) else gone + 1
                if not gone:
                    self._told = ""
                elif gone >= GONE_LOOKS and self._submitted:
                    self._tell_waits(record, view.warned)
                elif gone >= GONE_LOOKS:
                    return None
                time.sleep(LOOK_S)

    def _tell_waits(self, record: JobRecord, tell: Tell) -> None:
        """Say what a job without a runner waits for, when that is news."""
        words = self._served.waits(began=record.runner_pid is not None)
        if words != self._told:
            self._told = words
            tell(words)

    def _record(self) -> JobRecord:
        record = self._chosen.journal.job(self._chosen.record.id)
        if record is None:
            raise click.ClickException(f"{self._chosen.record.id} was removed")
        return record

    def _farewell(self, record: JobRecord) -> int:
        spec = thaw(record.spec)  # `run --continue` may have changed it meanwhile
        job = _Ended(record.id, record, spec, self._chosen.journal, self._chosen.state_dir)
        state = State(record.state)
        click.echo(farewell(job, _How(state, record.why), again=f"type {self._again(record)}"))
        return exit_code(state, forced=False)

    def _again(self, record: JobRecord) -> str:
        """The command that brings the job on."""
        if self._submitted:
            how = "retry" if record.state == State.FAILED else "resume"
            return frozen.verb(self._chosen.state_dir, how, record.id)
        chosen = replace(self._chosen, record=record)
        return frozen.again(record, chosen.state_dir, here=chosen.here)


@contextmanager
def _waiting(name: str, *, plain: bool) -> Iterator[Tell]:
    """Tells what a job waits for: on a terminal, on one line that goes again; elsewhere, lines."""
    if plain or not sys.stdout.isatty():
        yield lambda words: click.echo(f"{time.strftime('%H:%M:%S')} {name}: {words}")
        return
    from rich.console import Console  # noqa: PLC0415 - slow to load, and only for a terminal
    from rich.live import Live  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    console, since = Console(highlight=False), time.strftime("%H:%M:%S")

    def tell(words: str) -> None:
        line = Text("  ").join(
            [Text(name, "bold"), Text(f"waiting since {since}", "dim"), Text(words, "yellow")]
        )
        # A terminal's `^C` is echoed behind it, and must not wrap.
        line.truncate(max(1, console.width - 3), overflow="ellipsis")
        line.no_wrap = True
        live.update(line, refresh=True)

    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield tell
