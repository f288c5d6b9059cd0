"""Memory of a tree where the kernel keeps no count of it: real processes, really shared pages."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from supervisor.core.events import LimitExceeded
from supervisor.core.evidence import Breach, Limit
from supervisor.runner import memory_watch
from supervisor.runner.memory_watch import MemoryWatch, used_bytes
from tests.unit.runner_fakes import FakeLoop

MIB = 1 << 20
# As a data loader does: the parent loads, the children read the same pages.
LOADER = """
import os, signal, sys
data = bytearray(200 << 20)
data[::4096] = b"x" * len(data[::4096])
pids = [os.getpid()]
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        signal.pause()
    pids.append(pid)
print(*pids, flush=True)
sys.stdin.read()
for pid in pids[1:]:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""


@pytest.fixture
def loader() -> Iterator[list[int]]:
    """Four processes that share 200 MiB."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-ISc", LOADER], stdin=pipe, stdout=pipe, text=True)
    assert process.stdout is not None
    yield [int(word) for word in process.stdout.readline().split()]
    process.communicate()


def test_shared_pages_count_once(loader: list[int]) -> None:
    """Forked readers of 200 MiB are no breach of 300 MiB, although each of them shows 200."""
    resident = sum(psutil.Process(pid).memory_info().rss for pid in loader)
    assert resident > 600 * MIB
    assert 200 * MIB < used_bytes(loader, 300 * MIB) < 300 * MIB


def test_what_is_really_used_is_found(loader: list[int]) -> None:
    """Below the limit the cheap figure does; above it the exact one tells of a breach."""
    assert used_bytes(loader, 150 * MIB) > 150 * MIB
    assert used_bytes(loader, 2000 * MIB) > 600 * MIB


def test_one_that_has_gone_counts_nothing() -> None:
    """Between the look at the tree and the look at its memory it may have ended."""
    nobody = 1 << 22
    assert used_bytes([nobody], MIB) == 0
    assert memory_watch._proportional_bytes(nobody) == 0


def watch(limit_bytes: int, pids: Callable[[], Any]) -> tuple[FakeLoop, MemoryWatch]:
    """A watch of the first attempt."""
    loop = FakeLoop()
    return loop, MemoryWatch(loop, 1, pids, limit_bytes)


def test_a_breach_is_told_once_with_its_figures(loader: list[int]) -> None:
    """The worker is killed for it: there is nothing to look at after that."""
    loop, one = watch(100 * MIB, lambda: loader)
    asyncio.run(asyncio.wait_for(one.run(), 20))
    (told,) = loop.fed
    assert isinstance(told, LimitExceeded)
    assert told.number == 1
    assert told.breach == Breach(Limit.MEMORY, told.breach.used_bytes, 100 * MIB)
    assert told.breach.used_bytes > 200 * MIB


def test_it_looks_until_there_is_a_breach(
    loader: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look is at the tree as it is by then."""
    monkeypatch.setattr(memory_watch, "LOOK_S", 0)
    trees = iter([[], loader[:1], loader])
    loop, one = watch(202 * MIB, lambda: next(trees))
    asyncio.run(asyncio.wait_for(one.run(), 20))
    assert [type(event) for event in loop.fed] == [LimitExceeded]
    assert list(trees) == []
