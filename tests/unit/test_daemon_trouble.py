"""Shelves, queues and plans that refuse, hang, lie or break: whose trouble it is, and whose not."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.causes import State
from supervisor.daemon import placing, shared
from supervisor.daemon.contracts import Conflict, NoSuchJob, ShelfUnavailable, Unacceptable
from supervisor.daemon.dispatch import FORGOTTEN
from supervisor.daemon.retention import Keep
from supervisor.queue.model import Phase, Wish
from supervisor.queue.plan import GpuTaker, Plan, Situation, plan
from tests.unit.daemon_world import (
    ANN,
    BOB,
    CEM,
    SURROUNDINGS,
    BrokenQueue,
    idle,
    in_a_hurry,  # noqa: F401 - the fixture is used by name
    outcome,
    until,
    world,
)

pytestmark = pytest.mark.usefixtures("hurried")
FULL = ShelfUnavailable("no space left on device")


def test_retention_believes_no_shelf_about_others(tmp_path: Path) -> None:
    """One that calls another user's job old has its own removed, and that one stays."""

    async def story() -> None:
        async with world(tmp_path) as here:
            hers = await here.ended(ANN, "hers", State.SUCCEEDED)
            his = await here.ended(BOB, "his", State.SUCCEEDED)
            here.shelf(ANN).say("old", {"ids": []})
            here.shelf(BOB).say("old", {"ids": [hers, his]})
            here.shelf(BOB).say("remove", {})
            await here.again(Keep(age_s=60.0))
            await until(lambda: here.entry(his) is None)
            assert [one.id for one in here.on_disk()] == [hers]
            assert here.journal_state(ANN, hers) is State.SUCCEEDED

    asyncio.run(story())


@pytest.mark.parametrize("barred", [False, True])
def test_a_listing_goes_without_a_shelf_that_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, barred: bool
) -> None:
    """Others are listed as ever; of its jobs the queue says what it knows."""
    monkeypatch.setattr(shared, "FRESH_S", 0.0)

    async def story() -> None:
        async with world(tmp_path) as here:
            jobs = [job for peer in (ANN, BOB, CEM) for job in await here.running(peer, "net")]
            before = await here.daemon.jobs(ANN)
            here.shelf(BOB).refuse("listing", FULL)
            if barred:
                here.shelves.barred[BOB.uid] = FULL
            after = await here.daemon.jobs(ANN)
            assert [one["id"] for one in after] == jobs
            assert [after[0], after[2]] == [before[0], before[2]]
            assert set(after[1]) >= set(before[1])
            told = {key: after[1][key] for key in ("name", "uid", "state", "phase", "launches")}
            running = {"state": "running", "phase": "started", "launches": 1}
            assert told == {"name": "net", "uid": BOB.uid} | running

    asyncio.run(story())


def test_a_shelf_speaks_of_its_users_jobs_alone(tmp_path: Path) -> None:
    """What it says of another user's is not listed."""

    async def story() -> None:
        async with world(tmp_path) as here:
            (hers,) = await here.running(ANN, "net")
            (his,) = await here.running(BOB, "net")
            row = (await here.shelf(ANN).really("listing", ids=[hers]))[0]
            lies = [row | {"id": his, "why": "hang: his"}, row | {"id": hers, "why": "a lie"}]
            here.shelf(ANN).refuse("listing", FULL)
            here.shelf(BOB).say("listing", lies)
            listed = await here.daemon.jobs(ANN)
            assert {one["id"]: one["why"] for one in listed} == {hers: "", his: "hang"}

    asyncio.run(story())


def test_a_start_does_not_wait_for_a_shelf_that_hangs(tmp_path: Path) -> None:
    """Others' runners are found and their jobs placed; what hangs is done when it answers."""

    async def story() -> None:
        async with world(tmp_path) as here:
            (his,) = await here.running(BOB, "his")
            (hers,) = await here.running(ANN, "hers")
            gates = [here.shelf(BOB).hold(question) for question in ("sweep", "runner")]
            await here.again()
            assert hers in here.daemon.dispatch.runners
            assert his not in here.daemon.dispatch.runners
            await here.running(ANN, "next")
            await here.daemon.stop(BOB, his)
            for gate in gates:
                assert gate.reached.is_set()
                gate.open()
            await until(lambda: here.runners.told[his])
            assert his in here.daemon.dispatch.runners

    asyncio.run(story())


