"""The probe's life: drivers that hang, children that die or lie, parents that are killed."""

import asyncio
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from itertools import repeat
from pathlib import Path
from typing import Any, TypeVar

import pytest

from supervisor.core.gpu import Severity, TroubleKind
from supervisor.gpu import probe_process
from supervisor.gpu.probe import Probe, ProbeFailed, ProbeHung, look
from tests.fake_nvml.driver import NvmlDriver

pytestmark = pytest.mark.usefixtures("unleaked")

T = TypeVar("T")
DEADLINE_S = 20.0
SHORT_S = 1.5
"""Long enough for a probe to start and ask on a busy machine; how long a hang takes to be seen."""

FREEZER = Path("/sys/fs/cgroup/freezer")


def played(scene: Callable[[Probe], Coroutine[Any, Any, T]], timeout_s: float = DEADLINE_S) -> T:
    """Play a scene with a probe of its own, which is closed at the end."""

    async def main() -> T:
        probe = Probe(timeout_s)
        try:
            return await scene(probe)
        finally:
            await probe.close()

    return asyncio.run(main())


async def hang(probe: Probe, question: Coroutine[Any, Any, object]) -> ProbeHung:
    """Return how a question was found to hang, after proof that its probe is gone."""
    with pytest.raises(ProbeHung) as raised:
        await question
    assert raised.value.pid != probe.pid
    return raised.value


async def until_asking(probe: Probe) -> int:
    """Wait until the probe is in the driver, and return its pid."""
    async with asyncio.timeout(DEADLINE_S):
        while not (probe._process and probe._process.asking()[0]):  # noqa: ASYNC110 -- no event
            await asyncio.sleep(0)
        return probe._process.pid


def alive(pid: int) -> bool:
    """Whether a process is there, be it a zombie."""
    return Path(f"/proc/{pid}").exists()


def opened(pid: int, fd: int) -> str | None:
    """Return what a descriptor of a process is open on."""
    with suppress(FileNotFoundError):
        return str(Path(f"/proc/{pid}/fd/{fd}").readlink())
    return None


def test_a_driver_that_hangs_as_it_begins(fake_gpus: NvmlDriver) -> None:
    """A hang in nvmlInit is named, its probe is killed, and the next question has an answer."""

    async def scene(probe: Probe) -> None:
        await probe.start()
        fake_gpus.block("nvmlInit")
        error = await hang(probe, probe.inventory())
        assert (error.function, error.uuid) == ("nvmlInit", "")
        assert "within 1.5 s in nvmlInit" in str(error)
        assert f"pid {error.pid}) was killed" in str(error)
        assert error.trouble(1.0) is None
        assert not alive(error.pid)
        fake_gpus.mend()
        assert len((await probe.inventory()).gpus) == 2

    played(scene, SHORT_S)


def test_one_gpu_that_hangs(fake_gpus: NvmlDriver) -> None:
    """A hang in one GPU names it, is a trouble of it, and does not hide what the others do."""
    ill, well = (gpu.uuid for gpu in fake_gpus.gpus)

    async def scene(probe: Probe) -> None:
        fake_gpus.block("nvmlDeviceGetMemoryInfo", ill)
        error = await hang(probe, probe.read([well, ill]))
        assert (error.function, error.uuid) == ("nvmlDeviceGetMemoryInfo", ill)
        trouble = error.trouble(1.0)
        assert trouble is not None
        assert (trouble.uuid, trouble.kind) == (ill, TroubleKind.DRIVER_HUNG)
        assert trouble.severity is Severity.AVOID
        spoilt, read = await probe.read_each([ill, well])
        assert (spoilt.uuid, spoilt.processes) == (ill, None)
        assert "nvmlDeviceGetMemoryInfo" in spoilt.problems[0]
        assert (read.uuid, read.used_bytes, read.problems) == (well, 0, ())
        seen = await probe.inventory()
        assert [gpu.uuid for gpu in seen.gpus] == [well]
        assert "GPU 0 is left out" in str(seen.problem)

    played(scene, SHORT_S)


def test_a_driver_that_hangs_everywhere(fake_gpus: NvmlDriver) -> None:
    """Where a second GPU hangs, nobody goes on to a third."""
    for _ in range(6):
        fake_gpus.add_gpu()

    async def scene(probe: Probe) -> None:
        fake_gpus.block("nvmlDeviceGetMemoryInfo")
        await hang(probe, probe.inventory())
        await hang(probe, probe.read_each([gpu.uuid for gpu in fake_gpus.gpus]))

    began_s = time.monotonic()
    played(scene, SHORT_S)
    assert time.monotonic() - began_s < 6 * SHORT_S


