"""A process that hangs in the kernel: the wait for it ends, and says who is left."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.host.processes import ProcessId, living, stat
from supervisor.process import ChildUnkillable, Command, ExitStatus, isolated_child

pytestmark = pytest.mark.usefixtures("unleaked")

TOOLS = ("mkfs.ext4", "mount", "umount", "fsfreeze")
DISK_BYTES = 8 << 20
# Writes to a frozen disk. Ignores what could interrupt the wait: nothing can.
WRITES = "import os, sys; os.write(int(sys.argv[2]), b'%d' % os.getpid()); open(sys.argv[1], 'w')"


@pytest.fixture
def frozen_disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Give a frozen disk, and the way to thaw it."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or os.getuid() != 0 or not Path("/dev/loop-control").exists():
        pytest.skip(f"needs root, loop devices and {TOOLS}; not here: {missing}")
    image, folder = tmp_path / "image", tmp_path / "disk"
    image.write_bytes(bytes(DISK_BYTES))
    folder.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    mounted = subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=False)
    if mounted.returncode != 0:
        pytest.skip("this container may not mount")
    frozen = True

    def thaw() -> None:
        nonlocal frozen
        if frozen:
            subprocess.run(["fsfreeze", "-u", str(folder)], check=True)
            frozen = False

    try:
        subprocess.run(["fsfreeze", "-f", str(folder)], check=True)
        yield folder, thaw
    finally:
        thaw()
        subprocess.run(["umount", str(folder)], check=True)


def test_a_main_process_in_the_kernels_hands(
    frozen_disk: Any, bounds: Any, pipe: Any, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    """A worker that waits for a dead disk ends the wait with its pid; it is reaped when it can."""
    folder, thaw = frozen_disk
    monkeypatch.setattr("supervisor.process.child.KILL_LIMIT_S", 0.2)
    argv = [sys.executable, "-ISc", WRITES, str(folder / "file"), str(pipe.write_fd)]

    async def main() -> None:
        block = isolated_child(Command(argv=argv, inherit_fds=[pipe.write_fd], leaf=bounds))
        child = await block.__aenter__()
        try:
            await pipe.heard()
            await asyncio.to_thread(eventually, lambda: stat(child.pid).state == "D")
            with pytest.raises(ChildUnkillable) as caught:
                await block.__aexit__(None, None, None)
            left = ProcessId(child.pid, child.start_ticks)
            assert list(caught.value.survivors) == child.survivors() == [left]
        finally:
            thaw()
        assert await child.wait() == ExitStatus(None, signal.SIGKILL)
        assert child.survivors() == []

    asyncio.run(main())


def test_a_grandchild_in_the_kernels_hands(
    frozen_disk: Any, bounds: Any, pipe: Any, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    """One that fled and hangs is named as a survivor; the main process is reaped none the less."""
    folder, thaw = frozen_disk
    monkeypatch.setattr("supervisor.process.child.KILL_LIMIT_S", 0.2)
    words = [sys.executable, "-ISc", WRITES, str(folder / "file"), str(pipe.write_fd)]
    argv = ["setsid", "--fork", *words]

    async def main() -> None:
        command = Command(argv=argv, inherit_fds=[pipe.write_fd], leaf=bounds)
        try:
            async with isolated_child(command) as child:
                hangs = living(int(await pipe.heard()))
                assert hangs is not None
                await asyncio.to_thread(eventually, lambda: stat(hangs.pid).state == "D")
            assert child.status == ExitStatus(0, None)
            assert child.survivors() == [hangs]
        finally:
            thaw()
        await asyncio.to_thread(eventually, lambda: child.survivors() == [])

    asyncio.run(main())
