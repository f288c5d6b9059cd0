"""The GPUs of a job between its attempts: seen clean, or set aside, or waited for."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from supervisor.core.effects import LeaseGpus, SetGpusAside
from supervisor.core.events import Event, GpusAwaited, GpusLeased, HoldRequired
from supervisor.gpu.leases import Leases
from supervisor.gpu.shared_folder import lease_folder
from supervisor.runner.gpus import Gpus
from tests.fake_nvml.driver import GIB

OTHER = 1  # a process that is no worker of ours


class Fed:
    """What was fed, in order, and a way to wait for it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.changed = asyncio.Event()

    async def __call__(self, event: Event) -> None:
        """Take one."""
        self.events.append(event)
        self.changed.set()

    async def has(self, kind: type[Event]) -> Any:
        """The next one of a kind, which must come soon."""
        async with asyncio.timeout(20):
            while not any(isinstance(one, kind) for one in self.events):
                self.changed.clear()
                await self.changed.wait()
        found = next(one for one in self.events if isinstance(one, kind))
        self.events.remove(found)
        return found


Story = Callable[[Gpus, Fed], Awaitable[None]]


@pytest.fixture
def tell(open_a_job: Any, fake_gpus: Any) -> Callable[..., None]:
    """Run a story with the GPUs of a job that wants this many; its gate waits a second."""

    def run(story: Story, **resources: Any) -> None:
        job = open_a_job(resources={"gpus": 1} | resources)

        async def main() -> None:
            fed = Fed()
            loop = asyncio.get_running_loop()
            gpus = Gpus(job, fed, loop.time, clean_s=1.0)
            try:
                await story(gpus, fed)
            finally:
                await gpus.close()

        asyncio.run(main())

    return run


def test_a_clean_gpu_is_kept_for_the_next_attempt(tell: Any, fake_gpus: Any) -> None:
    """The same one again, without asking anybody."""

    async def story(gpus: Gpus, fed: Fed) -> None:
        await gpus.lease(LeaseGpus())
        first = await fed.has(GpusLeased)
        await gpus.lease(LeaseGpus())
        second = await fed.has(GpusLeased)
        assert first.gpus == second.gpus == (fake_gpus.gpus[0].uuid,)
        assert second.refused == ()

    tell(story)


def test_the_gpu_that_it_was_placed_on_comes_first_and_only_first(
    open_a_job: Any, fake_gpus: Any
) -> None:
    """A daemon has chosen it; when it must be changed for another, that choice is over."""
    first, second = (gpu.uuid for gpu in fake_gpus.gpus)
    job = replace(open_a_job(resources={"gpus": 1}), prefer=(second,))

    async def story() -> None:
        fed = Fed()
        gpus = Gpus(job, fed, asyncio.get_running_loop().time, clean_s=1.0)
        for avoid, expected in [((), second), ((second,), first), ((), first)]:
            await gpus.lease(LeaseGpus(avoid))
            assert (await fed.has(GpusLeased)).gpus == (expected,)
        gpus.release()
        await gpus.lease(LeaseGpus())
        assert (await fed.has(GpusLeased)).gpus == (first,)
        await gpus.close()

    asyncio.run(story())


def test_one_that_is_not_given_back_is_set_aside_and_another_is_taken(
    tell: Any, fake_gpus: Any
) -> None:
    """Memory that no process owns any more: nobody gets that GPU, and the job goes on."""
    bad, good = (gpu.uuid for gpu in fake_gpus.gpus)

    async def story(gpus: Gpus, fed: Fed) -> None:
        await gpus.lease(LeaseGpus())
        await fed.has(GpusLeased)
        fake_gpus.set(bad, used=12 * GIB)
        await gpus.lease(LeaseGpus())
        again = await fed.has(GpusLeased)
        assert again.gpus == (good,)
        assert [one.uuid for one in again.refused] == [bad]
        assert "not given back" in again.refused[0].reason
        assert again.waited_s >= 1.0
        assert [one.uuid for one in Leases(lease_folder()).set_asides()] == [bad]

    tell(story)


