"""Ends a job that no runner has: stopped, or cancelled for good.

Owns appending that, under the job's runner lock. Invariant: an attempt is never ended by writing
so; where a runner died in the middle of one, another runner sees it out, asked to stop beforehand.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from supervisor.core.causes import State
from supervisor.core.events import GpusSetAside, JobCancelled, StopRequested
from supervisor.gpu.lease_files import Owner
from supervisor.gpu.leases import Leases
from supervisor.gpu.shared_folder import LeaseFolderUnusable, lease_folder
from supervisor.host import identity
from supervisor.journal import JobRecord, Journal
from supervisor.runner.control import NotHeard
from supervisor.runner.held import held
from supervisor.runner.home import JobFolder
from supervisor.runner.opening import AlreadyDone, append_fact, replayed

WIND_UP_S = 90.0  # longer than a runner waits for processes that do not end
_ATTEMPTING = frozenset({State.RUNNING, State.STOPPING})
_WAITING = frozenset({State.QUEUED, State.BACKING_OFF, State.HOLDING})


def cancelled(journal: Journal, state_dir: Path, job_id: str, source: str) -> None:
    """See `control.conclude_cancel`."""
    with _without_attempt(journal, state_dir, job_id, source) as record:
        if record.state == State.SUCCEEDED:
            raise AlreadyDone(record)
        if record.state != State.CANCELLED:
            append_fact(journal, job_id, JobCancelled(source))
        if record.boot_id == identity.boot_id():  # else the host's restart has reset its GPUs
            for uuid, reason in replayed(journal, job_id).spoilt:
                _set_aside(journal, state_dir, job_id, (uuid, reason))


def stopped(journal: Journal, state_dir: Path, job_id: str, source: str) -> None:
    """See `control.conclude_stop`."""
    with _without_attempt(journal, state_dir, job_id, source) as record:
        if record.state in _WAITING:
            append_fact(journal, job_id, StopRequested(source))


@contextmanager
def _without_attempt(
    journal: Journal, state_dir: Path, job_id: str, source: str
) -> Iterator[JobRecord]:
    """The job in our hands, with no attempt that is not ended."""
    folder = JobFolder.of(state_dir, job_id)
    if _known(journal, job_id).state in _ATTEMPTING:
        with held(folder):
            pass  # raises where a runner has it
        _wind_up(state_dir, job_id, source)
    with held(folder):
        record = _known(journal, job_id)
        if record.state in _ATTEMPTING:
            raise NotHeard(f"{job_id}: its last attempt could not be seen out. Try again.")
        yield record


def _known(journal: Journal, job_id: str) -> JobRecord:
    record = journal.job(job_id)
    if record is None:
        raise KeyError(job_id)
    return record


def _wind_up(state_dir: Path, job_id: str, source: str) -> None:
    """Have a runner of its own see an attempt out whose runner died."""
    command = [sys.executable, "-m", "supervisor.runner", "--state-dir", str(state_dir)]
    try:
        done = subprocess.run(
            [*command, "--stopped-by", source, job_id],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=WIND_UP_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NotHeard(
            f"{job_id}: its last attempt could not be seen out within {WIND_UP_S:.0f} s; see "
            f"`supervise logs --runner {job_id}`"
        ) from error
    if done.stderr:  # whatever is wrong: the job's state tells whether it mattered
        sys.stderr.write(done.stderr)


def _set_aside(journal: Journal, state_dir: Path, job_id: str, spoilt: tuple[str, str]) -> None:
    """Keep others from a GPU that the job's last attempt has spoilt, as JobCancelled asks for.

    No runner will come to do it; whoever was killed before it was done may cancel again.

    Where that cannot be written the job is cancelled all the same: whoever leases that GPU next
    sees its trouble, too.
    """
    pid, boot = os.getpid(), identity.boot_id()
    owner = Owner(job_id, str(state_dir), pid, identity.start_ticks(pid) or 0, boot)
    with suppress(OSError, LeaseFolderUnusable):
        Leases(lease_folder()).set_aside(*spoilt, owner)
        append_fact(journal, job_id, GpusSetAside(spoilt[:1]))