@pytest.mark.parametrize("why", [Conflict("another one"), Unacceptable("no such thing")])
def test_a_refused_job_leaves_nothing(tmp_path: Path, why: Exception) -> None:
    """Nor do those that came with it, though the shelf had taken one of them."""

    async def story() -> None:
        async with world(tmp_path) as here:
            shelf = here.shelf(ANN)

            async def one_alone(arguments: Mapping[str, Any]) -> Any:
                await shelf.really("accept", jobs=arguments["jobs"][:1])
                raise why

            shelf.stand_ins["accept"] = one_alone
            with pytest.raises(type(why)):
                await here.submit(ANN, "first", "second")
            assert list(here.daemon.roster.all()) == here.on_disk() == []
            assert here.daemon.parts.queue.unshelved() == []
            assert await shelf.really("records", ids=None) == []
            shelf.mend("accept")
            jobs = await here.running(ANN, "first", "second")
            assert here.runners.launched == jobs

    asyncio.run(story())


@pytest.mark.parametrize("restarted", [False, True])
def test_a_job_is_placed_when_its_shelf_has_it(tmp_path: Path, *, restarted: bool) -> None:
    """The shelf can be had only later: it is asked again, by the next daemon too."""

    async def story() -> None:
        async with world(tmp_path) as here:
            shelf = here.shelf(ANN)
            shelf.refuse("accept", FULL)
            (job,) = await here.submit(ANN, "job")
            if restarted:
                await here.again()
            asked = len(shelf.asked)
            await here.running(BOB, "other")
            await until(lambda: len(shelf.asked) > asked + 1)
            assert here.is_in(Phase.WAITING, job)
            assert job not in here.runners.launched
            shelf.mend("accept")
            await until(lambda: job in here.daemon.dispatch.runners)
            assert here.journal_state(ANN, job) is State.QUEUED
            assert here.daemon.parts.queue.unshelved() == []

    asyncio.run(story())


@pytest.mark.parametrize("restarted", [False, True])
def test_a_fresh_start_stays_one_until_its_shelf_has_it(tmp_path: Path, *, restarted: bool) -> None:
    """Else it would go on from what the earlier job had saved."""

    async def story() -> None:
        async with world(tmp_path) as here:
            checkpoint = {"dir": "out", "glob": "*.pt"}
            saves = {"checkpoint": checkpoint, "resume": {"mode": "inplace"}}
            (old,) = await here.running(ANN, "job", **saves)
            here.runners.end(old, State.FAILED)
            await here.until_in(Phase.ENDED, old)
            shelf = here.shelf(ANN)
            shelf.refuse("accept", FULL)
            asked = here.wanted("job", **saves) | {"fresh": True}
            (answer,) = (await here.daemon.submit(ANN, [asked], SURROUNDINGS))["jobs"]
            if restarted:
                await here.again()
            shelf.asked.clear()
            await until(lambda: any(question == "accept" for question, _ in shelf.asked))
            rows = next(given["jobs"] for question, given in shelf.asked if question == "accept")
            assert [(one["id"], one["fresh_of"]) for one in rows] == [(answer["id"], old)]
            shelf.mend("accept")
            await until(lambda: answer["id"] in here.daemon.dispatch.runners)

    asyncio.run(story())


def test_a_removal_goes_on_where_a_crash_broke_it_off(tmp_path: Path) -> None:
    """The shelf has forgotten the job, and the queue has not."""

    async def story() -> None:
        async with world(tmp_path) as here:
            job = await here.ended(ANN, "job")
            await here.shelf(ANN).really("remove", id=job)
            await here.again()
            assert await outcome(here.daemon.remove(ANN, job)) == f"{job} is removed"
            assert here.entry(job) is None
            assert here.on_disk() == []

    asyncio.run(story())


def test_a_removed_job_does_not_come_back(tmp_path: Path) -> None:
    """Whoever still holds its entry, and would change it, is told that it is gone."""

    async def story() -> None:
        async with world(tmp_path) as here:
            entry = here.entry(await here.ended(ANN, "job"))
            assert entry is not None
            await here.daemon.remove(ANN, entry.id)
            with pytest.raises(NoSuchJob):
                here.daemon.roster.change(entry, "Ended")
            assert list(here.daemon.roster.all()) == here.on_disk() == []

    asyncio.run(story())


