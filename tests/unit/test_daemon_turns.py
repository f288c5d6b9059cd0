"""Turns: what is wanted of a job while something else is being done with it, or with the host."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.causes import State
from supervisor.daemon import aftermath, placing
from supervisor.daemon.contracts import Conflict, NoSuchJob, ShelfUnavailable
from supervisor.daemon.retention import Keep
from supervisor.queue.model import Group, Phase
from supervisor.queue.plan import GpuTaker, Plan, Situation, plan
from supervisor.queue.store import Queue, QueueUnavailable
from tests.unit.daemon_world import (
    ANN,
    BOB,
    BrokenQueue,
    Gate,
    idle,
    in_a_hurry,  # noqa: F401 - the fixture is used by name
    outcome,
    until,
    world,
)

pytestmark = pytest.mark.usefixtures("hurried")
FULL = ShelfUnavailable("no space left on device")


def test_three_verbs_about_one_job_take_turns(tmp_path: Path) -> None:
    """The third does not slip in between when the first is done and the second at it."""

    async def story() -> None:
        async with world(tmp_path) as here:
            job = await here.ended(ANN, "job")
            first = here.shelf(ANN).hold("requeue")
            second = here.shelf(ANN).hold("remove", after=True)
            retry = asyncio.create_task(outcome(here.daemon.retry(ANN, job, "quarantined")))
            await first.reached.wait()
            removal = asyncio.create_task(outcome(here.daemon.remove(ANN, job)))
            await idle()
            first.open()
            await second.reached.wait()
            resume = asyncio.create_task(outcome(here.daemon.resume(ANN, job)))
            await idle()
            second.open()
            assert isinstance(await retry, Conflict)
            assert await removal == f"{job} is removed"
            assert isinstance(await resume, NoSuchJob)
            assert here.runners.launched == [job]

    asyncio.run(story())


def test_a_refused_job_leaves_nothing_though_its_shelf_cannot_undo(tmp_path: Path) -> None:
    """Its owner hears why it was refused; nobody places it."""

    async def story() -> None:
        async with world(tmp_path) as here:
            here.shelf(ANN).refuse("accept", Conflict("another one"))
            here.shelf(ANN).refuse("remove", FULL)
            with pytest.raises(Conflict):
                await here.submit(ANN, "job")
            await here.running(BOB, "other")
            assert [one.uid for one in here.on_disk()] == [BOB.uid]
            assert [one.uid for one in here.daemon.roster.all()] == [BOB.uid]

    asyncio.run(story())


class GroupsRefuse(Queue):
    """A queue whose disk is full just when a group is noted."""

    def change_group(self, group: Group, kind: str, **_detail: Any) -> None:
        """Refuse."""
        raise QueueUnavailable(f"{group.name}: {kind}: no space left on device")


def test_a_job_whose_group_cannot_be_noted_is_not_accepted(tmp_path: Path) -> None:
    """All of a submission, or nothing."""

    async def story() -> None:
        async with world(tmp_path, queue=GroupsRefuse) as here:
            with pytest.raises(ShelfUnavailable):
                await here.submit(ANN, "job", group="sweep", hold_after=2)
            await here.running(BOB, "other")
            assert [one.uid for one in here.on_disk()] == [BOB.uid]
            assert len(here.runners.launched) == 1

    asyncio.run(story())


def test_retention_and_resume_of_one_job(tmp_path: Path) -> None:
    """Who is being removed is not resumed."""

    async def story() -> None:
        async with world(tmp_path) as here:
            job = await here.ended(ANN, "job")
            gate = here.shelf(ANN).hold("remove")
            here.shelf(ANN).say("old", {"ids": [job]})
            await here.again(Keep(age_s=60.0))
            await gate.reached.wait()
            resume = asyncio.create_task(outcome(here.daemon.resume(ANN, job)))
            await idle()
            gate.open()
            await until(lambda: here.entry(job) is None)
            assert isinstance(await resume, NoSuchJob)
            assert here.runners.launched == [job]

    asyncio.run(story())


def test_parking_stops_a_runner_that_is_being_launched(tmp_path: Path) -> None:
    """It is told when it is there."""

    async def story() -> None:
        async with world(tmp_path) as here:
            here.runners.obedient = True
            here.runners.gate = gate = Gate()
            (job,) = await here.submit(ANN, "job")
            await gate.reached.wait()
            parking = asyncio.create_task(here.daemon.park())
            await idle()
            gate.open()
            await here.until_in(Phase.WAITING, job)
            await parking
            assert here.runners.told[job] == [False]

    asyncio.run(story())


def test_parking_does_not_wait_for_a_job_between_two_runners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody will end it: the next daemon launches it."""
    monkeypatch.setattr(aftermath, "wait_s", lambda _lost: 3600.0)

    async def story() -> None:
        async with world(tmp_path) as here:
            (job,) = await here.running(ANN, "job")
            here.runners.end(job, None)
            await until(lambda: (one := here.entry(job)) and one.launches == 2)
            async with asyncio.timeout(10):
                await here.daemon.park()

    asyncio.run(story())


