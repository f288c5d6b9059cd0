"""What is written down about a hung worker: real children, read from outside."""

import asyncio
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from supervisor.process import Child, Command, isolated_child
from supervisor.runner import hang_evidence, process_table, stacks
from supervisor.runner.hang_evidence import save_evidence
from supervisor.runner.home import AttemptFolder
from supervisor.runner.stacks import save_stacks, tree_of

pytestmark = pytest.mark.usefixtures("unleaked")

# A worker with a data loader; both wait for what never comes, each in a function of its own.
HANGS = """
import os, signal, sys
for number in range(300):
    print("step", number, flush=True)
heard, said = os.pipe()
def waits_for_a_batch():
    os.read(heard, 1)
    os.write(int(sys.argv[1]), b"ready")
    signal.pause()
def waits_for_work():
    os.write(said, b".")
    signal.pause()
if os.fork():
    waits_for_a_batch()
else:
    waits_for_work()
"""
# Whoever spawns waits in the kernel, uninterruptibly, until its child has opened its files.
STUCK = """
import os, sys
os.mkfifo(sys.argv[2])
opening = (os.POSIX_SPAWN_OPEN, 0, sys.argv[2], os.O_RDONLY, 0)
os.write(int(sys.argv[1]), b"ready")
os.posix_spawn("/bin/true", ["true"], {}, file_actions=[opening])
"""


@pytest.fixture
def folder(tmp_path: Path) -> AttemptFolder:
    """Give an attempt's folder."""
    made = AttemptFolder(tmp_path / "1")
    made.path.mkdir()
    return made


Use = Callable[[Child], Coroutine[Any, Any, None]]


@pytest.fixture
def hanging(folder: AttemptFolder, pipe: Any, tmp_path: Path) -> Callable[[str, Use], None]:
    """Run a worker of this script until it hangs, then do something with it."""

    def run(script: str, use: Use) -> None:
        async def main() -> None:
            argv = [sys.executable, "-c", script, str(pipe.write_fd), str(tmp_path / "fifo")]
            command = Command(
                argv=argv,
                output=folder.log,
                inherit_fds=[pipe.write_fd],
                env={"PYTHONFAULTHANDLER": "1", "PATH": "/usr/bin:/bin"},
            )
            async with isolated_child(command) as child:
                await pipe.heard()
                await use(child)

        asyncio.run(main())

    return run


def test_everything_is_written_down(folder: AttemptFolder, hanging: Any) -> None:
    """Stacks of every process, the main one twice; the tree; the GPUs; the end of the output."""
    pids: list[int] = []

    async def use(child: Child) -> None:
        pids.extend(tree_of(child.pid))
        await save_evidence(child, folder, ["GPU-1: 100 %, 90 W"])
        assert child.status is None, "looking must not kill it where py-spy may look"

    hanging(HANGS, use)

    stack = folder.stack.read_text()
    assert stack.count("waits_for_a_batch (") == 2
    assert stack.count("waits_for_work (") == 1
    assert f"--- process {pids[0]} once more" in stack
    main, loader = folder.processes.read_text().splitlines()[1:]
    assert re.match(rf" *{pids[0]} +\d+ S +\d+\.\d\d s +\d+ MiB  {{\w+}} {sys.executable} -c", main)
    assert re.match(
        rf" *{loader.split()[0]} +{pids[0]} S .* MiB    {{\w+}} {sys.executable}", loader
    )
    assert folder.gpu.read_text() == "GPU-1: 100 %, 90 W\n"
    assert folder.tail.read_text().splitlines() == [f"step {n}" for n in range(100, 300)]


def test_the_stack_comes_out_where_nobody_may_look(
    folder: AttemptFolder, hanging: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without py-spy, SIGABRT makes Python print its stack itself, also when it is stopped."""
    monkeypatch.setattr(stacks, "PY_SPY", tmp_path / "py-spy")

    async def use(child: Child) -> None:
        child.signal(signal.SIGSTOP)
        await save_stacks(child, folder.stack)
        assert (await child.wait()).signal == signal.SIGABRT

    hanging(HANGS, use)

    assert "in waits_for_a_batch" in folder.log.read_text()


def test_a_process_that_waits_in_the_kernel(
    folder: AttemptFolder, hanging: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its memory is left alone; the table tells where in the kernel it waits."""
    monkeypatch.setattr(stacks, "ABORT_S", 0.1)

    async def use(child: Child) -> None:
        await asyncio.to_thread(eventually, lambda: stacks._waits_in_kernel(child.pid))
        await save_evidence(child, folder)
        # Its child may open the file now.
        await asyncio.to_thread((folder.path.parent / "fifo").write_bytes, b"")

    hanging(STUCK, use)

    assert "waits in the kernel: its stack was not read" in folder.stack.read_text()
    heading, line, *_ = folder.processes.read_text().splitlines()
    assert heading.split() == ["PID", "PPID", "S", "CPU", "RSS", "WAITS", "IN,", "COMMAND"]
    assert line.split()[2] == "D"
    assert not folder.gpu.exists()


def test_a_reader_that_is_kept_waiting(
    folder: AttemptFolder, hanging: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a command line does not come, the rest is told in time."""
    over = threading.Event()
    monkeypatch.setattr(process_table, "LIMIT_S", 0.2)
    monkeypatch.setattr(process_table, "_command", lambda _pid: over.wait())
    began = time.monotonic()
    lines: list[str] = []

    async def use(child: Child) -> None:
        lines.extend(await process_table.process_table(tree_of(child.pid)))

    try:
        hanging(HANGS, use)
    finally:
        over.set()

    assert time.monotonic() - began < 20
    assert [line.endswith("[its command line cannot be read]") for line in lines[1:]] == [True] * 2


def test_a_disk_that_is_full_or_gone(
    folder: AttemptFolder, hanging: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evidence that cannot be written keeps nobody from the kill that follows."""
    over = threading.Event()
    monkeypatch.setattr(hang_evidence, "WRITE_S", 0.1)

    async def use(child: Child) -> None:
        folder.hang.write_bytes(b"in the way")
        await save_evidence(child, folder)
        monkeypatch.setattr(hang_evidence, "_write", lambda *_: over.wait())
        await save_evidence(child, AttemptFolder(folder.path / "missing"))
        await child.kill()

    try:
        hanging(HANGS, use)
    finally:
        over.set()

    assert folder.hang.read_bytes() == b"in the way"


def test_names_of_processes(tmp_path: Path) -> None:
    """Children are below their parents; a command line never spoils the table."""
    entry = process_table.Entry
    drawn = process_table._drawn(
        {
            30: entry(30, 20, "S", 0.0, 0, {"futex_do_wait": 2, "0": 1}, "c"),
            20: entry(20, 10, "D", 1.5, 1 << 20, {}, "b", kernel_stack=("[<0>] io_schedule",)),
            40: entry(40, 10, "S", 0.0, 0, {}, "d"),
            10: entry(10, 1, "R", 0.0, 0, {}, "a"),
        }
    )

    assert [line.split("MiB  ")[-1] for line in drawn] == [
        "{} a",
        "  {} b",
        "                                [<0>] io_schedule",
        "    {futex_do_wait x2, 0} c",
        "  {} d",
    ]


def test_a_zombie_has_only_a_name() -> None:
    """A process that has ended is told by its name in brackets, as `ps` does."""
    ended = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, ended, os.WEXITED | os.WNOWAIT)
    lines = asyncio.run(process_table.process_table([ended, 2**22 + 1]))
    os.waitpid(ended, 0)

    assert len(lines) == 2
    assert lines[1].endswith("[true]")
    assert lines[1].split()[2] == "Z"
