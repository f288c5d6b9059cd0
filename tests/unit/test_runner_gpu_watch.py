"""What is seen of an attempt's GPUs: a curve, limits, figures to show, troubles that are ours."""

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from supervisor.core.activity import GpuActivity
from supervisor.core.events import GpuTroubleSeen, LimitExceeded
from supervisor.core.evidence import Breach, GpuUse, Limit
from supervisor.core.gpu import GpuTrouble, Severity, TroubleKind, xid_trouble
from supervisor.gpu.model import Gpu, GpuProcess, Inventory, Reading
from supervisor.gpu.probe import ProbeFailed, ProbeHung
from supervisor.runner import gpu_watch
from supervisor.runner.gpu_watch import CURVE_POINTS, GpuWatch
from supervisor.runner.listener import GpuUsage
from tests.unit.runner_fakes import FakeLoop

GIB = 1 << 30
A, B, MIG = "GPU-a", "GPU-b", "MIG-of-b"
# Addresses that no GPU has: others may be reading the kernel's log as well.
BUS_A, BUS_B = "0000:f3:00", "0000:f4:00"
WORKER, STRANGER = 77, 88


class Hung(ProbeHung):
    """A probe that did not answer, without a process behind it."""

    def __init__(self, uuid: str) -> None:
        Exception.__init__(self, "no answer")
        self.pid, self.what, self.uuid, self.abandoned = 9, "no answer within 10 s", uuid, False


class FakeGpus:
    """The GPUs of a job, as a test puts them; an exception in `answers` is raised."""

    def __init__(self, *uuids: str) -> None:
        self.now = {uuid: Reading(uuid, used_bytes=0, processes=()) for uuid in uuids}
        self.answers: list[Exception | None] = []
        self.held: Any = SimpleNamespace(
            lease=SimpleNamespace(uuids=list(uuids)), before=dict(self.now)
        )
        self.inventory = Inventory(
            "580",
            (
                Gpu(A, 0, "NVIDIA H200", BUS_A, 140 * GIB),
                Gpu(B, 1, "NVIDIA H200", BUS_B, 140 * GIB),
                Gpu(MIG, 1, "NVIDIA H200 MIG 1g.18gb", BUS_B, 18 * GIB, parent=B),
            ),
        )
        self.probe: Any = SimpleNamespace(read=self._read, troubles=asyncio.Queue())
        self.tree = lambda: frozenset({WORKER})
        self.looked_at = asyncio.Event()

    async def _read(self, uuids: tuple[str, ...]) -> tuple[Reading, ...]:
        self.looked_at.set()
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer
        return tuple(self.now[uuid] for uuid in uuids)

    def title(self, uuid: str) -> str:
        """A name for people."""
        return f"the {uuid}"

    def use(self, uuid: str, used_bytes: int, pid: int = WORKER, **figures: Any) -> None:
        """Let a process use so much."""
        processes = (GpuProcess(pid, used_bytes),)
        self.now[uuid] = Reading(uuid, used_bytes=used_bytes, processes=processes, **figures)


def watch(*uuids: str, **resources: Any) -> tuple[FakeLoop, FakeGpus, GpuWatch]:
    """A watch of an attempt that holds these."""
    loop = FakeLoop(gpus=len(uuids), **resources)
    gpus = FakeGpus(*uuids)
    return loop, gpus, GpuWatch(loop, gpus, 1)


def look(one: GpuWatch, times: int = 1) -> None:
    """Look so often."""

    async def main() -> None:
        for _ in range(times):
            await one._look()

    asyncio.run(main())


def test_the_figures_are_the_sum_and_the_mean_of_all_its_gpus() -> None:
    """Told to whoever watches, at each look; the memory is the tree's, the load the GPUs'."""
    loop, gpus, one = watch(A, B)
    gpus.use(A, 10 * GIB, utilization=100.0)
    gpus.use(B, 2 * GIB, utilization=50.0)
    look(one)
    gpus.now[B] = Reading(B, utilization=None)
    look(one)
    assert loop.listener.usages == [GpuUsage(12 * GIB, 75.0), GpuUsage(10 * GIB, 100.0)]
    assert [one.used_bytes for one in one.curve] == [12 * GIB, 10 * GIB]


