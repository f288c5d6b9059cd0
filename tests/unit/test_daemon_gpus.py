"""The daemon's view of the GPUs: a real probe on a fake driver, and real lease files."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from supervisor.daemon import gpus as gpus_module
from supervisor.daemon.contracts import Conflict
from supervisor.daemon.gpus import GpuDesk
from supervisor.gpu.free import Want
from supervisor.gpu.leases import Lease, Leases, Owner, lease_folder
from supervisor.gpu.model import Gpu, Inventory, Reading
from supervisor.gpu.probe import Probe
from supervisor.host import identity
from supervisor.queue.model import Entry, Needs
from supervisor.queue.plan import OutOfReach, plan
from tests.fake_nvml.driver import GIB, NvmlDriver
from tests.unit.queue_entries import entry, situation, started

ONE, TWO = Needs(gpus=1), Needs(gpus=2)
SHORT_S = 0.4  # a deadline for a driver that hangs; a probe starts within it, or is given longer
LONG_S = 20.0

Story = Callable[[GpuDesk], Awaitable[None]]


def told(story: Story, timeout_s: float = LONG_S) -> None:
    """Live through a story with a desk, and see that nothing of it is left."""

    async def main() -> None:
        desk = GpuDesk(timeout_s)
        try:
            await story(desk)
        finally:
            pid = desk.probe_pid
            await desk.close()
            assert pid is None or not psutil.pid_exists(pid)

    asyncio.run(main())


def probes() -> list[psutil.Process]:
    """The probes that this process has started."""
    return [one for one in psutil.Process().children() if "probe_main" in str(one.cmdline())]


@pytest.fixture
def lease(fake_gpus: NvmlDriver) -> Any:
    """Lease GPUs as a runner does; all are let go at the end."""
    with ExitStack() as held:

        def take(job_id: str, *uuids: str, share: bool = False, memory: int | None = None) -> Lease:
            wanted = tuple(Gpu(uuid, 0, "H200", "", 140 * GIB) for uuid in uuids)
            idle = tuple(Reading(uuid, 0, processes=()) for uuid in uuids)
            ticks = identity.start_ticks(os.getpid()) or 0
            owner = Owner(job_id, "/state", os.getpid(), ticks, identity.boot_id())
            want = Want(len(uuids), memory, share=share)
            found = Leases(lease_folder()).acquire(want, Inventory("", wanted), idle, owner)
            assert isinstance(found, Lease), str(found)
            held.callback(found.release)
            return found

        yield take


def running(job_id: str, needs: Needs = ONE, seq: int = 1) -> Entry:
    """A started job."""
    return started(entry(seq, needs, id=job_id))


def test_nothing_is_asked_before_somebody_wants_gpus(fake_gpus: NvmlDriver) -> None:
    """No process, no thread; what is not known is neither free nor impossible."""

    async def story(desk: GpuDesk) -> None:
        desk.placed("a", ONE, ())
        desk.gone("a")
        assert desk.impossible(Needs(gpus=99)) is None
        why = desk.taker([]).take(ONE)
        assert isinstance(why, OutOfReach)
        assert why == "nobody has looked at the GPUs yet"
        assert desk.probe_pid is None
        assert probes() == []

    told(story)


def test_gpus_are_given_once(fake_gpus: NvmlDriver) -> None:
    """Within one plan; the next plan begins anew, less what was placed."""
    first, second = (gpu.uuid for gpu in fake_gpus.gpus)

    async def story(desk: GpuDesk) -> None:
        await desk.look()
        taker = desk.taker([])
        assert [taker.take(ONE), taker.take(ONE)] == [(first,), (second,)]
        why = taker.take(ONE)
        assert not isinstance(why, OutOfReach)
        assert why.startswith("none of 2 is free; GPU 0 (GPU-00000000…, NVIDIA H200): given to a ")
        assert desk.taker([]).take(TWO) == (first, second)
        desk.placed("a", ONE, (second,))
        taker = desk.taker([running("a")])
        assert taker.take(ONE) == (first,)
        why = desk.taker([running("a")]).take(TWO)
        assert "only 1 of 2 is free" in why
        assert "NVIDIA H200): given to a, which is starting" in why

    told(story)


def test_a_plan_with_these_words(fake_gpus: NvmlDriver) -> None:
    """What `ps` shows of two jobs of which one has to wait."""

    async def story(desk: GpuDesk) -> None:
        await desk.look()
        found = plan(situation(entry(1, ONE), entry(2, TWO), entry(3, ONE)), desk.taker([]))
        assert [one.id for one in found.starts] == ["job-1", "job-3"]
        assert found.waits["job-2"].startswith("waits for 2 GPUs: only 1 of 2 is free; GPU 0 (")

    told(story)


def test_a_lease_takes_the_place_of_what_was_given(fake_gpus: NvmlDriver, lease: Any) -> None:
    """The runner leased another one than it was given: that one is taken, the other is free."""
    first, second = (gpu.uuid for gpu in fake_gpus.gpus)

    async def story(desk: GpuDesk) -> None:
        await desk.look()
        desk.placed("a", ONE, (first,))
        held = lease("a", second)
        await desk.look()
        assert desk.taker([running("a")]).take(ONE) == (first,)
        held.release()
        await desk.look()  # between two attempts: it will lease one again
        assert desk.taker([running("a")]).take(TWO) not in {(first, second), (second, first)}
        desk.gone("a")
        assert desk.taker([]).take(TWO) == (first, second)

    told(story)


def test_a_foreign_lease_counts(fake_gpus: NvmlDriver, lease: Any) -> None:
    """What `supervise run` holds is not given, and named; it ends some day, so it is waited for."""
    first, second = (gpu.uuid for gpu in fake_gpus.gpus)
    lease("digits-3fa2", first)

    async def story(desk: GpuDesk) -> None:
        await desk.look()
        assert desk.taker([]).take(ONE) == (second,)
        why = desk.taker([]).take(TWO)
        assert f"leased to job digits-3fa2 (runner {os.getpid()}) since" in why
        assert not isinstance(why, OutOfReach)

    told(story)


def test_a_started_job_comes_before_those_that_wait(fake_gpus: NvmlDriver) -> None:
    """Its GPU was taken by a stranger: the other one is kept for it, and no one else gets it."""
    first, second = (gpu.uuid for gpu in fake_gpus.gpus)

    async def story(desk: GpuDesk) -> None:
        await desk.look()
        desk.placed("a", ONE, (first,))
        fake_gpus.add_process(first, 1)
        await desk.look()
        assert "none of 2 is free" in desk.taker([running("a")]).take(ONE)
        desk.placed("b", TWO, (first, second))
        taker = desk.taker([running("b", TWO)])
        assert "none of 2 is free" in taker.take(ONE)  # b waits for two, and one is kept for it

    told(story)


def test_after_a_restart_a_started_job_is_remembered(fake_gpus: NvmlDriver) -> None:
    """Which GPUs it was given is not known any more; that it will lease some is."""

    async def story(desk: GpuDesk) -> None:
        await desk.look()
        desk.placed("a", ONE, ())
        taker = desk.taker([running("a"), running("no-gpus", Needs())])
        assert len(taker.take(ONE)) == 1
        assert "given to a, which is starting" in taker.take(ONE)

    told(story)


def test_gpus_that_are_shared(fake_gpus: NvmlDriver, lease: Any) -> None:
    """Jobs that said how much memory they need share a GPU as far as it goes, leased or not."""
    first = fake_gpus.gpus[0].uuid
    fake_gpus.remove_gpu(fake_gpus.gpus[1].uuid)
    part = Needs(gpus=1, gpu_memory_bytes=50 * GIB, share_gpu=True)
    lease("a", first, share=True, memory=50 * GIB)

    async def story(desk: GpuDesk) -> None:
        await desk.look()
        taker = desk.taker([running("a", part)])
        assert taker.take(part) == (first,)
        assert "100.0 GiB of its 140.0 GiB are promised" in taker.take(part)
        assert "leased to" in taker.take(ONE) or "shared by" in taker.take(ONE)

    told(story)


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        (Needs(gpus=3), "the job wants 3 GPUs, this host has 2"),
        (Needs(gpus=1, gpu_memory_bytes=200 * GIB), "the largest has 140.0 GiB"),
        (TWO, None),
        (Needs(), None),
    ],
)
def test_what_is_impossible(fake_gpus: NvmlDriver, needs: Needs, said: str | None) -> None:
    """The reason in the words of `gpu.free`, though all GPUs are busy; the plan says the same."""
    for gpu in fake_gpus.gpus:
        fake_gpus.add_process(gpu.uuid, 1)

    async def story(desk: GpuDesk) -> None:
        await desk.look()
        why = desk.impossible(needs)
        if said is None:
            assert why is None
        else:
            assert why is not None
            assert said in why
            refused = desk.taker([]).take(needs)
            assert isinstance(refused, OutOfReach)
            assert said in refused

    told(story)


def test_nothing_is_impossible_while_the_list_is_not_sure(fake_gpus: NvmlDriver) -> None:
    """A GPU that cannot be opened may come back: the job is accepted, and told why it waits."""
    fake_gpus.fail("nvmlDeviceGetHandleByIndex", "NO_PERMISSION", fake_gpus.gpus[0].uuid)

    async def story(desk: GpuDesk) -> None:
        await desk.look()
        assert desk.impossible(TWO) is None
        why = desk.taker([]).take(TWO)
        assert isinstance(why, OutOfReach)
        assert "GPU 0 cannot be listed" in why
        assert desk.problem is not None
        fake_gpus.mend()
        await desk.look(anew=True)
        assert desk.problem is None
        assert len(desk.taker([]).take(TWO)) == 2

    told(story)


def test_no_driver(monkeypatch: pytest.MonkeyPatch, fake_driver: NvmlDriver) -> None:
    """The reason names what is missing; nobody is refused for good."""
    fake_driver.fail("nvmlInit", "DRIVER_NOT_LOADED")

    async def story(desk: GpuDesk) -> None:
        await desk.look()
        assert desk.impossible(ONE) is None
        assert "modprobe nvidia" in desk.taker([]).take(ONE)
        assert "modprobe nvidia" in (desk.problem or "")
        assert await desk.documents() == []

    told(story)


def test_a_driver_that_hangs(fake_gpus: NvmlDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look ends in time, all are told, the next ones wait for nobody; and it may come back."""
    monkeypatch.setattr(gpus_module, "REST_S", 0.0)

    async def story(desk: GpuDesk) -> None:
        loop = asyncio.get_running_loop()
        fake_gpus.block("nvmlInit")
        for limit_s in (SHORT_S, gpus_module.IMPATIENT_S):
            began_s = loop.time()
            await desk.look()
            assert loop.time() - began_s < limit_s + 1.0
            why = desk.taker([]).take(ONE)
            assert isinstance(why, OutOfReach)
            assert "the NVIDIA driver does not answer" in why
            assert desk.impossible(Needs(gpus=99)) is None
        fake_gpus.mend()
        async with asyncio.timeout(LONG_S):
            while desk.problem is not None:
                await desk.look()
        assert len(desk.taker([]).take(TWO)) == 2

    told(story, SHORT_S)


