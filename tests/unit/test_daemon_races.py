"""Several who want something at the same moment: of one job, or of the queue."""

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest

from supervisor.core.causes import State
from supervisor.daemon.contracts import Conflict, NoSuchJob
from supervisor.queue.model import Phase, Wish
from tests.unit.daemon_world import (
    ANN,
    BOB,
    CEM,
    SURROUNDINGS,
    Gate,
    World,
    idle,
    in_a_hurry,  # noqa: F401 - the fixture is used by name
    outcome,
    until,
    world,
)

pytestmark = pytest.mark.usefixtures("hurried")
VERBS = {"stop": ("conclude_stop", State.STOPPED), "cancel": ("conclude_cancel", State.CANCELLED)}


def test_three_users_submit_at_once(tmp_path: Path) -> None:
    """The same names in the same folder: all are accepted, and no id or number is given twice."""

    async def story() -> None:
        async with world(tmp_path) as here:
            peers = (ANN, BOB, CEM)
            gates = [here.shelf(peer).hold("examine", after=True) for peer in peers]
            asked = [asyncio.create_task(here.submit(peer, "net", "net")) for peer in peers]
            for gate in gates:
                await gate.reached.wait()
            for gate in gates:
                gate.open()
            given = await asyncio.gather(*asked)
            ids = [job for jobs in given for job in jobs]
            assert len(set(ids)) == 6
            assert {one.id for one in here.on_disk()} == set(ids)
            assert all(one.seq < other.seq for one, other in pairwise(here.on_disk()))
            for peer, jobs in zip(peers, given, strict=True):
                rows = await here.shelf(peer).really("records", ids=None)
                assert [row["id"] for row in rows] == jobs

    asyncio.run(story())


def test_one_user_submits_twice_at_once(tmp_path: Path) -> None:
    """Both are judged one after the other: a key makes one job, a name two."""

    async def story() -> None:
        async with world(tmp_path) as here:
            gate = here.shelf(ANN).hold("examine", after=True)
            asked = [here.wanted("net", key="nightly"), here.wanted("other")]
            keyed = [here.daemon.submit(ANN, asked, SURROUNDINGS) for _ in range(2)]
            both = asyncio.gather(*keyed)
            await gate.reached.wait()
            await idle()
            gate.open()
            (first, _), (second, _) = [one["jobs"] for one in await both]
            assert first["id"] == second["id"]
            assert (first["new"], second["new"]) == (True, False)
            assert len(here.on_disk()) == 3
            named = [here.submit(ANN, "net") for _ in range(2)]
            one, another = await asyncio.gather(*named)
            assert one != another

    asyncio.run(story())


@pytest.mark.parametrize("verb", VERBS)
def test_a_waiting_job_that_is_being_ended_is_not_placed(tmp_path: Path, verb: str) -> None:
    """Though its shelf takes its time, and its turn comes meanwhile."""
    question, state = VERBS[verb]

    async def story() -> None:
        async with world(tmp_path, cpus=1) as here:
            (first,) = await here.running(ANN, "first")
            (job,) = await here.submit(ANN, "job")
            gate = here.shelf(ANN).hold(question, after=True)
            asked = asyncio.create_task(getattr(here.daemon, verb)(ANN, job))
            await gate.reached.wait()
            here.runners.end(first, State.SUCCEEDED)
            await here.running(BOB, "behind")
            assert here.is_in(Phase.WAITING, job)
            gate.open()
            assert (await asked)["state"] == state
            entry = here.entry(job)
            assert entry is not None
            assert (entry.phase, entry.state) == (Phase.ENDED, state)
            assert job not in here.runners.launched
            assert here.journal_state(ANN, job) is state

    asyncio.run(story())


@pytest.mark.parametrize("verb", VERBS)
def test_a_job_that_is_placed_first_is_stopped_by_its_runner(tmp_path: Path, verb: str) -> None:
    """The wish comes while its runner is being launched: it is told when it is there."""

    async def story() -> None:
        async with world(tmp_path) as here:
            here.runners.gate = gate = Gate()
            (job,) = await here.submit(ANN, "job")
            await gate.reached.wait()
            await getattr(here.daemon, verb)(ANN, job)
            assert here.is_in(Phase.STARTED, job)
            here.runners.obedient = True
            gate.open()
            await here.until_in(Phase.ENDED, job)
            assert here.runners.told[job] == [False]
            entry = here.entry(job)
            assert entry is not None
            assert entry.state is VERBS[verb][1]

    asyncio.run(story())


async def gone(here: World, job: str) -> None:
    """It is known nowhere, and comes back with no daemon."""
    assert here.entry(job) is None
    assert here.journal_state(ANN, job) is None
    await here.again()
    assert here.entry(job) is None
    assert here.on_disk() == []


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("verb", ["resume", "cancel"])
def test_a_removal_that_has_begun_wins(tmp_path: Path, verb: str, *, after: bool) -> None:
    """Whoever comes in the middle of it hears that the job is gone, and brings nothing back."""

    async def story() -> None:
        async with world(tmp_path) as here:
            job = await here.ended(ANN, "job")
            gate = here.shelf(ANN).hold("remove", after=after)
            removal = asyncio.create_task(outcome(here.daemon.remove(ANN, job)))
            await gate.reached.wait()
            other = asyncio.create_task(outcome(getattr(here.daemon, verb)(ANN, job)))
            await idle()
            gate.open()
            assert await removal == f"{job} is removed"
            assert isinstance(await other, NoSuchJob)
            assert here.runners.launched == [job]
            await gone(here, job)

    asyncio.run(story())


