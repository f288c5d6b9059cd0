"""What tests with real children need: an event to wait for, and the proof that nothing was left."""

import asyncio
import importlib
import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DEADLINE_S = 20.0

# A module of the user's own, which a fresh interpreter can import.
VICTIMS = '''
import asyncio, atexit, os, signal, subprocess, sys, threading

class Odd(Exception):
    """Pickles, and does not unpickle."""
    def __init__(self, left, right):
        super().__init__(left + right)

class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no")

class Bomb:
    """Pickles here and fails to unpickle elsewhere."""
    def __reduce__(self):
        return exec, ("raise ValueError('boom')",)

def fails():
    raise KeyError("name")

def odd():
    raise Odd("a", "b")

def unprintable():
    raise Unprintable

def carries():
    error = ValueError("with a lock")
    error.lock = threading.Lock()
    raise error

def returns_lambda():
    return lambda: None

def returns_bomb():
    return Bomb()

def deaf(fd):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(fd, b"ready")
    while True:
        signal.pause()

def saves(fd):
    def save(*_):
        os.write(fd, b"saved")
        os._exit(0)
    signal.signal(signal.SIGTERM, save)
    os.write(fd, b"ready")
    while True:
        signal.pause()

def says_and_exits(code):
    print("on stdout")
    print("on stderr", file=sys.stderr)
    sys.exit(code)

def forks_on():
    """Both come back from here, the copy first."""
    copy = os.fork()
    if copy == 0:
        return "copy"
    os.waitpid(copy, 0)
    return "original"

def leaves_a_note(path):
    def write():
        threading.Event().wait(0.1)
        open(path, "w").close()
    atexit.register(write)

def leaves_a_grandchild(fd):
    """The grandchild inherits every descriptor and outlives the function."""
    process = subprocess.Popen(["sleep", "1000"], close_fds=False)
    for name in os.listdir("/proc/self/fd"):
        try:
            os.set_inheritable(int(name), True)
        except OSError:
            pass
    if os.fork() == 0:
        signal.pause()
    os.write(fd, b"%d" % process.pid)
    return "done"

def dies_while_sending():
    class Trap:
        def __reduce__(self):
            os.kill(os.getpid(), signal.SIGKILL)
    return [b"x" * 1_000_000, Trap()]

def closes_everything():
    os.closerange(3, 4096)
    return 1

def nests():
    from supervisor.process import isolated_process
    with isolated_process(os._exit, 5, timeout=20) as child:
        return child.result()

def runs_a_loop():
    async def main():
        await asyncio.sleep(0)
        return "looped"
    return asyncio.run(main())

def dispositions():
    fields = dict(line.split(":") for line in open("/proc/self/status"))
    return fields["SigBlk"].strip(), os.getsid(0) == os.getpid(), os.read(0, 1)
'''


class Pipe:
    """A pipe whose write end a child inherits: what it writes, or its end, is the event."""

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()

    def hang_up(self) -> None:
        """Close our copy of the write end, so that the children's are the last."""
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1

    def read(self) -> str:
        """Return what was written, waiting for it; empty when every writer is gone."""
        poll = select.poll()
        poll.register(self.read_fd, select.POLLIN)
        assert poll.poll(DEADLINE_S * 1000), "nothing was written before the deadline"
        return os.read(self.read_fd, 65536).decode()

    async def heard(self) -> str:
        """Return what was written, without blocking the loop."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self.read_fd, ready.set)
        try:
            async with asyncio.timeout(DEADLINE_S):
                await ready.wait()
        finally:
            loop.remove_reader(self.read_fd)
        return os.read(self.read_fd, 65536).decode()

    def close(self) -> None:
        """Close both ends."""
        self.hang_up()
        os.close(self.read_fd)


def wait_gone(pid: int) -> bool:
    """Wait until a process, of anybody's, has ended; return False at the deadline."""
    with suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            return bool(poll.poll(DEADLINE_S * 1000))
        finally:
            os.close(fd)
    return True


def children() -> set[int]:
    """Return the pids of all children of this process, zombies included."""
    found: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            found.update(map(int, path.read_text().split()))
    return found


def descriptors() -> set[int]:
    """Return the open descriptors of this process; the one it takes to look is among them."""
    return {int(entry.name) for entry in Path("/proc/self/fd").iterdir()}


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Give a pipe for a child to write to."""
    made = Pipe()
    yield made
    made.close()


@pytest.fixture
def gone() -> Callable[[int], bool]:
    """Give the wait for the end of somebody else's process."""
    return wait_gone


@pytest.fixture
def unleaked() -> Iterator[None]:
    """Fail a test that leaves a descriptor or a child, zombie or not."""
    fds = descriptors()
    before = children()
    yield
    assert descriptors() == fds
    assert children() == before


@pytest.fixture
def victims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the module, importable here and in children that inherit sys.path."""
    (tmp_path / "victims.py").write_text(VICTIMS)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("victims", None)
    return importlib.import_module("victims")


@pytest.fixture(params=["spawn", "fork"])
def start(request: pytest.FixtureRequest) -> Any:
    """Return each way of starting."""
    return request.param
