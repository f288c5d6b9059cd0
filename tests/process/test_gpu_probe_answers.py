"""What the probe finds out: NVIDIA's own binding, in the real child process, on a fake driver."""

import asyncio
import ctypes.util
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from supervisor.core.gpu import GpuTrouble, Severity, TroubleKind
from supervisor.gpu.model import Gpu, GpuProcess, Inventory, Reading
from supervisor.gpu.probe import Probe, look
from tests.fake_nvml.driver import DOUBLE_BIT_ECC, GIB, NvmlDriver

pytestmark = pytest.mark.usefixtures("unleaked")

T = TypeVar("T")
DEADLINE_S = 20.0


def asked(question: Callable[[Probe], Awaitable[T]]) -> T:
    """Return what a probe of its own answers."""

    async def main() -> T:
        probe = Probe(DEADLINE_S)
        try:
            return await question(probe)
        finally:
            await probe.close()

    return asyncio.run(main())


def inventory() -> Inventory:
    """Return what a new probe lists."""
    return asked(lambda probe: probe.inventory())


def reading(uuid: str) -> Reading:
    """Return what a new probe reads of one GPU."""
    return asked(lambda probe: probe.read([uuid]))[0]


async def trouble(probe: Probe) -> GpuTrouble:
    """Return the next trouble."""
    async with asyncio.timeout(DEADLINE_S):
        return await probe.troubles.get()


def test_inventory(fake_driver: NvmlDriver) -> None:
    """Every GPU is listed with its uuid, index, name, place on the bus as the kernel log has it."""
    uuid = fake_driver.add_gpu(name="NVIDIA A100-SXM4-80GB", domain=0x10, bus=0x3B, total=80 * GIB)
    gpu = Gpu(uuid, 0, "NVIDIA A100-SXM4-80GB", "0010:3b:00", 80 * GIB)
    assert inventory() == Inventory("580.65.06", (gpu,))


def test_reading(fake_gpus: NvmlDriver) -> None:
    """A reading has each figure in the unit of its name, and each process once, with its memory."""
    uuid = fake_gpus.gpus[1].uuid
    fake_gpus.set(uuid, utilization=98, memory_utilization=3, power_mw=651_500, temperature_c=61)
    fake_gpus.add_process(uuid, 11, GIB)
    fake_gpus.add_process(uuid, 11, GIB, kind="graphics")
    fake_gpus.add_process(uuid, 12, None)
    fake_gpus.add_process(uuid, 13, 7, kind="mps")
    processes = (GpuProcess(11, GIB), GpuProcess(12, None), GpuProcess(13, 7))
    used = 2 * GIB + 7
    assert reading(uuid) == Reading(uuid, used, 98.0, 3.0, 651.5, 700.0, 61.0, processes)


def test_five_hundred_processes(fake_gpus: NvmlDriver) -> None:
    """A long list of processes arrives whole."""
    uuid = fake_gpus.gpus[0].uuid
    fake_gpus.processes = [(uuid, pid, pid * 1000, "compute") for pid in range(1, 501)]
    fake_gpus.write()
    assert reading(uuid).processes == tuple(GpuProcess(pid, pid * 1000) for pid in range(1, 501))


def test_mig(fake_gpus: NvmlDriver) -> None:
    """Instances are listed and may be leased, with the memory and processes of their own only."""
    whole = fake_gpus.gpus[0].uuid
    first = fake_gpus.add_instance(whole)
    second = fake_gpus.add_instance(whole)
    fake_gpus.add_process(second, 77, GIB)
    listed = {gpu.uuid: gpu for gpu in inventory().gpus}
    assert list(listed) == [whole, first, second, fake_gpus.gpus[1].uuid]
    assert [gpu.leasable for gpu in listed.values()] == [False, True, True, True]
    assert "MIG" in listed[whole].note
    assert listed[second].parent == whole
    assert listed[second].total_bytes == 18 * GIB
    assert reading(first) == Reading(first, 0, processes=())
    assert reading(second) == Reading(second, GIB, processes=(GpuProcess(77, GIB),))