def test_a_gpu_that_takes_its_time_is_waited_for(tell: Any, fake_gpus: Any) -> None:
    """The driver gives a dead process's memory back a moment later: the lease is kept."""
    uuid = fake_gpus.gpus[0].uuid

    async def story(gpus: Gpus, fed: Fed) -> None:
        await gpus.lease(LeaseGpus())
        await fed.has(GpusLeased)
        fake_gpus.set(uuid, used=12 * GIB)
        leasing = asyncio.create_task(gpus.lease(LeaseGpus()))
        await asyncio.sleep(0)
        fake_gpus.set(uuid, used=0)
        await leasing
        assert (await fed.has(GpusLeased)).gpus == (uuid,)

    tell(story)


def test_a_set_aside_gpu_is_changed_for_another(tell: Any, fake_gpus: Any) -> None:
    """What the last attempt's end asked for counts at once."""
    bad, good = (gpu.uuid for gpu in fake_gpus.gpus)

    async def story(gpus: Gpus, fed: Fed) -> None:
        await gpus.lease(LeaseGpus())
        await fed.has(GpusLeased)
        await gpus.set_aside(SetGpusAside((bad,), "Xid 79"))
        await gpus.lease(LeaseGpus())
        again = await fed.has(GpusLeased)
        assert (again.gpus, again.refused[0].reason) == ((good,), "Xid 79")

    tell(story)


def test_a_driver_that_hangs_is_waited_for(tell: Any, fake_gpus: Any) -> None:
    """The job says so, and goes on when it answers again; this process stays alive meanwhile."""
    fake_gpus.block("nvmlDeviceGetCount")

    async def story(gpus: Gpus, fed: Fed) -> None:
        gpus.probe._timeout_s = 1.0
        leasing = asyncio.create_task(gpus.lease(LeaseGpus()))
        waiting = await fed.has(GpusAwaited)
        assert "does not answer" in waiting.reason
        fake_gpus.mend()
        await leasing
        await fed.has(GpusLeased)

    tell(story)


def test_what_can_never_be_had_holds_the_job(tell: Any, fake_gpus: Any) -> None:
    """More memory than any GPU of this host has."""

    async def story(gpus: Gpus, fed: Fed) -> None:
        await gpus.lease(LeaseGpus())
        held = await fed.has(HoldRequired)
        assert "GiB" in held.reason

    tell(story, gpu_memory="500GiB")


def test_a_dead_worker_that_is_still_on_its_gpu_is_waited_for(tell: Any, fake_gpus: Any) -> None:
    """By its pid, also where its memory is back; a driver that keeps it spoils the GPU."""
    bad, good = (gpu.uuid for gpu in fake_gpus.gpus)

    async def story(gpus: Gpus, fed: Fed) -> None:
        await gpus.lease(LeaseGpus())
        await fed.has(GpusLeased)
        gpus.known = lambda: frozenset({4711})
        fake_gpus.add_process(bad, 4711, 0)
        await gpus.lease(LeaseGpus())
        assert (await fed.has(GpusLeased)).gpus == (good,)
        assert [one.uuid for one in Leases(lease_folder()).set_asides()] == [bad]

    tell(story)


def test_a_newcomer_on_the_gpu_is_no_fault_of_it(tell: Any, fake_gpus: Any) -> None:
    """Somebody else began to use it: another GPU is taken, and this one is not set aside."""
    taken, free = (gpu.uuid for gpu in fake_gpus.gpus)

    async def story(gpus: Gpus, fed: Fed) -> None:
        await gpus.lease(LeaseGpus())
        await fed.has(GpusLeased)
        fake_gpus.add_process(taken, OTHER, 12 * GIB)
        await gpus.lease(LeaseGpus())
        assert (await fed.has(GpusLeased)).gpus == (free,)
        assert Leases(lease_folder()).set_asides() == []

    tell(story)
