"""What tests with real children need: an event to wait for, and the proof that nothing was left."""

import asyncio
import importlib
import os
import select
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from supervisor.host.cgroup import Leaf, survey

DEADLINE_S = 20.0
FUGITIVES = Path(__file__).parents[2] / "benchmarks" / "fugitives.py"

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


class Fugitives:
    """A worker whose children flee, as `benchmarks/fugitives.py` says, and who they are."""

    def __init__(self, *kinds: str) -> None:
        self.pipe = Pipe()
        self.argv = [sys.executable, "-IS", str(FUGITIVES), str(self.pipe.write_fd), *kinds]
        self.count = len(kinds) + kinds.count("traced")  # the tracer is one, too
        self._text = ""

    async def heard(self) -> None:
        """Wait until all have told who they are."""
        while self._text.count("\n") <= self.count:
            self._text += await self.pipe.heard()

    def read(self) -> None:
        """Do the same, blocking."""
        while self._text.count("\n") <= self.count:
            self._text += self.pipe.read()

    def alive(self) -> list[int]:
        """Return those who live: asked of the kernel, by none of the code under test."""
        lines = [line for line in self._text.splitlines() if line != "ready"]
        assert len(lines) == self.count
        return [pid for pid, start in (map(int, line.split()) for line in lines) if _is(pid, start)]

    def groups(self) -> list[int]:
        """Return the groups led by one of them that still have anybody in them, dead or alive."""
        pids = [int(line.split()[0]) for line in self._text.splitlines() if line != "ready"]
        return [pid for pid in pids if _is_group(pid)]

    def end(self) -> None:
        """Kill whoever is left."""
        for group in self.groups():
            os.killpg(group, signal.SIGKILL)
        for pid in self.alive() if self._text else ():
            os.kill(pid, signal.SIGKILL)
        self.pipe.close()


def _is_group(group: int) -> bool:
    with suppress(ProcessLookupError):
        os.killpg(group, 0)
        return True
    return False


def _is(pid: int, start_ticks: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[19]) == start_ticks and fields[0] not in "ZX"
    return False


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
    """Fail a test that leaves a descriptor or a child, zombie or not.

    What an earlier test had left to others' threads, as torch's loaders do, may go meanwhile.
    """
    fds, before = descriptors(), children()
    yield
    assert descriptors() - fds == set()
    assert children() - before == set()


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


@pytest.fixture
def flee() -> Iterator[Callable[..., Fugitives]]:
    """Give the way to make a worker whose children flee; they are ended."""
    made: list[Fugitives] = []

    def make(*kinds: str) -> Fugitives:
        made.append(Fugitives(*kinds))
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.fixture
def leaf(eventually: Any) -> Iterator[Leaf]:
    """Give a cgroup of this test's own; skip where this user may make none."""
    offer = survey()
    if offer.kill is None:
        pytest.skip("no cgroup can be made and killed here: " + "; ".join(offer.reasons))
    made = Leaf.make(offer, f"supervise-test-{uuid.uuid4().hex[:8]}")
    yield made
    made.kill()
    eventually(made.remove)  # who has just died may hold it for a moment


@pytest.fixture(params=["sweep", "cgroup"])
def bounds(request: pytest.FixtureRequest) -> Leaf | None:
    """Return what holds a tree together: nothing, or a cgroup."""
    if request.param == "sweep":
        return None
    made: Leaf = request.getfixturevalue("leaf")
    return made