def test_mig_without_instances(fake_gpus: NvmlDriver) -> None:
    """A GPU whose MIG is on and empty is no GPU to lease, and the note says what would help."""
    fake_gpus.set(fake_gpus.gpus[0].uuid, mig=1)
    first, second = inventory().gpus
    assert (first.leasable, second.leasable) == (False, True)
    assert "nvidia-smi mig" in first.note


@pytest.mark.parametrize(
    ("figures", "said"),
    [({"compute_mode": 2}, "Prohibited"), ({"recovery_action": 1}, "a reset of the GPU")],
)
def test_not_leasable(fake_gpus: NvmlDriver, figures: dict[str, int], said: str) -> None:
    """A GPU on which no work is allowed, or that waits for a reset, is listed and not leased."""
    fake_gpus.set(fake_gpus.gpus[0].uuid, **figures)
    first, second = inventory().gpus
    assert (first.leasable, second.leasable) == (False, True)
    assert said in first.note


def test_a_lost_gpu_is_listed_and_not_leasable(fake_gpus: NvmlDriver) -> None:
    """A GPU that fell off the bus stays in the list with its reason, beside the healthy one."""
    lost = fake_gpus.gpus[0].uuid
    fake_gpus.fail("nvmlDeviceGetMemoryInfo", "GPU_IS_LOST", lost)
    first, second = inventory().gpus
    assert (first.leasable, second.leasable) == (False, True)
    assert "GPU is lost" in first.note


def test_a_gpu_that_cannot_be_opened(fake_gpus: NvmlDriver) -> None:
    """A GPU that NVML will not open is left out, and the inventory says so."""
    fake_gpus.fail("nvmlDeviceGetHandleByIndex", "NO_PERMISSION", fake_gpus.gpus[0].uuid)
    seen = inventory()
    assert [gpu.uuid for gpu in seen.gpus] == [fake_gpus.gpus[1].uuid]
    assert seen.problem is not None
    assert "GPU 0 cannot be listed: Insufficient Permissions" in seen.problem


@pytest.mark.parametrize(
    ("function", "figure"),
    [
        ("nvmlDeviceGetMemoryInfo", "used_bytes"),
        ("nvmlDeviceGetUtilizationRates", "utilization"),
        ("nvmlDeviceGetPowerUsage", "power_w"),
        ("nvmlDeviceGetEnforcedPowerLimit", "power_limit_w"),
        ("nvmlDeviceGetTemperature", "temperature_c"),
        ("nvmlDeviceGetComputeRunningProcesses", "processes"),
    ],
)
@pytest.mark.parametrize("code", ["NOT_SUPPORTED", 4711])
def test_a_refused_figure(
    fake_gpus: NvmlDriver, function: str, figure: str, code: str | int
) -> None:
    """A figure that NVML refuses, for whatever reason, is None with a sentence; the rest is not."""
    uuid = fake_gpus.gpus[0].uuid
    fake_gpus.fail(function, code)
    seen = reading(uuid)
    refused = [name for name in Reading.__slots__ if getattr(seen, name) is None]
    assert refused == [figure] + ["memory_utilization"] * (figure == "utilization")
    (problem,) = seen.problems
    assert "NVML error" in problem


@pytest.mark.parametrize("function", ["Graphics", "MPSCompute"])
def test_a_list_that_a_gpu_does_not_have(fake_gpus: NvmlDriver, function: str) -> None:
    """A GPU without graphics, or without MPS, is no GPU with problems."""
    uuid = fake_gpus.gpus[0].uuid
    fake_gpus.add_process(uuid, 5)
    fake_gpus.fail(f"nvmlDeviceGet{function}RunningProcesses", "NOT_SUPPORTED")
    seen = reading(uuid)
    assert seen.processes == (GpuProcess(5, GIB),)
    assert seen.problems == ()