def test_a_removal_that_comes_second_sees_what_came_first(tmp_path: Path) -> None:
    """A resumed job is not removed; a cancelled one is, and nothing of it comes back."""

    async def story() -> None:
        async with world(tmp_path, cpus=1) as here:
            job = await here.ended(ANN, "job")
            (other,) = await here.running(BOB, "other")
            both = [outcome(here.daemon.resume(ANN, job)), outcome(here.daemon.remove(ANN, job))]
            resumed, removed = await asyncio.gather(*both)
            assert resumed == f"{job} waits for its turn"
            assert isinstance(removed, Conflict)
            assert here.is_in(Phase.WAITING, job)
            gate = here.shelf(ANN).hold("conclude_cancel", after=True)
            cancel = asyncio.create_task(outcome(here.daemon.cancel(ANN, job)))
            await gate.reached.wait()
            removal = asyncio.create_task(outcome(here.daemon.remove(ANN, job)))
            await idle()
            gate.open()
            assert await cancel == f"{job} is cancelled"
            assert await removal == f"{job} is removed"
            here.runners.end(other, State.SUCCEEDED)
            await here.until_in(Phase.ENDED, other)
            await here.daemon.remove(BOB, other)
            await gone(here, job)

    asyncio.run(story())


def test_many_stops_are_one_signal(tmp_path: Path) -> None:
    """A second one would kill; whoever asks again wants the job to save all the same."""

    async def story() -> None:
        async with world(tmp_path) as here:
            (job,) = await here.running(ANN, "job")
            gate = here.shelf(ANN).hold("stop")
            await asyncio.gather(*(here.daemon.stop(ANN, job) for _ in range(8)))
            await gate.reached.wait()
            await here.daemon.stop(ANN, job)
            gate.open()
            await until(lambda: here.runners.told[job])
            await asyncio.gather(*(here.daemon.stop(ANN, job) for _ in range(8)))
            await here.daemon.cancel(ANN, job)
            await idle()
            assert here.runners.told[job] == [False]
            await here.daemon.stop(ANN, job, kill=True)
            await until(lambda: len(here.runners.told[job]) == 2)
            await here.daemon.stop(ANN, job)
            await idle()
            assert here.runners.told[job] == [False, True]

    asyncio.run(story())


def test_a_kill_overtakes_a_stop_on_its_way(tmp_path: Path) -> None:
    """It does not wait until that was heard; many kills are one."""

    async def story() -> None:
        async with world(tmp_path) as here:
            (job,) = await here.running(ANN, "job")
            gate = here.shelf(ANN).hold("stop")
            await here.daemon.stop(ANN, job)
            await gate.reached.wait()
            await asyncio.gather(*(here.daemon.stop(ANN, job, kill=True) for _ in range(4)))
            await here.daemon.stop(ANN, job)
            gate.open()
            await until(lambda: here.runners.told[job])
            await idle()
            assert here.runners.told[job] == [True]

    asyncio.run(story())


def test_the_runner_after_a_lost_one_is_told_again(tmp_path: Path) -> None:
    """What the first one heard died with it."""

    async def story() -> None:
        async with world(tmp_path) as here:
            (job,) = await here.running(ANN, "job")
            await here.daemon.stop(ANN, job)
            await until(lambda: here.runners.told[job])
            here.runners.end(job, None)
            await here.until_in(Phase.ENDED, job)
            assert here.runners.launched == [job, job]
            assert here.runners.stopped_by == [job]
            assert here.runners.told[job] == [False]

    asyncio.run(story())


@pytest.mark.parametrize("state", [State.FAILED, State.HOLDING, State.STOPPED])
def test_a_cancel_while_the_job_ends_by_itself(tmp_path: Path, state: State) -> None:
    """It has no runner any more, and its end is not noted yet: it ends cancelled."""

    async def story() -> None:
        async with world(tmp_path) as here:
            (job,) = await here.running(ANN, "job")
            gate = here.shelf(ANN).hold("runner", after=True)
            here.runners.end(job, state)
            await gate.reached.wait()
            await here.daemon.cancel(ANN, job)
            gate.open()
            await here.until_in(Phase.ENDED, job)
            entry = here.entry(job)
            assert entry is not None
            assert (entry.state, entry.wish) == (State.CANCELLED, Wish.CANCEL)
            assert here.journal_state(ANN, job) is State.CANCELLED
            assert isinstance(await outcome(here.daemon.resume(ANN, job)), Conflict)

    asyncio.run(story())


def test_a_cancel_while_its_runners_cannot_be_launched(tmp_path: Path) -> None:
    """It does not end as one that needs a person."""

    async def story() -> None:
        async with world(tmp_path) as here:
            here.runners.fails = True
            here.runners.gate = gate = Gate()
            (job,) = await here.submit(ANN, "job")
            await gate.reached.wait()
            await here.daemon.cancel(ANN, job)
            gate.open()
            await here.until_in(Phase.ENDED, job)
            entry = here.entry(job)
            assert entry is not None
            assert entry.state is State.CANCELLED
            assert here.journal_state(ANN, job) is State.CANCELLED

    asyncio.run(story())