def test_look_at_a_driver_that_hangs(fake_gpus: NvmlDriver) -> None:
    """The blocking form says in its problem that the driver hangs, and returns in time."""
    fake_gpus.block("nvmlInit")
    began_s = time.monotonic()
    seen, readings = look(SHORT_S)
    assert time.monotonic() - began_s < SHORT_S + probe_process.REAP_S
    assert (seen.gpus, readings) == ((), ())
    assert "the NVIDIA driver does not answer" in str(seen.problem)


def test_a_slow_driver_is_no_hang(fake_gpus: NvmlDriver) -> None:
    """An answer that takes long, but less than the deadline, is an answer."""
    fake_gpus.block("nvmlDeviceGetMemoryInfo", fake_gpus.gpus[0].uuid, seconds=0.3)
    began_s = time.monotonic()
    seen = played(lambda probe: probe.inventory())
    assert time.monotonic() - began_s >= 0.3
    assert (len(seen.gpus), seen.problem) == (2, None)


def test_a_killed_probe(fake_gpus: NvmlDriver) -> None:
    """After SIGKILL of the probe one call at most fails, and the next probe watches on."""
    uuid = fake_gpus.gpus[0].uuid

    async def scene(probe: Probe) -> None:
        await probe.watch([uuid])
        first = probe.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        with suppress(ProbeFailed):  # it is not known to be dead yet
            await probe.read([uuid])
        assert (await probe.read([uuid]))[0].problems == ()
        assert probe.pid != first
        fake_gpus.raise_xid(uuid, 79)
        async with asyncio.timeout(DEADLINE_S):
            assert (await probe.troubles.get()).code == 79

    played(scene)


def test_a_probe_killed_while_it_is_asked(fake_gpus: NvmlDriver) -> None:
    """A call in flight fails at once when the probe dies, and not at its deadline."""
    fake_gpus.block("nvmlInit")

    async def scene(probe: Probe) -> None:
        asking = asyncio.create_task(probe.inventory())
        os.kill(await until_asking(probe), signal.SIGKILL)
        with pytest.raises(ProbeFailed, match="was ended by SIGKILL"):
            await asking

    began_s = time.monotonic()
    played(scene)
    assert time.monotonic() - began_s < DEADLINE_S / 2


def test_close_while_something_is_asked(fake_gpus: NvmlDriver) -> None:
    """Closing does not wait for a driver that hangs; what was being asked fails."""
    fake_gpus.block("nvmlInit")

    async def scene(probe: Probe) -> None:
        asking = asyncio.create_task(probe.inventory())
        pid = await until_asking(probe)
        await probe.close()
        assert not alive(pid)
        with pytest.raises(ProbeFailed, match="closed"):
            await asking

    played(scene)


def test_a_question_that_is_given_up(fake_gpus: NvmlDriver) -> None:
    """A caller may be cancelled; the late answer goes to nobody, and the next one to its own."""
    uuid = fake_gpus.gpus[0].uuid

    async def scene(probe: Probe) -> None:
        await probe.start()
        fake_gpus.block("nvmlInit")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await probe.inventory()
        fake_gpus.mend()
        assert [one.uuid for one in await probe.read([uuid])] == [uuid]

    played(scene)


def test_questions_at_once(fake_gpus: NvmlDriver) -> None:
    """Calls of several tasks wait for each other, and each gets its own answer."""
    uuids = [gpu.uuid for gpu in fake_gpus.gpus]

    async def scene(probe: Probe) -> list[str]:
        read = await asyncio.gather(*(probe.read([uuid]) for uuid in uuids * 10))
        return [one.uuid for (one,) in read]

    assert played(scene) == uuids * 10


