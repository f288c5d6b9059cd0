"""Takes the daemon's service away again, with or without what jobs left.

Owns the order of the steps; each is told in words as it is done. Invariant: nothing ends a job or
removes what jobs wrote, but for `purge`, which removes nothing while a job runs.
"""

import os
import select
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from supervisor.daemon.systemctl import Systemd
from supervisor.daemon.units import SERVICE, SLICE, SOCKET, TARGET, Layout, Refused
from supervisor.host import flock

RUNTIME = Path("/run")
LEAVING_S = 20.0
LOCKS = ("jobs/*/runner.lock", "users/*/jobs/*/runner.lock")


def uninstall(layout: Layout, *, dry: bool = False) -> Iterator[str]:
    """Take the units away. Running jobs go on, and all that jobs wrote stays.

    Raises:
        Refused: it cannot be done.
        OSError: a file cannot be removed.
    """
    systemd = Systemd(layout.user)
    ours = layout.ours()
    if not ours:
        yield f"nothing of supervise is installed in {layout.units}"
        return
    if not dry:
        systemd.refuse_without()
        systemd.do("disable", *[one.name for one in ours if one.name in {SERVICE, SOCKET}])
        yield from _leave(layout, systemd)
    for file in ours:
        file.unlink(missing_ok=True)
        yield f"removed {file}"
    if not dry:
        systemd.do("daemon-reload")
        with suppress(Refused):  # a unit that did not fail
            systemd.do("reset-failed", SERVICE)


def _leave(layout: Layout, systemd: Systemd) -> Iterator[str]:
    """End the daemon alone: a stop by systemd would stop its jobs."""
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}"))
    runtime = runtime if layout.user else RUNTIME
    folder = runtime / "systemd" / ("user" if layout.user else "system") / f"{SERVICE}.d"
    drop_in = folder / "leaving.conf"
    pid = int(systemd.ask("show", SERVICE, "--property=MainPID", "--value") or 0)
    if pid:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            drop_in.write_text("[Service]\nRestart=no\n", encoding="utf-8")
            systemd.do("daemon-reload")
            _end(pid)
        finally:
            drop_in.unlink(missing_ok=True)
            with suppress(OSError):
                folder.rmdir()
        yield "the daemon has ended; its jobs go on without it"
    elif systemd.is_active(SERVICE):  # between two attempts to start
        systemd.do("stop", SERVICE)
    systemd.do("stop", *([] if layout.user else [SOCKET]), TARGET)


def _end(pid: int) -> None:
    """SIGTERM, and SIGKILL where that is not enough. A runner shares neither."""
    with suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            for number in (signal.SIGTERM, signal.SIGKILL):
                signal.pidfd_send_signal(pidfd, number)
                if select.select([pidfd], [], [], LEAVING_S)[0]:
                    return
        finally:
            os.close(pidfd)


def purge(layout: Layout, *, dry: bool = False) -> Iterator[str]:
    """Stop the daemon and all its jobs, and remove what they wrote into the state folder.

    Raises:
        Refused: they cannot be stopped, or a job runs that the daemon does not have.
        OSError: the folder cannot be removed.
    """
    if not dry:
        systemd = Systemd(layout.user)
        systemd.refuse_without()
        units = [SERVICE] if layout.user else [SOCKET, SERVICE]
        loaded = [one for one in units if systemd.is_active(one)]
        if loaded:
            systemd.do("stop", *loaded)
            yield "the daemon and its jobs were stopped"
        if systemd.is_active(SLICE):
            systemd.do("stop", SLICE)
    if layout.state_dir.is_dir():
        _refuse_running(layout.state_dir)
        shutil.rmtree(layout.state_dir)
        yield f"removed {layout.state_dir}"


def _refuse_running(state_dir: Path) -> None:
    for lock in (one for pattern in LOCKS for one in state_dir.glob(pattern)):
        pid = flock.holder(lock)
        if pid is not None:
            who = f"process {pid}" if pid != flock.UNKNOWN else "a process that cannot be seen here"
            raise Refused(
                f"{lock.parent.name} still runs ({who}), and not as a unit of systemd: nothing was "
                f"deleted. Stop it first: supervise stop {lock.parent.name}"
            )
