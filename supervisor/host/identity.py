"""What tells one boot and one process of this host from another.

Owns who this boot is, when a process began, and who keeps an inherited lock. Kills nobody but the
holder of a lock it was told about. Invariant: a pid alone is never an identity: pids come back.
"""

import os
import signal
from contextlib import suppress
from pathlib import Path

from supervisor.host import processes

_PROC = Path("/proc")


def boot_id() -> str:
    """The kernel's id of this boot; it changes with every restart of the host."""
    return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is no such process."""
    try:
        return processes.stat(pid).start_ticks
    except OSError:
        return None


def oom_kills() -> int:
    """How many processes the kernel has killed for memory since boot (0 where it does not say)."""
    with suppress(OSError):
        for line in (_PROC / "vmstat").read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return 0


def holders(lock: Path) -> list[int]:
    """Live processes, other than this one, that have a file open: who keeps an inherited lock."""
    with suppress(OSError):
        wanted = lock.stat()
        mine = os.getpid()
        return [pid for pid in processes.pids() if pid != mine and _has_open(pid, wanted)]
    return []


def _has_open(pid: int, wanted: os.stat_result) -> bool:
    try:
        entries = list(os.scandir(_PROC / str(pid) / "fd"))
    except OSError:  # gone meanwhile, or another user's: then it cannot be of our tree
        return False
    for entry in entries:
        with suppress(OSError):
            if os.path.samestat(entry.stat(), wanted):
                return True
    return False


def kill_holder(pid: int, lock: Path) -> None:
    """SIGKILL a process, provided that it is still the one that holds the lock."""
    with suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            # The pidfd pins the process; only now is the look at its files about that very one.
            if _has_open(pid, lock.stat()):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)


def kill(process: processes.ProcessId) -> None:
    """SIGKILL this very process; nothing happens when it has ended or may not be signalled."""
    with suppress(OSError):
        pidfd = os.pidfd_open(process.pid)
        try:
            # Once pinned the pid cannot come back as somebody else's.
            if processes.still_living(process):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)