def test_what_the_driver_does_not_say_is_unknown() -> None:
    """No figure is no zero: nothing is shown, and the curve has no point."""
    loop, gpus, one = watch(A)
    gpus.now[A] = Reading(A)
    look(one)
    assert loop.listener.usages == [GpuUsage(None, None)]
    assert one.curve == []
    assert one.activity() == (GpuActivity(A, None, None, None, None),)
    assert "memory ?, processes: unknown" in one.lines()[0]


def test_without_a_lease_there_is_nothing_to_see() -> None:
    """It may have been given back a moment ago."""
    loop, gpus, one = watch(A)
    gpus.held = None
    look(one)
    asyncio.run(one._trouble(GpuTrouble(A, TroubleKind.XID, 79, "", Severity.AVOID, 0)))
    assert (loop.fed, loop.listener.usages, one.latest) == ([], [], ())


def test_the_curve_stays_short_and_spans_the_whole_attempt() -> None:
    """A day of looks every two seconds is told in at most so many points, evenly apart."""
    loop, _, one = watch(A)
    for n in range(43_200):
        loop.now = 1000.0 + 2 * n
        one._remember(n)
    assert len(one.curve) <= CURVE_POINTS
    assert len(one.curve) > CURVE_POINTS // 2 - 1
    assert one.curve[0] == GpuUse(0.0, 0)
    gaps = {after.after_s - before.after_s for before, after in pairwise(one.curve)}
    assert gaps == {1024.0}
    assert one.curve[-1].after_s > 86_400 - 1024


def test_a_limit_is_told_of_once_and_the_hard_one_first() -> None:
    """Each of them is journaled and told to people: not at every look until the worker is gone."""
    loop, gpus, one = watch(A, gpu_memory="20GiB", gpu_memory_soft="10GiB")
    gpus.use(A, 12 * GIB)
    look(one, 3)
    soft = Breach(Limit.GPU_MEMORY_SOFT, 12 * GIB, 10 * GIB, f"the {A}")
    assert loop.fed == [LimitExceeded(1, soft)]
    gpus.use(A, 30 * GIB)
    look(one, 3)
    hard = Breach(Limit.GPU_MEMORY, 30 * GIB, 20 * GIB, f"the {A}")
    assert loop.fed == [LimitExceeded(1, soft), LimitExceeded(1, hard)]


def test_limits_are_of_each_gpu() -> None:
    """Twice 8 GiB is no breach of 10; memory of others on it is none either."""
    loop, gpus, one = watch(A, B, gpu_memory="10GiB")
    gpus.use(A, 8 * GIB)
    gpus.use(B, 8 * GIB)
    look(one)
    assert loop.fed == []
    gpus.use(B, 11 * GIB)
    look(one)
    assert [event.breach.where for event in loop.fed] == [f"the {B}"]


def test_on_a_shared_gpu_only_its_own_processes_count() -> None:
    """What others took since is not the job's, although the device shows it."""
    loop, gpus, one = watch(A, gpu_memory="10GiB", share_gpu=True)
    gpus.use(A, 100 * GIB, pid=STRANGER)
    look(one)
    assert (loop.fed, one.curve) == ([], [])


def test_a_driver_that_hangs_is_told_of_once_and_blinds() -> None:
    """The worker may be well. What was seen before says nothing of now, so it is not kept."""
    loop, gpus, one = watch(A, B)
    gpus.use(A, GIB, utilization=100.0, power_w=90.0, power_limit_w=700.0)
    look(one)
    gpus.answers = [Hung(""), Hung(B), Hung(B)]
    look(one, 3)
    troubles = [event.trouble for event in loop.fed if isinstance(event, GpuTroubleSeen)]
    assert [(told.uuid, told.kind) for told in troubles] == [
        (A, TroubleKind.DRIVER_HUNG),
        (B, TroubleKind.DRIVER_HUNG),
    ]
    assert "does not answer" in troubles[0].text
    assert [figures.utilization for figures in one.activity()] == [None, None]
    assert loop.listener.usages[1:] == [GpuUsage()] * 3


def test_a_probe_that_fails_is_a_warning_once() -> None:
    """No fault of a GPU: the job goes on unwatched, and says so."""
    loop, gpus, one = watch(A)
    gpus.answers = [ProbeFailed("no pynvml"), ProbeFailed("no pynvml"), ProbeFailed("other")]
    look(one, 4)
    assert loop.listener.warnings == [
        "the GPUs cannot be watched: no pynvml",
        "the GPUs cannot be watched: other",
    ]
    assert loop.fed == []