def test_a_driver_that_hangs_is_left_alone_for_a_while(fake_gpus: NvmlDriver) -> None:
    """Behind the one that found out, looks answer at once and ask nothing."""

    async def story(desk: GpuDesk) -> None:
        fake_gpus.block("nvmlInit")
        async with asyncio.timeout(LONG_S):
            while "the probe" not in (desk.problem or ""):  # its own words, once it was killed
                await desk.look()
        began_s = time.monotonic()
        for _ in range(100):
            await desk.look()
        assert time.monotonic() - began_s < 1.0
        assert probes() == []

    told(story, SHORT_S)


def test_one_gpu_that_hangs_does_not_hide_the_other(fake_gpus: NvmlDriver) -> None:
    """It is asked once, then left alone; the other is given as ever, and quickly."""
    bad, good = (gpu.uuid for gpu in fake_gpus.gpus)

    async def story(desk: GpuDesk) -> None:
        await desk.look()
        fake_gpus.block("nvmlDeviceGetMemoryInfo", bad)
        async with asyncio.timeout(LONG_S):
            while desk.problem is not None or desk.taker([]).take(TWO) == (bad, good):
                await desk.look()
        began_s = time.monotonic()
        await desk.look()
        assert time.monotonic() - began_s < SHORT_S
        assert desk.taker([]).take(ONE) == (good,)
        why = desk.taker([]).take(TWO)
        assert isinstance(why, OutOfReach)
        assert "the driver names neither its processes nor the memory in use" in why
        fake_gpus.mend()
        await desk.look(anew=True)
        assert desk.taker([]).take(TWO) == (bad, good)

    told(story, 2.0)