def test_an_older_driver(fake_gpus: NvmlDriver) -> None:
    """A driver without the newest calls is asked by the older ones."""
    uuid = fake_gpus.gpus[0].uuid
    fake_gpus.add_process(uuid, 5)
    fake_gpus.fail("nvmlDeviceGetMemoryInfo", "FUNCTION_NOT_FOUND")
    fake_gpus.fail("nvmlDeviceGetComputeRunningProcesses", "FUNCTION_NOT_FOUND")
    seen = reading(uuid)
    assert (seen.used_bytes, seen.processes) == (GIB, (GpuProcess(5, GIB),))


def test_an_unknown_uuid(fake_gpus: NvmlDriver) -> None:
    """A uuid that no GPU has reads as unknown, not as empty."""
    seen = reading("GPU-nowhere")
    assert (seen.used_bytes, seen.processes) == (None, None)
    assert "Not Found" in seen.problems[0]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("DRIVER_NOT_LOADED", "modprobe nvidia"),
        ("LIB_RM_VERSION_MISMATCH", "reboot"),
        ("NO_PERMISSION", "/dev/nvidiactl"),
        ("UNKNOWN", "systemd reloaded"),
        (4711, "4711"),
    ],
)
def test_nvml_cannot_begin(fake_gpus: NvmlDriver, code: str | int, said: str) -> None:
    """Where NVML does not begin, the inventory is empty and says what to do; so does a reading."""
    fake_gpus.fail("nvmlInit", code)
    seen, readings = look(DEADLINE_S)
    assert (seen.gpus, readings) == ((), ())
    assert seen.problem is not None
    assert said in seen.problem
    assert said in reading(fake_gpus.gpus[0].uuid).problems[0]


def test_a_driver_that_comes_later(fake_gpus: NvmlDriver) -> None:
    """NVML is tried anew with each question, so a driver that is loaded later is found."""

    async def question(probe: Probe) -> list[int]:
        fake_gpus.fail("nvmlInit", "DRIVER_NOT_LOADED")
        before = await probe.inventory()
        fake_gpus.mend()
        return [len(one.gpus) for one in (before, await probe.inventory())]

    assert asked(question) == [0, 2]


def test_no_driver() -> None:
    """Without NVIDIA's library the inventory says so, and what it would take."""
    if ctypes.util.find_library("nvidia-ml"):
        pytest.skip("an NVIDIA driver is installed here, so nothing is missing")
    seen, readings = look(DEADLINE_S)
    assert (seen.gpus, readings) == ((), ())
    assert seen.problem is not None
    assert "libnvidia-ml.so.1 was not found" in seen.problem


