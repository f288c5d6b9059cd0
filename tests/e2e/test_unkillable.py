"""A worker that SIGKILL does not end, because it waits in the kernel for a disk that is frozen."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from supervisor.host.cgroup import leftovers, survey
from supervisor.host.processes import stat
from supervisor.runner.isolation import owner_name
from tests.fake_nvml.driver import GIB

TOOLS = ("mkfs.ext4", "mount", "umount", "fsfreeze")
DISK_BYTES = 8 << 20

# In front of the script of ten steps: the first attempt ends its work after the third one, and
# writes to the frozen disk; later attempts do what the script does.
HANGS = """
import atexit, os, sys
if os.environ["SUPERVISE_ATTEMPT"] == "1":
    sys.argv += ["--steps", "3"]
    atexit.register(lambda: open(os.environ["FROZEN"], "w"))
"""


class FrozenDisk:
    """A small disk of its own that takes no write until it is thawed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._frozen = False

    def freeze(self) -> None:
        """From now on whoever writes there hangs in the kernel."""
        subprocess.run(["fsfreeze", "-f", str(self.folder)], check=True)
        self._frozen = True

    def thaw(self) -> None:
        """Let the writers go on, or die of the signal that waits for them."""
        if self._frozen:
            subprocess.run(["fsfreeze", "-u", str(self.folder)], check=True)
            self._frozen = False


@pytest.fixture
def disk(tmp_path: Path, eventually: Any) -> Iterator[FrozenDisk]:
    """Give a frozen disk; it is thawed and unmounted whatever happens."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"a disk that can be frozen needs {', '.join(missing)}")
    image, folder = tmp_path / "image", tmp_path / "disk"
    image.write_bytes(bytes(DISK_BYTES))
    folder.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    command = ["mount", "-o", "loop", str(image), str(folder)]
    mount = subprocess.run(command, check=False, capture_output=True, text=True)
    if mount.returncode != 0:
        pytest.skip(f"no loop device can be mounted here: {mount.stderr.strip()}")
    made = FrozenDisk(folder)
    try:
        made.freeze()
        yield made
    finally:
        made.thaw()
        eventually(lambda: subprocess.run(["umount", str(folder)], check=False).returncode == 0)


@pytest.fixture
def hangs(job: Any, disk: FrozenDisk, eventually: Any) -> Iterator[Any]:
    """The job of ten steps, whose first worker hangs after three; nothing of it is left."""
    script = job.folder / "steps.py"
    script.write_text(HANGS + script.read_text())
    frozen = {"FROZEN": str(disk.folder / "file")}
    job.write(env=frozen, timeouts={"heartbeat": "3s", "stop": "2s"})
    job.write(done={"file": "out/DONE"}, restart={"backoff": {"initial": 0}})
    yield job
    job.clean_up()
    disk.thaw()
    if job.attempts():  # a runner that this test had to kill removed nothing
        named = SimpleNamespace(id=job.show()["id"], state_dir=job.state_dir)
        for leaf in leftovers(survey(), f"supervise-{owner_name(named)}-"):
            eventually(lambda leaf=leaf: leaf.kill() or leaf.remove())


def hung(job: Any) -> int | None:
    """The pid of the first worker, once it hangs in the kernel."""
    with suppress(OSError):
        attempts = job.attempts()
        if attempts and attempts[0]["pid"] and stat(attempts[0]["pid"]).state == "D":
            return int(attempts[0]["pid"])
    return None


def test_it_holds_and_goes_on_when_the_kernel_lets_go(
    hangs: Any, disk: FrozenDisk, eventually: Any, alive: Callable[[int], bool]
) -> None:
    """The wait is bounded and the reason names the process; the same command resumes later."""
    run = hangs.start()
    pid = eventually(lambda: hung(hangs), 20)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 3, output
    first = hangs.show()
    assert first["state"] == "holding"
    assert (first["attempts"][0]["cause"], first["attempts"][0]["decision"]) == (
        "unkillable",
        "hold",
    )
    assert str(pid) in first["attempts"][0]["reason"]
    assert f"process {pid}" in output
    assert alive(pid)
    disk.thaw()
    eventually(lambda: not alive(pid))
    code, output = hangs.run()
    assert code == 0, output
    assert hangs.causes() == ["unkillable", "completed"]
    assert hangs.began() == [0, 3]