def test_looks_at_once_are_one_look(fake_gpus: NvmlDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred who ask at the same time are answered by the one that runs and one more."""

    async def story(desk: GpuDesk) -> None:
        await desk.look()
        asked, read = [], Probe.read

        async def counted(probe: Probe, uuids: Any) -> Any:
            asked.append(1)
            return await read(probe, uuids)

        monkeypatch.setattr(Probe, "read", counted)
        await asyncio.gather(*(desk.look() for _ in range(100)))
        assert 1 <= len(asked) <= 2

    told(story)


def test_a_look_is_of_the_time_it_was_asked_for(fake_gpus: NvmlDriver) -> None:
    """One that was under way when a GPU came free does not count for who asks after that."""
    first, second = (gpu.uuid for gpu in fake_gpus.gpus)
    fake_gpus.add_process(first, 1)

    async def story(desk: GpuDesk) -> None:
        await desk.look()
        fake_gpus.block("nvmlDeviceGetMemoryInfo", second, 0.2)  # while it reads the second one
        early = asyncio.create_task(desk.look())
        await asyncio.sleep(0)
        fake_gpus.remove_process(first, 1)
        await desk.look()
        assert desk.taker([]).take(TWO) == (first, second)
        await early

    told(story)


def test_a_stranger_is_waited_for_only_so_long(
    fake_gpus: NvmlDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process without a lease may be that of a job which just ended; after a while it is not."""
    fake_gpus.add_process(fake_gpus.gpus[0].uuid, 1)

    async def story(desk: GpuDesk) -> None:
        await desk.look()
        why = desk.taker([]).take(TWO)
        assert "used by process 1" in why
        assert not isinstance(why, OutOfReach)
        monkeypatch.setattr(gpus_module, "STRANGER_S", 0.0)
        await desk.look()
        assert isinstance(desk.taker([]).take(TWO), OutOfReach)

    told(story)


def test_set_aside_and_released(fake_gpus: NvmlDriver) -> None:
    """One that is set aside is out of reach until it is released, by this very desk."""
    first, second = (gpu.uuid for gpu in fake_gpus.gpus)
    leases = Leases(lease_folder())
    leases.set_aside(first, "Xid 79", Owner("a", "/state", 1, 1, identity.boot_id()))

    async def story(desk: GpuDesk) -> None:
        await desk.look()
        assert desk.taker([]).take(ONE) == (second,)
        why = desk.taker([]).take(TWO)
        assert isinstance(why, OutOfReach)
        assert "set aside: Xid 79; release it with: supervise gpus --release 0" in why
        (said,) = (await desk.documents())[0]["set_aside"]
        assert (said["reason"], said["job"], said["since"][-1]) == ("Xid 79", "a", "Z")
        assert await desk.release(first)
        assert not await desk.release(first)
        await desk.look()
        assert desk.taker([]).take(TWO) == (first, second)

    told(story)


def test_a_lease_folder_that_cannot_be_trusted(fake_gpus: NvmlDriver, tmp_path: Path) -> None:
    """Nothing is given while nobody can know what is leased, and that is said."""
    lease_folder().parent.mkdir(parents=True, exist_ok=True)
    lease_folder().symlink_to(tmp_path)

    async def story(desk: GpuDesk) -> None:
        await desk.look()
        why = desk.taker([]).take(ONE)
        assert isinstance(why, OutOfReach)
        assert str(lease_folder()) in why
        with pytest.raises(Conflict, match="stays set aside"):
            await desk.release("GPU-1")
        assert {one["state"] for one in await desk.documents()} == {"unknown"}

    told(story)


def test_documents(fake_gpus: NvmlDriver, lease: Any) -> None:
    """Every GPU as `supervise gpus --json` shows it, asked for at that moment."""
    first, second = (gpu.uuid for gpu in fake_gpus.gpus)
    lease("digits-3fa2", first, memory=20 * GIB)
    fake_gpus.add_process(second, 1, None)

    async def story(desk: GpuDesk) -> None:
        one, two = await desk.documents()
        assert (one["uuid"], one["index"], one["state"]) == (first, 0, "leased")
        assert one["total_bytes"] == 140 * GIB
        (held,) = one["leases"]
        assert (held["job"], held["runner_alive"]) == ("digits-3fa2", True)
        assert held["memory_bytes"] == 20 * GIB
        assert held["since"].endswith("Z")
        assert (two["state"], two["leases"], two["set_aside"]) == ("used", [], [])
        assert [each["pid"] for each in two["processes"]] == [1]

    told(story)


def test_a_probe_that_is_killed_is_replaced(fake_gpus: NvmlDriver) -> None:
    """A look or two later all is as before."""

    async def story(desk: GpuDesk) -> None:
        await desk.look()
        (probe,) = probes()
        probe.kill()
        async with asyncio.timeout(LONG_S):
            while desk.probe_pid in {None, probe.pid} or desk.problem is not None:
                await desk.look()
        assert len(desk.taker([]).take(TWO)) == 2

    told(story)


def test_closed_in_the_middle_of_a_look(fake_gpus: NvmlDriver) -> None:
    """Whoever waits for it is let go, no probe is left, and no look begins any more."""

    async def story(desk: GpuDesk) -> None:
        fake_gpus.block("nvmlInit")
        looks = [asyncio.create_task(desk.look()) for _ in range(3)]
        async with asyncio.timeout(LONG_S):
            while desk.probe_pid is None:
                await asyncio.wait(looks, timeout=0.01)
        await desk.close()
        await asyncio.gather(*looks)
        await desk.look()
        assert probes() == []

    told(story)


def test_a_job_of_the_past_is_not_counted_twice(fake_gpus: NvmlDriver, lease: Any) -> None:
    """A leased job and one that is about to lease take two GPUs, not three."""
    first, second = (gpu.uuid for gpu in fake_gpus.gpus)
    third = fake_gpus.add_gpu()
    lease("a", first)

    async def story(desk: GpuDesk) -> None:
        await desk.look()
        desk.placed("b", ONE, (second,))
        jobs = [running("a"), replace(running("b"), seq=2)]
        assert desk.taker(jobs).take(ONE) == (third,)

    told(story)
