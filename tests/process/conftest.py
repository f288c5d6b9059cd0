"""What tests with real children need: an event to wait for, and the proof that nothing was left."""

import asyncio
import os
import select
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

DEADLINE_S = 20.0


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
    lists = (path.read_text() for path in Path("/proc/self/task").glob("*/children"))
    return {int(pid) for text in lists for pid in text.split()}


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
