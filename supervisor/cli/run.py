"""`supervise run`: brings one job home, in the foreground.

Owns the verb: what is asked of a person, and the exit code. The running itself is
`supervisor.runner`'s.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import click

from supervisor.cli.farewell import farewell
from supervisor.cli.given import load_checked
from supervisor.cli.item_names import names_from
from supervisor.core.causes import State
from supervisor.journal import Journal
from supervisor.journal.items import Ledger
from supervisor.runner.exits import Exit, exit_code
from supervisor.runner.listener import Listener
from supervisor.runner.locks import AlreadyRunning
from supervisor.runner.opening import (
    AlreadyDone,
    CancelledForGood,
    Intent,
    OpenJob,
    SpecDiffers,
    open_job,
)
from supervisor.runner.outputs import FreshImpossible
from supervisor.runner.remove import NotRemoved
from supervisor.runner.run import run
from supervisor.spec.batch import batch_of
from supervisor.spec.job import JobSpec

ANEW = "To run it anew: supervise run JOB.YAML --fresh"
QUEUE = "queue.sqlite"  # a daemon serves this state folder, or has served it


@click.command("run", short_help="Run a job and bring it home.")
@click.argument("job_file", metavar="JOB.YAML", type=click.Path(path_type=Path))
@click.option("-p", "given", metavar="NAME=VALUE", multiple=True, help="Set a param of the job.")
@click.option(
    "--continue", "intent", flag_value=Intent.CONTINUE, help="Continue under a changed job.yaml."
)
@click.option(
    "--fresh",
    "intent",
    flag_value=Intent.FRESH,
    help="Start anew; old checkpoints are kept under another name.",
)
@click.option("--plain", is_flag=True, help="Plain lines, also on a terminal.")
@click.option("--keep-scratch", is_flag=True, help="Keep the scratch folder after success too.")
def command(
    job_file: Path,
    given: tuple[str, ...],
    intent: str | None,
    *,
    plain: bool,
    keep_scratch: bool,
) -> None:
    """Run the job in JOB.YAML until it is done, restarting it from verified checkpoints.

    The same command again continues a job that was stopped, or whose runner died. Ctrl-C stops it
    gracefully (exit code 75, resumable); Ctrl-C twice kills it.

    Exit codes: 0 done, 1 failed, 2 usage or bad job file, 3 holding (needs a person), 75 stopped
    and resumable, 130 interrupted twice.
    """
    state_dir: Path = click.get_current_context().obj
    spec = load_checked(job_file, given)
    if (state_dir / QUEUE).exists():
        _require_not_queued(state_dir, spec, fresh=intent == Intent.FRESH)
    journal = Journal.open(state_dir)
    wanted = Intent(intent) if intent else Intent.UNSAID
    try:
        opening = open_job(journal, state_dir, spec, wanted)
        bring_home(opening, spec.name, plain=plain, keep_scratch=keep_scratch)
    except SpecDiffers as error:
        lines = "\n".join(error.lines)
        refuse(
            f"{error}:\n{lines}\n"
            "Continue that job with these changes (--continue), or start anew (--fresh)?"
        )
    except FreshImpossible as error:
        refuse(str(error))


def bring_home(
    opening: AbstractContextManager[OpenJob], name: str, *, plain: bool, keep_scratch: bool = False
) -> None:
    """Run the job that is opened, in the foreground, and leave with the exit code of its end.

    One that is done, or that another runner has, is told and left alone.
    """
    try:
        with opening as job, view_of(job.spec, job.journal.ledger(job.id), plain=plain) as view:
            gc.freeze()  # the modules are here to stay: no collection need look at them again
            outcome = run(job, view, keep_scratch=keep_scratch)
            told = farewell(job, outcome)
    except AlreadyDone as done:
        click.echo(f"{done.record.id} has already succeeded. {ANEW}")
        return
    except AlreadyRunning as error:
        refuse(f"{error}. Watch it: supervise logs -f {name}")
    except CancelledForGood as error:
        refuse(f"{error}: nothing resumes it. {ANEW}")
    except NotRemoved as error:
        refuse(str(error))
    with suppress(OSError):  # nobody reads any more; the exit code still tells
        click.echo(told)
    raise click.exceptions.Exit(exit_code(outcome.state, forced=outcome.forced))


def _require_not_queued(state_dir: Path, spec: JobSpec, *, fresh: bool) -> None:
    """Leave a job to the daemon that it was submitted to.

    Also one that it may bring on again: what happens here it would never hear of.

    A queue that cannot be read keeps nobody from running a job; the job's own lock still does.
    """
    from supervisor.queue.model import Phase  # noqa: PLC0415 - only where a daemon was
    from supervisor.queue.store import Queue, QueueError  # noqa: PLC0415 - as above

    try:
        with closing(Queue.open(state_dir)) as queue:
            entries = queue.entries()
    except QueueError as error:
        click.echo(f"supervise: {error}", err=True)
        return
    mine = [one for one in entries if (one.name, one.folder) == (spec.name, str(spec.folder))]
    for one in mine:
        if one.phase is not Phase.ENDED:
            where = "running" if one.phase is Phase.STARTED else "waiting"
            refuse(
                f"{one.id} is in the daemon's queue ({where}): supervise attach {one.id}, or "
                f"supervise cancel {one.id}"
            )
    last = mine[-1] if mine and not fresh else None
    if last is not None and last.state not in {State.SUCCEEDED, State.CANCELLED}:
        refuse(
            f"{last.id} is the daemon's, which has not heard the last of it ({last.state}). Go on "
            f"with it there: supervise resume {last.id}; or start anew: --fresh"
        )


def refuse(message: str) -> NoReturn:
    """Leave with this message, and the exit code of a mistake in what was asked for."""
    click.echo(f"supervise: {message}", err=True)
    sys.exit(Exit.USAGE)


@contextmanager
def view_of(spec: JobSpec, ledger: Ledger, *, plain: bool) -> Iterator[Listener]:
    """A live view of a job on a terminal, plain lines elsewhere."""
    name, names = spec.name, names_from(ledger)
    is_batch = batch_of(spec) is not None
    if sys.stdout.isatty() and not plain:
        from supervisor.cli.live import LiveView  # noqa: PLC0415 - rich is slow to import
        from supervisor.cli.live_batch import LiveBatch  # noqa: PLC0415 - as above

        with LiveBatch(name, names) if is_batch else LiveView(name) as live:
            yield live
    else:
        from supervisor.cli.lines import LineView  # noqa: PLC0415 - the other half of the choice
        from supervisor.cli.lines_batch import LineBatch  # noqa: PLC0415 - as above

        yield LineBatch(name, names) if is_batch else LineView(name)
