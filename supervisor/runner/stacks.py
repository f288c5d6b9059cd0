"""Saves where a hung worker stood, before it is killed.

Owns the order of attempts: py-spy reads every process of the tree from outside; where it may not
(ptrace is restricted), SIGABRT makes Python's own faulthandler print the stacks to the worker's
log. All of it is bounded: evidence must not hold up the restart.
"""

import asyncio
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from supervisor.host.processes import descendants, snapshot, stat
from supervisor.process import Child, ChildUnkillable, Command, SpawnFailed, isolated_child

DUMP_S = 10.0  # for one process
DUMPS_S = 20.0  # for all of them: a GPU waits meanwhile
AGAIN_S = 1.0  # until a second look: the same frames twice are a hang, others are slow work
ABORT_S = 2.0
PY_SPY = Path(sys.executable).with_name("py-spy")
PROCESS_LIMIT = 16  # loader workers all look alike; the first ones tell the story


async def save_stacks(child: Child, target: Path, pids: Sequence[int] = ()) -> bool:
    """Write the stack of every thread of the tree to `target`; falls back to SIGABRT.

    The main Python process is looked at twice. `pids` are the tree's, the main process first;
    without them it is those that descend from the child now. Returns whether the worker is
    unharmed: the fallback ends most.
    """
    again: int | None = None
    with suppress(TimeoutError):
        async with asyncio.timeout(DUMPS_S):
            loop = asyncio.get_running_loop()
            again_at = 0.0
            for pid in (pids or tree_of(child.pid))[:PROCESS_LIMIT]:
                if await _dump(pid, target) and again is None:
                    again, again_at = pid, loop.time() + AGAIN_S
            if again is not None:
                await asyncio.sleep(max(0.0, again_at - loop.time()))
                _note(target, f"\n--- process {again} once more, a moment later ---")
                await _dump(again, target)
    if again is None:
        child.signal(signal.SIGABRT)
        child.signal(signal.SIGCONT)  # a stopped process acts on it only when it goes on
        with suppress(TimeoutError):
            async with asyncio.timeout(ABORT_S):
                await child.wait()
    return again is not None


def tree_of(pid: int) -> list[int]:
    """A process and whoever descends from it."""
    return [pid, *sorted(descendants(snapshot(), [pid]))]


async def _dump(pid: int, target: Path) -> bool:
    """Append one process's stacks; whether py-spy could read it (it must be a Python)."""
    if _waits_in_kernel(pid):
        # Reading its memory may wait for the same dead disk, and could not be interrupted.
        _note(target, f"Process {pid} waits in the kernel: its stack was not read")
        return False
    command = Command(argv=(str(PY_SPY), "dump", "--nonblocking", "--pid", str(pid)), output=target)
    with suppress(TimeoutError, SpawnFailed, ChildUnkillable):
        async with asyncio.timeout(DUMP_S), isolated_child(command) as dump:
            return (await dump.wait()).code == 0
    return False


def _waits_in_kernel(pid: int) -> bool:
    with suppress(OSError):
        return stat(pid).state == "D"
    return False


def _note(target: Path, text: str) -> None:
    with suppress(OSError), target.open("a", encoding="utf-8") as file:  # a full disk
        file.write(text + "\n")
