"""A worker that SIGKILL does not end, because it waits in the kernel for a disk that is frozen."""

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

# In front of the script of ten steps: after the third one, the first attempt writes to the frozen
# disk instead of saying that it is done; later attempts do what the script does. What it would hold
# for ever it lets go before: that it is not alone is the point here.
HANGS = """
import os, sys
if os.environ["SUPERVISE_ATTEMPT"] == "1":
    sys.argv += ["--steps", "3"]
    really = open
    def open(path, *rest):
        if path == "out/DONE":
            alone.close()
            path = os.environ["FROZEN"]
        return really(path, *rest)
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
def hangs(
    job: Any, disk: FrozenDisk, eventually: Any, shortened: Callable[..., None]
) -> Iterator[Any]:
    """The job of ten steps, whose first worker hangs after three; nothing of it is left."""
    shortened({"supervisor.process.child.KILL_LIMIT_S": 1.0})
    script = job.folder / "steps.py"
    script.write_text(HANGS + script.read_text())
    frozen = {"FROZEN": str(disk.folder / "file")}
    job.write(env=frozen, timeouts={"heartbeat": "1s", "stop": "1s"})
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


def test_its_gpu_is_set_aside_and_the_job_goes_on_with_another(
    hangs: Any, disk: FrozenDisk, fake_gpus: Any, eventually: Any, alive: Callable[[int], bool]
) -> None:
    """Nobody gets the GPU it holds; its late end is no end of the attempt that came after it."""
    bad, good = (gpu.uuid for gpu in fake_gpus.gpus)
    hangs.write(resources={"gpus": 1}, command=["python", "steps.py", "--steps", "10000"])
    run = hangs.start()
    pid = eventually(lambda: hung(hangs), 20)
    fake_gpus.add_process(bad, pid, GIB)
    second = eventually(lambda: len(hangs.attempts()) == 2 and hangs.worker(), 50)
    first = hangs.attempts()[0]
    assert (first["cause"], first["decision"]) == ("unkillable", "retry_other_gpu")
    assert f"process {pid} holds it and does not die of SIGKILL" in hangs.ask("gpus")
    disk.thaw()
    eventually(lambda: not alive(pid))
    eventually(lambda: hangs.saved(100), 40)
    assert hangs.worker() == second
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=30)
    assert run.returncode == 75, output
    assert hangs.causes() == ["unkillable", "stopped"]
    assert hangs.began() == [0, 3]
    assert f"leased {good}" in output
