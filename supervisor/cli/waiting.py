"""Waiting for one job to end, through the daemon or beside its runner.

Owns both ways. The daemon is asked again when it was restarted meanwhile, for its jobs go on all
the while. Without one, the runner's process is waited for, and the journal tells how the job ended.
Invariant: a job has ended when nobody brings it on any more, whatever its state.
"""

import math
import os
import select
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from supervisor.cli.reach import Reach
from supervisor.client.answers import Waited
from supervisor.client.errors import DaemonGone, NoDaemon, Refused
from supervisor.client.index import Known
from supervisor.runner.exits import Exit

if TYPE_CHECKING:
    from supervisor.client.calls import Daemon
    from supervisor.journal import JobRecord

PATIENCE_S = 60.0  # with a daemon that is being restarted
KNOCK_S = 0.25
STOPPING = "stopping"  # a daemon that is about to end says so
GONE_LOOKS = 5  # a runner that takes a job over is named in the journal a moment later
GONE_LOOK_S = 0.2
_LONGEST_POLL_S = 86_400.0


class NobodyAnswers(click.ClickException):
    """The daemon that has the job does not answer; the message says what to do."""

    exit_code = Exit.HOLDING


def wait_for(reach: Reach, text: str | None, deadline: float) -> Waited:
    """Wait until a job has ended, or until `deadline` of the monotonic clock has passed.

    Where it has not `ended`, `exit_code` is None, or HOLDING if nobody is left to bring it on.

    Raises:
        NoSuchJob, Unserved, ClientError: as `Reach.act`.
        NobodyAnswers: the daemon is gone for a minute.
        JournalError: the journal cannot be read.
    """
    return reach.act(
        text,
        lambda daemon, job: _through(daemon, job, deadline),
        lambda job: _beside(job, deadline),
    )


def _through(daemon: "Daemon", job: str, deadline: float) -> Waited:
    while True:
        left_s = deadline - time.monotonic()
        waited = _asked(daemon, job, left_s)
        if waited.ended or left_s <= 0:
            return waited


def _asked(daemon: "Daemon", job: str, left_s: float) -> Waited:
    """Ask once; a daemon that is gone is given a while to come back.

    What a daemon that does not answer would have said is not known: the job may go on all the same.
    """
    began = time.monotonic()
    give_up_at = began + min(PATIENCE_S, max(left_s, 0.0))
    while True:
        try:
            return daemon.wait(job, left_s)
        except (DaemonGone, NoDaemon) as error:
            if time.monotonic() - began >= left_s:
                return Waited(job, "as far as is known", None, ended=False)
            if time.monotonic() >= give_up_at:
                raise NobodyAnswers(str(error)) from error
        except Refused as error:
            if error.kind != STOPPING or time.monotonic() >= give_up_at:
                raise
        time.sleep(KNOCK_S)


def _beside(job: Known, deadline: float) -> Waited:
    # All of it is needed only where no daemon has the job.
    from supervisor.core.causes import State  # noqa: PLC0415 - see above
    from supervisor.runner.alive import ATTENDED  # noqa: PLC0415 - see above
    from supervisor.runner.exits import exit_code  # noqa: PLC0415 - see above

    gone = 0
    while True:
        record = _record(job)
        pidfd = _runner(record, job.place)
        if pidfd is not None:
            gone = 0
            if not _exited(pidfd, deadline):
                return Waited(job.id, record.state, None, ended=False)
        elif record.state not in ATTENDED:
            code = exit_code(State(record.state), forced=False)
            return Waited(job.id, record.state, int(code), ended=True)
        elif gone < GONE_LOOKS:
            gone += 1
            time.sleep(GONE_LOOK_S)
        else:
            return _left_alone(record)


def _record(job: Known) -> "JobRecord":
    from supervisor.journal import Journal  # noqa: PLC0415 - only where no daemon has the job

    with closing(Journal.open(job.place)) as journal:
        record = journal.job(job.id)
    if record is None:
        raise click.ClickException(f"{job.id} was removed while it was waited for")
    return record


def _runner(record: "JobRecord", place: Path) -> int | None:
    """A pidfd of the job's runner, also of one that the journal does not name yet."""
    from supervisor.host import identity  # noqa: PLC0415 - only where no daemon has the job
    from supervisor.runner.alive import ATTENDED, open_runner  # noqa: PLC0415 - the same
    from supervisor.runner.home import JobFolder  # noqa: PLC0415 - the same

    pidfd = open_runner(record)
    if pidfd is not None or record.state not in ATTENDED:
        return pidfd
    lock = JobFolder.of(place, record.id).runner_lock
    for pid in identity.holders(lock):
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:  # gone meanwhile
            continue
        if pid in identity.holders(lock):  # still it, and no other process of that number
            return pidfd
        os.close(pidfd)
    return None


def _exited(pidfd: int, deadline: float) -> bool:
    """Wait for the process, and close the descriptor; False where the deadline passed first."""
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        while True:
            left_s = deadline - time.monotonic()
            asked_s = min(max(left_s, 0.0), _LONGEST_POLL_S)
            if poll.poll(math.ceil(asked_s * 1000)):
                return True
            if left_s <= 0:
                return False
    finally:
        os.close(pidfd)


def _left_alone(record: "JobRecord") -> Waited:
    words = f"{record.id} is {record.state}, and its runner is gone: nobody brings it on"
    click.echo(f"supervise: {words}. Go on with it: supervise retry {record.id}", err=True)
    return Waited(record.id, record.state, int(Exit.HOLDING), ended=False)
