"""A program in a session of its own, until it ends or until its time is over.

Owns the end of whatever runs in that session: nobody of it lives when a block ends, and nobody
else is touched. The leader is not waited for before that, so that its number stays its own.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

LOOK_EVERY_S = 0.02
NOT_YET = os.WEXITED | os.WNOHANG | os.WNOWAIT  # look, do not reap


@contextmanager
def session(
    command: Sequence[str],
    output: IO[bytes] | int,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[int]:
    """Run the command in a session of its own; the number of the session, which is its pid."""
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    try:
        yield process.pid
    finally:
        while left := members(process.pid):
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(LOOK_EVERY_S)
        process.wait()


def ended(leader: int) -> bool:
    """Whether the leader of a session that we started has ended; it is not reaped."""
    return os.waitid(os.P_PID, leader, NOT_YET) is not None


def wait_for(leader: int, limit_s: float) -> bool:
    """Wait until the leader of a session that we started has ended, at most so long; whether."""
    deadline = time.monotonic() + limit_s
    while not (over := ended(leader)) and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY_S)
    return over


def members(leader: int) -> list[int]:
    """Pids of the living processes of a session."""
    return [pid for pid in psutil.pids() if _session(pid) == leader and _lives(pid)]


def rss_bytes(pid: int) -> int:
    """Resident memory; 0 when it has ended."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def below(pid: int) -> list[psutil.Process]:
    """Everybody below this process, as long as the tree holds; nobody when it has ended."""
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.Error:
        return []


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0


def _lives(pid: int) -> bool:
    try:
        return str(psutil.Process(pid).status()) not in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
    except psutil.Error:
        return False
