import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("unleaked")

PARENT = """
import asyncio, os, signal, sys
from supervisor.process import Command, isolated_child
fd = int(sys.argv[1])
async def main():
    argv = ["sh", "-c", sys.argv[2], str(fd)]
    command = Command(argv=argv, inherit_fds=[fd, *map(int, sys.argv[3:])])
    async with isolated_child(command) as child:
        print("started", child.pid, flush=True)
        try:
            await child.wait()
        finally:
            print("leaving", flush=True)
try:
    asyncio.run(main())
except KeyboardInterrupt:
    sys.exit(130)
"""
TELL_AND_SLEEP = "echo $$ >/dev/fd/$0; exec sleep 1000"


@contextmanager
def parent(*words: object, fds: tuple[int, ...]) -> Iterator["subprocess.Popen[str]"]:
    """Run a program that holds one isolated child."""
    argv = [sys.executable, "-c", PARENT, *map(str, words)]
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(argv, pass_fds=fds, start_new_session=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def test_the_child_dies_with_a_parent_that_was_killed(
    pipe: Any, gone: Callable[[int], bool]
) -> None:
    """SIGKILL to the parent ends the worker's main process, though nobody could clean up."""
    with parent(pipe.write_fd, TELL_AND_SLEEP, fds=(pipe.write_fd,)) as process:
        child = int(pipe.read())
        process.kill()
        assert gone(child)


def test_ctrl_c_in_the_parent(pipe: Any) -> None:
    """SIGINT to the parent's group unwinds the block once, and the child is gone with it."""
    with parent(pipe.write_fd, TELL_AND_SLEEP, fds=(pipe.write_fd,)) as process:
        child = int(pipe.read())
        assert process.stdout is not None
        assert process.stdout.readline() == f"started {child}\n"
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait() == 130
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)
        assert process.stdout.read() == "leaving\n"


def test_repeated_ctrl_c_in_the_parent(pipe: Any, gone: Callable[[int], bool]) -> None:
    """However often Ctrl-C strikes while the block is left, the child is gone afterwards."""
    deaf = "trap '' TERM INT; " + TELL_AND_SLEEP
    with parent(pipe.write_fd, deaf, fds=(pipe.write_fd,)) as process:
        child = int(pipe.read())
        assert process.stdout is not None
        assert process.stdout.readline() == f"started {child}\n"
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
    assert gone(child)


def test_an_inherited_lock_outlives_the_parent(
    tmp_path: Path, pipe: Any, gone: Callable[[int], bool]
) -> None:
    """A lock in inherit_fds is held until the worker's last process is gone, whatever died before.

    This is what keeps two attempts apart: the parent is killed, the main process dies with it, and
    a grandchild alone still proves by the lock that the worker is not over.
    """
    leaves_one = "sleep 1000 & echo $! >/dev/fd/$0; wait"
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with parent(pipe.write_fd, leaves_one, lock, fds=(pipe.write_fd, lock)) as process:
        grandchild = int(pipe.read())
        os.close(lock)
        assert process.stdout is not None
        child = int(process.stdout.readline().split()[1])
        process.kill()
        assert gone(child)
    lock = os.open(tmp_path / "lock", os.O_RDWR)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.kill(grandchild, signal.SIGKILL)
        assert gone(grandchild)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(lock)