LIARS = {
    "not JSON": "out(b'\\0\\0\\0\\3abc')",
    "not an object": "out(b'\\0\\0\\0\\2[]')",
    "a frame of 4294967295 bytes": "out(b'\\xff\\xff\\xff\\xff')",
    "not a trouble": "out(b'\\0\\0\\0\\x0d{\"trouble\":1}')",
    "ended with exit code 3: last words": "print('last words', file=sys.stderr); sys.exit(3)",
    "failed: ": 'answer(b\'"failed":"ValueError: x"\')',
    "not a driver: [7, 0]": "answer(b'\"answer\":[7,0]')",
    "failed: {": "answer(b'\"other\":1')",
    "not a driver: 7": "answer(b'\"answer\":7')",
}
LIAR = """
import signal, socket, sys
stream = socket.socket(fileno=int(sys.argv[1]))
def out(data):
    stream.sendall(data)
    signal.pause()
def answer(rest):
    for number in range(1, 9):
        stream.recv(4096)
        body = b'{"id":%d,' % number + rest + b'}'
        stream.sendall(len(body).to_bytes(4, 'big') + body)
"""


@pytest.mark.parametrize("said", LIARS)
def test_a_probe_that_lies(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe that sends garbage, or dies at once, fails the call in words; the next one is new."""
    monkeypatch.setattr(probe_process, "BOOT", LIAR + LIARS[said])

    async def scene(probe: Probe) -> None:
        for _ in range(2):
            with pytest.raises(ProbeFailed) as raised:
                await probe.inventory()
            assert said in str(raised.value)

    played(scene)


def test_a_probe_that_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """No interpreter, no probe: that is said, and leaves no descriptor behind."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(ProbeFailed, match=r"could not be started: .*nowhere"):
        played(lambda probe: probe.start())


def test_what_the_probe_inherits(fake_gpus: NvmlDriver) -> None:
    """The probe is a session of its own, and holds no descriptor of its parent, such as a lease."""
    held, other = os.pipe()
    os.set_inheritable(held, True)  # noqa: FBT003 -- the function's own
    try:

        async def scene(probe: Probe) -> None:
            await probe.inventory()
            assert probe.pid is not None
            assert os.getsid(probe.pid) == probe.pid
            assert opened(os.getpid(), held) not in map(opened, repeat(probe.pid), range(256))

        played(scene)
    finally:
        os.close(held)
        os.close(other)


PARENT = """
import asyncio, sys
from supervisor.gpu.probe import Probe
async def main():
    probe = Probe(1000)
    await probe.start()
    if sys.argv[1] == "asks":
        asking = asyncio.create_task(probe.inventory())
        while not probe._process.asking()[0]:
            await asyncio.sleep(0.005)
    else:
        await probe.inventory()
    print(probe.pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.parametrize("doing", ["waits", "asks"])
def test_a_killed_parent(fake_gpus: NvmlDriver, doing: str, gone: Callable[[int], bool]) -> None:
    """A probe ends with its parent, also one that hangs in the driver."""
    if doing == "asks":
        fake_gpus.block("nvmlInit")
    command = [sys.executable, "-c", PARENT, doing]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            assert alive(pid)
        finally:
            parent.kill()
    assert gone(pid)


@pytest.fixture
def freezer() -> Iterator[Path]:
    """Give a frozen cgroup, in which SIGKILL has no effect: the nearest to a hang in the kernel."""
    folder = FREEZER / f"probe-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "freezer.state").write_text("THAWED")
    except OSError as error:
        with suppress(OSError):
            folder.rmdir()
        pytest.skip(f"no cgroup v1 freezer that this user may write: {error}")
    yield folder
    (folder / "freezer.state").write_text("THAWED")
    for pid in (folder / "cgroup.procs").read_text().split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    folder.rmdir()


def test_a_probe_that_cannot_be_killed(
    fake_gpus: NvmlDriver, freezer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A probe that survives SIGKILL is given up within its bound, and reaped once it could die."""
    monkeypatch.setattr(probe_process, "REAP_S", 0.3)

    async def scene(probe: Probe) -> None:
        await probe.inventory()
        stuck = probe.pid
        assert stuck is not None
        (freezer / "cgroup.procs").write_text(str(stuck))
        (freezer / "freezer.state").write_text("FROZEN")
        error = await hang(probe, probe.inventory())
        assert (error.pid, error.abandoned) == (stuck, True)
        assert "was given up" in str(error)
        assert alive(stuck)
        assert len((await probe.inventory()).gpus) == 2  # by a new one
        pidfd = os.pidfd_open(stuck)
        (freezer / "freezer.state").write_text("THAWED")
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        assert poll.poll(DEADLINE_S * 1000)
        os.close(pidfd)

    played(scene, SHORT_S)
