"""How a runner is started, whoever starts it: the command, its output, its user.

Owns the command line of a detached runner. Starts nothing. Invariant: the file that takes a
runner's output is opened by a process that has the user's rights already, never by a root daemon:
a name in a user's folder may lead anywhere.
"""

import os
import sys
from collections.abc import Sequence

from supervisor.daemon.accounts import Account, Lookup, UnknownAccount, barred
from supervisor.daemon.contracts import Launch, LaunchFailed
from supervisor.runner.home import JobFolder

# -P: nothing is imported from the folder in which it happens to be started.
PYTHON = (sys.executable, "-P")

# The shell is replaced by the runner: the pid stays. Whatever is in the way of the file (a full
# disk, a link, a pipe that nobody reads), the runner starts all the same.
_KEEPING_OUTPUT = """
if [ ! -L "$0" ] && { [ ! -e "$0" ] || [ -f "$0" ]; } && true 2>/dev/null >>"$0"
then exec "$@" >>"$0" 2>&1
else exec "$@"
fi
"""


def runner_command(launch: Launch, python: Sequence[str] = PYTHON) -> list[str]:
    """Give the command that becomes the runner of a job, its output kept in the job's folder."""
    output = JobFolder.of(launch.shelf, launch.job_id).path / "runner.out"
    gpus = ["--gpus", ",".join(launch.gpus)] if launch.gpus else []
    stop = ["--stopped-by", launch.stopped_by] if launch.stopped_by else []
    options = ["--state-dir", str(launch.shelf), *gpus, *stop]
    runner = ["-m", "supervisor.runner", *options, launch.job_id]
    return ["/bin/sh", "-c", _KEEPING_OUTPUT, str(output), *python, *runner]


def somebody_else(uid: int, lookup: Lookup, interpreter: str) -> Account | None:
    """Give whom a root daemon must become for a job; None where it is the daemon's own user.

    Raises:
        LaunchFailed: this daemon may not act for them, or they could not run the program.
    """
    if uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise LaunchFailed(
            f"this daemon runs as uid {os.geteuid()} and cannot start a job of uid {uid}"
        )
    try:
        account = lookup(uid)
    except UnknownAccount as error:
        raise LaunchFailed(str(error)) from error
    if reason := barred(account, interpreter):
        raise LaunchFailed(reason)
    return account