def test_no_binding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package nvidia-ml-py every question is answered by that."""
    (tmp_path / "pynvml.py").write_text("raise ImportError('not here')\n")
    monkeypatch.syspath_prepend(tmp_path)
    seen, _ = look(DEADLINE_S)
    assert seen.problem is not None
    assert "nvidia-ml-py cannot be imported: not here" in seen.problem
    assert "nvidia-ml-py" in reading("GPU-a").problems[0]
    assert "nvidia-ml-py" in asked(lambda probe: probe.watch(["GPU-a"]))[0]


def test_look(fake_gpus: NvmlDriver) -> None:
    """The blocking form returns all GPUs, and a reading of each in the same order."""
    fake_gpus.add_instance(fake_gpus.gpus[1].uuid)
    seen, readings = look(DEADLINE_S)
    assert seen.problem is None
    assert [one.uuid for one in readings] == [gpu.uuid for gpu in seen.gpus]
    assert len(readings) == 3


def test_xid(fake_gpus: NvmlDriver) -> None:
    """An Xid of a watched GPU arrives with code, meaning and severity; that of another does not."""
    watched, other = (gpu.uuid for gpu in fake_gpus.gpus)
    fake_gpus.raise_xid(watched, 13)  # before anybody watched

    async def question(probe: Probe) -> tuple[tuple[str, ...], GpuTrouble]:
        problems = await probe.watch([watched])
        fake_gpus.raise_xid(other, 48)
        fake_gpus.raise_xid(watched, 79)
        return problems, await trouble(probe)

    began_s = time.time()
    problems, seen = asked(question)
    assert problems == ()
    assert (seen.uuid, seen.kind, seen.code) == (watched, TroubleKind.XID, 79)
    assert (seen.severity, seen.spoils_gpu) == (Severity.AVOID, True)
    assert began_s <= seen.at_s <= time.time()


def test_a_change_of_what_is_watched(fake_gpus: NvmlDriver) -> None:
    """An event while the old event set gives way to the new one is told, and only once."""
    kept, new = (gpu.uuid for gpu in fake_gpus.gpus)

    async def question(probe: Probe) -> list[tuple[str, int | None]]:
        await probe.watch([kept])
        await probe.watch([kept, new])
        fake_gpus.raise_xid(kept, 31)
        fake_gpus.raise_xid(new, 43)
        fake_gpus.raise_xid(kept, 31)
        return [(one.uuid, one.code) for one in [await trouble(probe) for _ in range(3)]]

    assert asked(question) == [(kept, 31), (new, 43), (kept, 31)]


def test_a_burst_of_events(fake_gpus: NvmlDriver) -> None:
    """Events that come at once all arrive, in order, also while something else is asked."""
    uuid = fake_gpus.gpus[0].uuid

    async def question(probe: Probe) -> list[int | None]:
        await probe.watch([uuid])
        fake_gpus.events += [(number, uuid, 0x8, number) for number in range(1, 301)]
        fake_gpus.write()
        assert (await probe.read([uuid]))[0].problems == ()
        return [(await trouble(probe)).code for _ in range(300)]

    assert asked(question) == list(range(1, 301))


def test_more_troubles_than_anybody_reads(fake_gpus: NvmlDriver) -> None:
    """Troubles that nobody fetches are kept to a limit: the first ones, which tell the cause."""
    uuid = fake_gpus.gpus[0].uuid

    async def question(probe: Probe) -> list[int | None]:
        await probe.watch([uuid])
        fake_gpus.events += [(number, uuid, 0x8, number) for number in range(1, 1501)]
        fake_gpus.write()
        async with asyncio.timeout(DEADLINE_S):
            while not probe.troubles.full():
                await probe.read([uuid])
        pid = probe.pid
        assert (await probe.read([uuid]))[0].problems == ()
        assert probe.pid == pid
        return [probe.troubles.get_nowait().code for _ in range(probe.troubles.qsize())]

    assert asked(question) == list(range(1, 1001))


def test_mig_events(fake_gpus: NvmlDriver) -> None:
    """An Xid of one instance is not the other's trouble, unless the whole GPU is ill."""
    whole = fake_gpus.gpus[0].uuid
    instances = [fake_gpus.add_instance(whole) for _ in range(2)]

    async def question(probe: Probe) -> list[tuple[str, int | None]]:
        assert await probe.watch(instances) == ()
        fake_gpus.set(whole, event_instance=fake_gpus.gpu(instances[1]).gpu_instance)
        fake_gpus.raise_xid(whole, 94)
        one = await trouble(probe)
        fake_gpus.raise_xid(whole, 48)
        return [
            (seen.uuid, seen.code) for seen in (one, await trouble(probe), await trouble(probe))
        ]

    assert asked(question) == [(instances[1], 94), (instances[0], 48), (instances[1], 48)]


def test_an_ecc_event(fake_gpus: NvmlDriver) -> None:
    """A double-bit ECC event is an ECC trouble; the driver's recovery action decides on a reset."""
    uuid, old = (gpu.uuid for gpu in fake_gpus.gpus)
    fake_gpus.set(old, recovery_action=-1)

    async def question(probe: Probe) -> list[GpuTrouble]:
        await probe.watch([uuid, old])
        fake_gpus.raise_event(uuid, DOUBLE_BIT_ECC)
        fake_gpus.raise_event(old, DOUBLE_BIT_ECC)
        return [await trouble(probe), await trouble(probe)]

    seen = asked(question)
    assert [one.kind for one in seen] == [TroubleKind.ECC] * 2
    assert [(one.uuid, one.severity) for one in seen] == [
        (uuid, Severity.RESTART),
        (old, Severity.RESET),
    ]