@pytest.mark.parametrize("broken", [False, True])
def test_a_kill_while_the_runner_is_launched(tmp_path: Path, *, broken: bool) -> None:
    """It is told when it is there, by force; also where the wish could not be noted."""

    async def story() -> None:
        async with world(tmp_path, queue=BrokenQueue) as here:
            here.runners.gate = gate = Gate()
            (job,) = await here.submit(ANN, "job")
            await gate.reached.wait()
            queue = here.daemon.parts.queue
            assert isinstance(queue, BrokenQueue)
            queue.broken = broken
            await here.daemon.stop(ANN, job, kill=True)
            gate.open()
            await until(lambda: job in here.daemon.dispatch.runners)
            await until(lambda: here.runners.told[job] == [True])
            await idle()
            assert here.runners.told[job] == [True]

    asyncio.run(story())


def test_a_plan_that_failed_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though nothing else happens."""
    faults = [KeyError("a fault of ours")]

    def planned(situation: Situation, gpus: GpuTaker) -> Plan:
        if faults:
            raise faults.pop()
        return plan(situation, gpus)

    async def story() -> None:
        async with world(tmp_path) as here:
            await here.running(ANN, "before")
            await idle()
            monkeypatch.setattr(placing, "plan", planned)
            await here.running(ANN, "job")

    asyncio.run(story())


@pytest.mark.parametrize("state", [State.FAILED, None])
def test_a_cancel_while_the_end_cannot_be_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: State | None
) -> None:
    """The disk recovers, the cancel is noted first: it holds."""
    monkeypatch.setattr(aftermath, "UNSTORED_S", 0.5)

    async def story() -> None:
        async with world(tmp_path, queue=BrokenQueue) as here:
            (job,) = await here.running(ANN, "job")
            queue = here.daemon.parts.queue
            assert isinstance(queue, BrokenQueue)
            queue.broken = True
            here.runners.end(job, state)
            await until(lambda: queue.refused)
            queue.broken = False
            here.runners.obedient = True
            await here.daemon.cancel(ANN, job)
            await here.until_in(Phase.ENDED, job)
            entry = here.entry(job)
            assert entry is not None
            assert entry.state is State.CANCELLED

    asyncio.run(story())


@pytest.mark.parametrize("verb", ["stop", "cancel"])
def test_a_job_that_is_not_on_its_shelf_yet_is_ended(tmp_path: Path, verb: str) -> None:
    """And does not come to the shelf as one that waits."""

    async def story() -> None:
        async with world(tmp_path) as here:
            shelf = here.shelf(ANN)
            shelf.refuse("accept", FULL)
            (job,) = await here.submit(ANN, "job")
            answer = await outcome(getattr(here.daemon, verb)(ANN, job))
            assert isinstance(answer, str), answer
            shelf.mend("accept")
            await until(lambda: here.daemon.parts.queue.unshelved() == [])
            assert here.is_in(Phase.ENDED, job)
            assert here.journal_state(ANN, job) in {State.STOPPED, State.CANCELLED}

    asyncio.run(story())