def test_the_last_look_in_words() -> None:
    """For the evidence of a hang: figures, limits, and who is on it."""
    _, gpus, one = watch(A)
    figures = {"utilization": 100.0, "memory_utilization": 0.0, "power_w": 99.5}
    gpus.use(A, 3 * GIB, **figures, power_limit_w=700.0)
    look(one)
    (line,) = one.lines()
    assert line == (
        f"the {A} {A}: utilization 100.0 %, memory traffic 0.0 %, power 99.5 W of 700.0 W, "
        "memory 3.0 GiB, processes: 77 (3.0 GiB)"
    )


@pytest.mark.parametrize(
    ("held", "about", "code", "ours"),
    [
        (A, A, 79, A),
        (A, B, 79, None),
        (B, MIG, 79, None),
        (MIG, MIG, 79, B),
        (MIG, B, 79, B),
        (MIG, MIG, 31, MIG),
        (MIG, B, 31, MIG),
    ],
)
def test_a_trouble_is_joined_to_the_gpu_that_is_held(
    held: str, about: str, code: int, ours: str | None
) -> None:
    """What spoils an instance or its parent spoils the parent; a stranger's is none of ours."""
    loop, _, one = watch(held)
    for _ in range(2):
        asyncio.run(one._trouble(xid_trouble(about, code, 5.0)))
    assert [event.trouble.uuid for event in loop.fed] == ([] if ours is None else [ours])
    assert all(event.trouble.code == code for event in loop.fed)


def test_two_instances_of_one_gpu_have_one_trouble() -> None:
    """It is told of once, although both are held."""
    loop, gpus, one = watch(MIG, "MIG-2")
    second = replace(gpus.inventory.gpus[-1], uuid="MIG-2")
    gpus.inventory = replace(gpus.inventory, gpus=(*gpus.inventory.gpus, second))
    asyncio.run(one._trouble(xid_trouble(B, 79, 5.0)))
    assert [event.trouble.uuid for event in loop.fed] == [B]


@pytest.fixture
def kernel_says() -> Iterator[Callable[[str], object]]:
    """Give a way to write into the kernel's log."""
    try:
        device = os.open("/dev/kmsg", os.O_WRONLY)
    except OSError as error:
        pytest.skip(f"/dev/kmsg cannot be written here: {error.strerror}")
    yield lambda text: os.write(device, f"<4>{text}\n".encode())
    os.close(device)


def running(one: GpuWatch, story: Any) -> None:
    """Tell a story while the watch looks; it ends when the story does."""

    async def main() -> None:
        watching = asyncio.create_task(one.run())
        try:
            async with asyncio.timeout(20):
                await story()
        finally:
            watching.cancel()
            await asyncio.wait({watching})
        assert watching.cancelled()

    asyncio.run(main())


def test_the_kernels_log_speaks_where_the_driver_reports_nothing(
    kernel_says: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An Xid is joined by the address on the bus; the same one from both sources is told once."""
    monkeypatch.setattr(gpu_watch, "LOOK_S", 0.001)
    loop, gpus, one = watch(A)
    kernel_says(f"NVRM: Xid (PCI:{BUS_A}): 48, pid=1, before the attempt")

    async def story() -> None:
        gpus.use(A, GIB)
        await gpus.looked_at.wait()
        gpus.looked_at.clear()
        await gpus.looked_at.wait()  # for the second time, so the log is open
        kernel_says(f"NVRM: Xid (PCI:{BUS_B}): 79, pid=1, another GPU")
        kernel_says(f"NVRM: Xid (PCI:{BUS_A.upper()}): 79, pid=1, GPU has fallen off the bus.")
        told = await loop.heard(GpuTroubleSeen)
        assert (told.number, told.trouble.uuid, told.trouble.code) == (1, A, 79)
        assert told.trouble.severity is Severity.AVOID
        again = GpuTrouble(A, TroubleKind.XID, 79, "by NVML", Severity.AVOID, 5.0)
        gpus.probe.troubles.put_nowait(again)
        gpus.probe.troubles.put_nowait(
            GpuTrouble(A, TroubleKind.ECC, None, "ECC", Severity.RESET, 6.0)
        )
        while len(loop.fed) < 2:
            loop.fed_one.clear()
            await loop.fed_one.wait()

    running(one, story)
    kinds = [(event.trouble.kind, event.trouble.code) for event in loop.fed]
    assert kinds == [(TroubleKind.XID, 79), (TroubleKind.ECC, None)]
