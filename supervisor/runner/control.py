"""Asks a job's runner to stop or to kill its worker, and ends a job that nobody runs.

Owns the signals that a runner understands, seen from outside; needs no daemon. Decides nothing of
what a job does next. Invariant: a signal goes to a pidfd whose process was compared with what the
journal names (boot, pid, start time), never to a bare pid.
"""

import json
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from supervisor.core.causes import State
from supervisor.journal import JobRecord, Journal
from supervisor.runner.alive import open_runner

KILL_WAIT_S = 10.0
ASK_AGAIN_S = 1.0
LOOK_AGAIN_S = 0.02


class NotHeard(Exception):
    """A runner did not do what it was asked for; the message says why and what to do."""


def stop(record: JobRecord) -> bool:
    """Ask the runner to stop its job gracefully; False if there is no runner.

    A runner that hears a second signal kills its worker, so one that is stopping is left in peace:
    whoever asks again wants it to save all the same.

    Raises:
        PermissionError: it is another user's.
    """
    with _runner(record) as pidfd:
        if pidfd is None:
            return False
        return record.state == State.STOPPING or _asked(record, pidfd)


def kill(journal: Journal, record: JobRecord, wait_s: float = KILL_WAIT_S) -> bool:
    """Have the runner kill its worker and leave; False if there is no runner.

    A runner kills when it has heard two signals, and two in a row may arrive as one. So it is asked
    again when the journal shows that it has heard, which holds for a runner of any version. Waits
    until the kill was heard, not until it is done.

    Raises:
        PermissionError: it is another user's.
        NotHeard: it did not react within `wait_s` seconds.
        JournalError: the journal cannot be read.
    """
    with _runner(record) as pidfd:
        if pidfd is None:
            return False
        before = journal.last_seq(record.id)
        give_up_at = time.monotonic() + wait_s
        heard, ask_again_at = -1, give_up_at
        while not _has_ended(pidfd):
            stops = _stops_since(journal, record.id, before)
            if any(stops):
                break
            now = time.monotonic()
            if now > give_up_at:
                raise _not_heard(record)
            if len(stops) > heard or now > ask_again_at:
                heard, ask_again_at = len(stops), now + ASK_AGAIN_S
                _asked(record, pidfd)
            time.sleep(LOOK_AGAIN_S)
        return True


def conclude_cancel(journal: Journal, state_dir: Path, job_id: str, source: str) -> None:
    """End a job for good that no runner has; `source` says who wants it (`supervise cancel`).

    An attempt whose runner died is seen out first. A job that is cancelled already stays so.

    Raises:
        KeyError: there is no such job.
        AlreadyRunning: a runner has it; stop that first.
        AlreadyDone: it succeeded; there is nothing to cancel.
        NotHeard: what is left of its last attempt could not be seen out.
        JournalError: the state folder refuses.
    """
    # Asking a runner to stop is to be quick, and needs none of this.
    from supervisor.runner.concluding import cancelled  # noqa: PLC0415 - see above

    cancelled(journal, state_dir, job_id, source)


def conclude_stop(journal: Journal, state_dir: Path, job_id: str, source: str) -> None:
    """Stop a job that no runner has, so that the journal says so; it can be resumed.

    A job that has ended, or is stopped, stays as it is. Raises as `conclude_cancel`, but never
    AlreadyDone.
    """
    from supervisor.runner.concluding import stopped  # noqa: PLC0415 - as above

    stopped(journal, state_dir, job_id, source)


@contextmanager
def _runner(record: JobRecord) -> Iterator[int | None]:
    pidfd = open_runner(record)
    try:
        yield pidfd
    finally:
        if pidfd is not None:
            os.close(pidfd)


def _asked(record: JobRecord, pidfd: int) -> bool:
    """Send the one signal that every runner heeds; False if it is gone."""
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    except ProcessLookupError:
        return False
    except PermissionError as error:
        raise PermissionError(
            f"the runner of {record.id} (process {record.runner_pid}) is another user's: ask them, "
            "or root"
        ) from error
    return True


def _has_ended(pidfd: int) -> bool:
    ended, _, _ = select.select([pidfd], [], [], 0)
    return bool(ended)


def _stops_since(journal: Journal, job_id: str, after: int) -> list[bool]:
    """Each stop that was heard since then: whether it was by force."""
    events = journal.events(job_id, after)
    return [bool(json.loads(one.body)["forced"]) for one in events if one.kind == "StopRequested"]


def _not_heard(record: JobRecord) -> NotHeard:
    return NotHeard(
        f"the runner of {record.id} (process {record.runner_pid}) does not react: it is stopped or "
        f"starved. `kill -KILL {record.runner_pid}` ends it, and its worker with it."
    )
