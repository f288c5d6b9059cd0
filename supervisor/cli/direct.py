"""Jobs that no daemon has: stopped, killed, cancelled and removed by their own runner's means.

Owns the answers in words; how a runner is told is `supervisor.runner.control`'s. Invariant: a job
that is stopping already is not signalled again by `stop`, because a second signal kills.
"""

import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from supervisor.cli.naming import NoSuchJob
from supervisor.client.index import Known
from supervisor.core.causes import State
from supervisor.journal import JobRecord, Journal
from supervisor.runner import control
from supervisor.runner import remove as removal
from supervisor.runner.alive import ATTENDED, open_runner, runner_lives
from supervisor.runner.exits import Exit
from supervisor.runner.locks import AlreadyRunning
from supervisor.runner.opening import AlreadyDone

HEARD_S = 3.0
LEAVING_S = 5.0  # what a runner needs at most, after its job has ended
LOOK_AGAIN_S = 0.02
_STOPPABLE = ATTENDED | {State.HOLDING}  # one that waits for room on the disk still has its runner
SOURCE = "supervise cancel"


class NotDone(click.ClickException):
    """It was not done to this job; the message says why and what to do."""

    exit_code = Exit.USAGE


def stop(job: Known) -> str:
    """Ask its runner to stop it; what was done, in words. Raises NotDone."""
    with _opened(job) as (journal, record):
        if record.state not in _STOPPABLE:
            return already(record.id, record.state)
        if record.state == State.STOPPING and runner_lives(record):
            return f"{record.id} is being stopped already"
        if not _stopped(journal, record):
            return _nobody(record)
        return f"{record.id} is being stopped"


def kill(job: Known) -> str:
    """Have its runner kill the worker; what was done, in words. Raises NotDone."""
    with _opened(job) as (journal, record):
        if record.state not in _STOPPABLE:
            return already(record.id, record.state)
        try:
            done = control.kill(journal, record)
        except (control.NotHeard, PermissionError) as error:
            raise _not_done(error) from error
        return f"{record.id} is killed" if done else _nobody(record)


def cancel(job: Known) -> str:
    """End it for good, once it has stopped; what was done, in words. Raises NotDone."""
    with _opened(job) as (journal, record):
        if record.state in {State.SUCCEEDED, State.CANCELLED}:
            return already(record.id, record.state)
        if record.state in _STOPPABLE:
            _see_out(journal, record)
        try:
            _concluded(journal, job, record)
        except AlreadyDone:
            return f"{record.id} has succeeded before it could be stopped"
        except AlreadyRunning as error:
            raise NotDone(f"{record.id}: {error}. Cancel it again") from error
        except control.NotHeard as error:
            raise _not_done(error) from error
        return f"{record.id} is cancelled"


def remove(job: Known) -> str:
    """Delete it with its logs and copies; what was done, in words. Raises NotDone."""
    with _opened(job) as (journal, record):
        if record.state in ATTENDED or (record.state in _STOPPABLE and runner_lives(record)):
            raise NotDone(
                f"{record.id} has not ended: cancel it first: supervise cancel {record.id}"
            )
        try:
            removal.remove(job.place, journal, record.id)
        except (AlreadyRunning, removal.NotRemoved) as error:
            raise NotDone(f"{record.id}: {error}") from error
        return f"{record.id} is removed"


def is_running(job: Known) -> bool:
    """Whether a runner has it."""
    with _opened(job) as (_, record):
        return record.state in ATTENDED and runner_lives(record)


def already(job_id: str, state: str) -> str:
    """That a job has ended, in words."""
    passive = {State.STOPPED: "been stopped", State.CANCELLED: "been cancelled"}
    held = f"{job_id} is holding: it needs a person, see supervise explain {job_id}"
    ended = f"{job_id} has already {passive.get(State(state), state)}"
    return held if state == State.HOLDING else ended


@contextmanager
def _opened(job: Known) -> Iterator[tuple[Journal, JobRecord]]:
    journal = Journal.open(job.place)
    try:
        record = journal.job(job.id)
        if record is None:
            raise NoSuchJob(f"{job.id} was removed a moment ago")
        yield journal, record
    finally:
        journal.close()


def _stopped(journal: Journal, record: JobRecord) -> bool:
    """Ask the runner to stop, and see that it has heard; False if there is none."""
    try:
        if not control.stop(record):
            return False
    except PermissionError as error:
        raise _not_done(error) from error
    # Until the journal has it, whoever asks once more would not know that this is the second time.
    give_up_at = time.monotonic() + HEARD_S
    while time.monotonic() < give_up_at:
        now = journal.job(record.id)
        if now is None or now.state not in ATTENDED or now.state == State.STOPPING:
            break
        time.sleep(LOOK_AGAIN_S)
    return True


def _see_out(journal: Journal, record: JobRecord) -> None:
    """Have the runner stop the job, if it has one, and wait until it has left."""
    pidfd = open_runner(record)
    if pidfd is None:
        return
    try:
        if record.state != State.STOPPING:
            _stopped(journal, record)
        click.echo(f"{record.id} is being stopped, and is cancelled then", err=True)
        select.select([pidfd], [], [])
    finally:
        os.close(pidfd)


def _concluded(journal: Journal, job: Known, record: JobRecord) -> None:
    """Write it down, once a runner that is leaving has left."""
    try:
        control.conclude_cancel(journal, job.place, record.id, SOURCE)
    except AlreadyRunning:
        pidfd = open_runner(record)
        if pidfd is not None:
            select.select([pidfd], [], [], LEAVING_S)
            os.close(pidfd)
        control.conclude_cancel(journal, job.place, record.id, SOURCE)


def _nobody(record: JobRecord) -> str:
    if record.state not in ATTENDED:
        return already(record.id, record.state)
    return (
        f"{record.id} has no runner that could stop it: that is gone, and its worker with it. "
        f"To end the job for good: supervise cancel {record.id}"
    )


def _not_done(error: Exception) -> NotDone:
    return NotDone(str(getattr(error, "strerror", None) or error))