def test_counters_that_rise(fake_gpus: NvmlDriver) -> None:
    """ECC errors and a recovery action without an event are seen too; what was there before not."""
    uuid, other = (gpu.uuid for gpu in fake_gpus.gpus)
    fake_gpus.set(other, ecc_uncorrected=9, recovery_action=1)

    async def question(probe: Probe) -> list[GpuTrouble]:
        await probe.watch([other, uuid])
        fake_gpus.set(uuid, ecc_uncorrected=3, recovery_action=2)
        return [await trouble(probe), await trouble(probe)]

    ecc, recovery = asked(question)
    assert (ecc.uuid, ecc.kind) == (uuid, TroubleKind.ECC)
    assert "3 more" in ecc.text
    assert (recovery.kind, recovery.severity) == (TroubleKind.RECOVERY, Severity.AVOID)
    assert "a reboot" in recovery.text


def test_a_gpu_that_is_lost_while_it_is_watched(fake_gpus: NvmlDriver) -> None:
    """A GPU that stops answering is told of once, unasked; and again once it has been back."""
    uuid, other = (gpu.uuid for gpu in fake_gpus.gpus)

    async def question(probe: Probe) -> list[tuple[str, TroubleKind]]:
        await probe.watch([uuid, other])
        told = []
        for _ in range(2):
            fake_gpus.fail("*", "GPU_IS_LOST", uuid)
            fake_gpus.fail("nvmlEventSetWait", "GPU_IS_LOST")
            told.append(await trouble(probe))
            await probe.read([uuid])
            fake_gpus.mend()
            fake_gpus.raise_xid(other, 31)
            told.append(await trouble(probe))
            async with asyncio.timeout(DEADLINE_S):
                while "GPU is lost" in str(await probe.read([uuid])):
                    pass
            await probe.watch([uuid, other])
        return [(one.uuid, one.kind) for one in told]

    once = [(uuid, TroubleKind.LOST), (other, TroubleKind.XID)]
    assert asked(question) == [*once, *once]


def test_a_gpu_that_wants_a_reset(fake_gpus: NvmlDriver) -> None:
    """A watched GPU that answers only that it must be reset is a trouble of that severity."""
    uuid = fake_gpus.gpus[0].uuid

    async def question(probe: Probe) -> GpuTrouble:
        await probe.watch([uuid])
        fake_gpus.fail("nvmlDeviceGetMemoryInfo", "RESET_REQUIRED", uuid)
        await probe.read([uuid])
        return await trouble(probe)

    seen = asked(question)
    assert (seen.kind, seen.severity) == (TroubleKind.RECOVERY, Severity.RESET)


def test_a_gpu_without_events(fake_gpus: NvmlDriver) -> None:
    """A GPU without Xid events, or with none at all, or unknown: watching says so for each."""
    silent, refusing = (gpu.uuid for gpu in fake_gpus.gpus)
    fake_gpus.set(silent, event_types=0)
    fake_gpus.fail("nvmlDeviceRegisterEvents", "NOT_SUPPORTED", refusing)
    problems = asked(lambda probe: probe.watch([silent, refusing, "GPU-nowhere"]))
    assert len(problems) == 3
    assert "kernel log" in problems[1]
    fake_gpus.fail("nvmlEventSetCreate", "NOT_SUPPORTED")
    assert "no GPU events" in asked(lambda probe: probe.watch([silent]))[0]
    fake_gpus.fail("nvmlInit", "DRIVER_NOT_LOADED")
    assert "not loaded" in asked(lambda probe: probe.watch([silent]))[0]
