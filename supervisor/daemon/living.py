"""Whether a job has a runner: by what its shelf says, and by what this host's processes say.

Changes nothing, and asks no shelf itself. A shelf is its user's, and may say anything or nothing.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from supervisor.host import identity, processes


def alive_pid(found: Mapping[str, Any]) -> int | None:
    """The process that has the job, from what its shelf says of its runner; None if there is none.

    Who holds the lock has the job, whatever the journal says. Where nobody is seen to hold it (its
    file was deleted, or the kernel may not tell) the process that the journal names has it, if it
    lives: one of that pid which began when it says, in this boot.
    """
    holder: int | None = found["locked_by"]
    if holder:
        return holder
    pid, ticks = found["pid"], found["start_ticks"]
    same = pid is not None and found["boot_id"] == identity.boot_id()
    return int(pid) if same and identity.start_ticks(pid) == ticks else None


def may_run(uid: int) -> bool:
    """Whether a process of this user may be a runner: one of this program, and no clerk of ours."""
    for pid in processes.pids():
        with suppress(OSError):  # it is gone meanwhile
            folder = Path("/proc", str(pid))
            lines = (folder / "status").read_text(errors="replace").splitlines()
            said = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
            theirs = int(said["Uid"].split()[0]) == uid and int(said["PPid"]) != os.getpid()
            if theirs and b"supervis" in (folder / "cmdline").read_bytes():
                return True
    return False
