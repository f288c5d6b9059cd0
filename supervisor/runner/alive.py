"""Whether the runner that the journal names is still the process that it was.

Owns that judgement, for everybody who reads: takes no lock, signals nobody, writes nothing.
Invariant: a pid counts only with the boot and the start time that the journal has beside it.
"""

import os
import select

from supervisor.core.causes import State
from supervisor.host import identity
from supervisor.host.processes import ProcessId
from supervisor.journal import JobRecord

# States in which a runner has work to do. In any other, none is expected to live.
ATTENDED = frozenset({State.QUEUED, State.RUNNING, State.BACKING_OFF, State.STOPPING})


def open_runner(record: JobRecord) -> int | None:
    """A pidfd of the runner that the journal names, for the caller to close; None if it is gone.

    The descriptor is there before the start time is compared, so it is of that very process.
    """
    if record.runner_pid is None or record.boot_id != identity.boot_id():
        return None
    try:
        pidfd = os.pidfd_open(record.runner_pid)
    except OSError:  # gone
        return None
    # Readable once it has exited, also while its parent has not reaped it.
    ended, _, _ = select.select([pidfd], [], [], 0)
    if ended or identity.start_ticks(record.runner_pid) != record.runner_ticks:
        os.close(pidfd)
        return None
    return pidfd


def runner_process(record: JobRecord) -> ProcessId | None:
    """The process that the journal names as the job's runner; None if it is gone."""
    pidfd = open_runner(record)
    if pidfd is None:
        return None
    os.close(pidfd)
    return ProcessId(record.runner_pid or 0, record.runner_ticks or 0)


def runner_lives(record: JobRecord) -> bool:
    """Whether the runner that the journal names is still the process that it was."""
    return runner_process(record) is not None


def runner_gone(record: JobRecord) -> bool:
    """Whether the job's state promises a runner that is no longer there."""
    return record.state in ATTENDED and not runner_lives(record)
