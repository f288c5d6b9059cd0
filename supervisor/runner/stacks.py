"""Saves where a hung worker stood, before it is killed.

Owns the order of attempts: py-spy reads every process of the tree from outside; where it may not
(ptrace is restricted), SIGABRT makes Python's own faulthandler print the stacks to the worker's
log. All of it is bounded: evidence must not hold up the restart.
"""

import asyncio
import signal
import sys
from contextlib import suppress
from pathlib import Path

from supervisor.process import Child, Command, SpawnFailed, isolated_child

DUMP_S = 10.0  # for one process
DUMPS_S = 20.0  # for all of them: a GPU waits meanwhile
ABORT_S = 2.0
PROCESS_LIMIT = 16  # loader workers all look alike; the first ones tell the story


async def save_stacks(child: Child, target: Path) -> None:
    """Write the stack of every thread of the tree to `target`; falls back to SIGABRT."""
    taken = False
    with suppress(TimeoutError):
        async with asyncio.timeout(DUMPS_S):
            for pid in _tree(child.pid)[:PROCESS_LIMIT]:
                taken |= await _dump(pid, target)
    if not taken:
        child.signal(signal.SIGABRT)
        child.signal(signal.SIGCONT)  # a stopped process acts on it only when it goes on
        with suppress(TimeoutError):
            async with asyncio.timeout(ABORT_S):
                await child.wait()


def _tree(pid: int) -> list[int]:
    import psutil  # noqa: PLC0415 - 1 MB and 7 ms that only a hang is worth

    with suppress(psutil.Error):
        return [pid, *(one.pid for one in psutil.Process(pid).children(recursive=True))]
    return [pid]


async def _dump(pid: int, target: Path) -> bool:
    """Append one process's stacks; whether py-spy could read it (it must be a Python)."""
    spy = str(Path(sys.executable).with_name("py-spy"))
    command = Command(argv=(spy, "dump", "--nonblocking", "--pid", str(pid)), output=target)
    with suppress(TimeoutError, SpawnFailed):
        async with asyncio.timeout(DUMP_S), isolated_child(command) as dump:
            return (await dump.wait()).code == 0
    return False
