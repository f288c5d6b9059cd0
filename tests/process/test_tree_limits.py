"""What a worker is given before it runs: its cgroup, and limits that it cannot shake off."""

import asyncio
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from supervisor.process import Command, Limits, SpawnFailed, isolated_child

pytestmark = pytest.mark.usefixtures("unleaked")


def printed(tmp_path: Path, argv: Sequence[str], **more: Any) -> str:
    """Run a command to its end and return what it wrote."""
    output = tmp_path / "output"

    async def main() -> None:
        async with isolated_child(Command(argv=argv, output=output, **more)) as child:
            assert (await child.wait()).ok, output.read_text()

    asyncio.run(main())
    return output.read_text()


def refusal(**more: Any) -> SpawnFailed:
    """Return the error that a command cannot be started with."""

    async def main() -> None:
        async with isolated_child(Command(argv=["true"], **more)):
            raise AssertionError("not reached")

    with pytest.raises(SpawnFailed) as caught:
        asyncio.run(main())
    return caught.value


def test_the_worker_is_in_its_cgroups_from_the_start(tmp_path: Path, leaf: Any) -> None:
    """The very first program runs in the attempt's own cgroup, in each hierarchy."""
    found = printed(tmp_path, ["cat", "/proc/self/cgroup"], leaf=leaf)
    named = [line for line in found.splitlines() if line.endswith(f"/{leaf.name}")]
    assert len(named) == len(leaf.entries)


def test_a_cgroup_that_cannot_be_entered(leaf: Any) -> None:
    """A cgroup that is gone is blamed by its file, and nothing runs outside of it."""
    assert leaf.remove()
    error = refusal(leaf=leaf)
    assert (error.stage, error.path) == ("cgroup", str(leaf.entries[0]))
    assert "its cgroup cannot be entered" in str(error)


def test_open_files_and_cores(tmp_path: Path) -> None:
    """Soft and hard limit are what was asked for; without core dumps both are 0."""
    show = ["sh", "-c", "ulimit -Sn; ulimit -Hn; ulimit -Sc; ulimit -Hc"]
    limits = Limits(open_files=128, core_dumps=False)
    assert printed(tmp_path, show, limits=limits).split() == ["128", "128", "0", "0"]


def test_core_dumps_up_to_the_hard_limit(tmp_path: Path) -> None:
    """Allowed core dumps may be as large as the hard limit says."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    found = printed(tmp_path, ["sh", "-c", "ulimit -c"], limits=Limits(core_dumps=True))
    assert found.strip() == ("unlimited" if hard == resource.RLIM_INFINITY else str(hard // 512))


def test_more_open_files_than_the_user_may_have(tmp_path: Path) -> None:
    """An ordinary user's hard limit is an error that names both numbers, not a lower limit."""
    program = """
import asyncio, os, resource
from supervisor.process import Command, Limits, SpawnFailed, isolated_child
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
import ctypes
if os.getuid() == 0:  # root without the right to raise limits is like anybody: CAP_SYS_RESOURCE
    assert ctypes.CDLL(None).prctl(24, 24, 0, 0, 0) == 0
    class Header(ctypes.Structure):
        _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]
    class Data(ctypes.Structure):
        _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]
    header, data = Header(0x20080522, 0), (Data * 2)()
    libc = ctypes.CDLL(None)
    assert libc.capget(ctypes.byref(header), data) == 0
    for field in ("effective", "permitted", "inheritable"):
        setattr(data[0], field, getattr(data[0], field) & ~(1 << 24))
    assert libc.capset(ctypes.byref(header), data) == 0
async def main():
    async with isolated_child(Command(argv=["true"], limits=Limits(open_files=300))):
        pass
try:
    asyncio.run(main())
except SpawnFailed as error:
    print(error.stage, error.errno)
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    first, second = done.stdout.splitlines()
    assert first == "limit 1"
    assert "nofile=300 is more than the hard limit, 200; ask for less" in second


def test_processors(tmp_path: Path) -> None:
    """The worker may run on the processors it was given."""
    cpu = max(os.sched_getaffinity(0))
    show = "import os; print(*os.sched_getaffinity(0))"
    argv = [sys.executable, "-ISc", show]
    assert printed(tmp_path, argv, limits=Limits(cpus=(cpu,))) == f"{cpu}\n"


def test_processors_that_are_not_there() -> None:
    """A processor that this host has not is named."""
    error = refusal(limits=Limits(cpus=(1000,)))
    assert (error.stage, error.path) == ("limit", "cpus=1000")
    assert "the kernel refuses cpus=1000" in str(error)


def test_the_kernels_first_victim(tmp_path: Path) -> None:
    """The worker's score is set before it runs; anybody may raise their own."""
    score = Path("/proc/self/oom_score_adj").read_text().strip()
    assert int(score) < 1000
    argv = ["cat", "/proc/self/oom_score_adj"]
    assert printed(tmp_path, argv, limits=Limits(oom_score_adj=1000)) == "1000\n"


def test_a_tracer_is_harmless(tmp_path: Path) -> None:
    """Naming a tracer starts the worker as ever, whether this kernel knows Yama or not."""
    assert printed(tmp_path, ["echo", "fine"], tracer_pid=os.getpid()) == "fine\n"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"open_files": 3}, "open_files is 3"),
        ({"cpus": (-1,)}, "numbers of processors"),
        ({"oom_score_adj": 1001}, "from -1000 to 1000"),
    ],
)
def test_limits_no_kernel_would_take(fields: dict[str, Any], message: str) -> None:
    """What cannot be set is refused when it is written down."""
    with pytest.raises(ValueError, match=message):
        Limits(**fields)