def test_one_shelf_that_refuses_does_not_keep_the_others_running(tmp_path: Path) -> None:
    """A host that goes down stops all jobs; the one of that shelf as soon as it answers."""

    async def story() -> None:
        async with world(tmp_path) as here:
            (hers,) = await here.running(ANN, "hers")
            others = await here.running(BOB, "one", "two") + await here.running(CEM, "three")
            here.runners.obedient = True
            heard = here.shelf(ANN).stand_ins["stop"]
            here.shelf(ANN).refuse("stop", FULL)
            parking = asyncio.create_task(here.daemon.park())
            await here.until_in(Phase.WAITING, *others)
            assert here.is_in(Phase.STARTED, hers)
            assert not parking.done()
            here.shelf(ANN).stand_ins["stop"] = heard
            await parking
            assert here.is_in(Phase.WAITING, hers)
            assert [here.runners.told[job] for job in (hers, *others)] == [[False]] * 4

    asyncio.run(story())


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_job_without_a_journal_frees_its_place(tmp_path: Path, *, cancelled: bool) -> None:
    """Nothing is known of it any more, and a person is needed, unless they had cancelled it."""

    async def story() -> None:
        async with world(tmp_path, cpus=1) as here:
            (job,) = await here.running(ANN, "job")
            await here.shelf(ANN).really("remove", id=job)
            if cancelled:
                await here.daemon.cancel(ANN, job)
            here.runners.end(job, None)
            await here.running(BOB, "behind")
            entry = here.entry(job)
            assert entry is not None
            assert entry.phase is Phase.ENDED
            expected = (State.CANCELLED, "cancelled") if cancelled else (State.HOLDING, FORGOTTEN)
            assert (entry.state, entry.why) == expected
            assert await outcome(here.daemon.remove(ANN, job)) == f"{job} is removed"

    asyncio.run(story())


def test_a_fault_in_one_plan_is_not_the_end_of_placing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes next is placed, and with them the one who was unlucky."""
    faults = [KeyError("a fault of ours")]

    def planned(situation: Situation, gpus: GpuTaker) -> Plan:
        if faults:
            raise faults.pop()
        return plan(situation, gpus)

    async def story() -> None:
        async with world(tmp_path) as here:
            await here.running(ANN, "before")
            monkeypatch.setattr(placing, "plan", planned)
            unlucky = await here.submit(ANN, "unlucky")
            await until(lambda: not faults)
            await here.running(BOB, "behind")
            await here.until_in(Phase.STARTED, *unlucky)

    asyncio.run(story())


@pytest.mark.parametrize(("verb", "kill"), [("stop", False), ("stop", True), ("cancel", False)])
def test_a_runner_is_told_though_nothing_can_be_noted(
    tmp_path: Path, verb: str, *, kill: bool
) -> None:
    """The disk of the queue is full: perhaps it is the job that fills it."""

    async def story() -> None:
        async with world(tmp_path, queue=BrokenQueue) as here:
            (job,) = await here.running(ANN, "job")
            queue = here.daemon.parts.queue
            assert isinstance(queue, BrokenQueue)
            queue.broken = True
            more = {"kill": True} if kill else {}
            words = await outcome(getattr(here.daemon, verb)(ANN, job, **more))
            assert "no space left on device" in words
            await until(lambda: here.runners.told[job] == [kill])
            here.runners.end(job, State.STOPPED)
            await idle()
            assert here.is_in(Phase.STARTED, job)
            queue.broken = False
            await here.until_in(Phase.ENDED, job)

    asyncio.run(story())


def test_a_job_is_not_launched_before_its_placement_is_noted(tmp_path: Path) -> None:
    """The queue refuses for a while; the wish of its owner for a waiting job is then refused."""

    async def story() -> None:
        async with world(tmp_path, queue=BrokenQueue) as here:
            queue = here.daemon.parts.queue
            assert isinstance(queue, BrokenQueue)
            queue.broken = True
            (job,) = await here.submit(ANN, "job")
            await until(lambda: queue.refused)
            assert isinstance(await outcome(here.daemon.cancel(ANN, job)), ShelfUnavailable)
            assert here.runners.launched == []
            assert here.is_in(Phase.WAITING, job)
            queue.broken = False
            assert isinstance(await outcome(here.daemon.cancel(ANN, job)), str)
            entry = here.entry(job)
            assert entry is not None
            assert (entry.state, entry.wish) == (State.CANCELLED, Wish.CANCEL)
            assert here.runners.launched == []

    asyncio.run(story())
