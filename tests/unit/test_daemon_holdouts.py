"""Users whose shelves are silent or broken on purpose: what that takes from others."""

import asyncio
import fcntl
import json
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.causes import State
from supervisor.daemon import aftermath, dispatch, lookup, shared
from supervisor.daemon.contracts import Peer, ShelfUnavailable
from supervisor.daemon.dispatch import SILENT
from supervisor.daemon.living import may_run
from supervisor.gpu import lease_files
from supervisor.host import processes
from supervisor.queue.model import Phase
from tests.unit.daemon_world import (
    ANN,
    BOB,
    ToldShelves,
    in_a_hurry,  # noqa: F401 - the fixture is used by name
    outcome,
    until,
    world,
)

pytestmark = pytest.mark.usefixtures("hurried")
ROOT = Peer(0, 0, "root", admin=True)
NOBODY_ELSE = 4971
DENIED = ShelfUnavailable("others may read it: chmod 700")


def test_a_listing_waits_once_for_a_silent_shelf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its jobs the queue says what it knows; it is asked once, and believed when it answers."""
    monkeypatch.setattr(shared, "FRESH_S", 0.0)
    monkeypatch.setattr(lookup, "LISTING_S", 0.05)

    async def story() -> None:
        async with world(tmp_path) as here:
            (hers,) = await here.running(ANN, "hers")
            (his,) = await here.running(BOB, "his")
            shelf, gate = here.shelf(BOB), here.shelf(BOB).hold("listing")
            shelf.asked.clear()
            listed = await here.daemon.jobs(ANN)
            monkeypatch.setattr(lookup, "LISTING_S", 60.0)
            listed += await here.daemon.jobs(ANN, limit=10)
            assert [one["id"] for one in listed] == [hers, his] * 2
            assert [one["state"] for one in listed if one["id"] == his] == ["running"] * 2
            assert [question for question, _ in shelf.asked] == ["listing"]
            gate.open()
            shelf.say("listing", [{"id": his, "step": 7}])
            await until(lambda: all(one.done() for one in late_of(here.shelves)))
            assert (await here.daemon.jobs(ANN, limit=9))[1]["step"] == 7
            assert late_of(here.shelves) == []

    asyncio.run(story())


def test_a_shelf_that_was_late_and_refuses_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal is no answer: its user could have the next listing wait as long again."""
    monkeypatch.setattr(shared, "FRESH_S", 0.0)
    monkeypatch.setattr(lookup, "LISTING_S", 0.05)

    async def story() -> None:
        async with world(tmp_path) as here:
            await here.running(BOB, "his")
            gate = here.shelf(BOB).hold("listing")
            here.shelf(BOB).refuse("listing", DENIED)
            await here.daemon.jobs(ANN)
            monkeypatch.setattr(lookup, "LISTING_S", 60.0)
            gate.open()
            await until(lambda: all(one.done() for one in late_of(here.shelves)))
            here.shelf(BOB).hold("listing")
            assert len(await here.daemon.jobs(ANN, limit=10)) == 1

    asyncio.run(story())


@pytest.mark.parametrize(
    "odd", [{"memory_bytes": 10**400}, {"memory_bytes": -1}, {"pid": 0}, {"start_ticks": 2**63}]
)
def test_a_lease_of_nonsense_is_a_damaged_one(tmp_path: Path, odd: dict[str, int]) -> None:
    """Anybody may write there, and everybody's plan computes with what it says."""
    fields = {"job": "j", "state_dir": "/s", "pid": 1, "start_ticks": 1, "boot_id": "b"}
    fields |= {"at_s": 1.0, "gpus": ["GPU-a"], "share": True, "memory_bytes": 2**50}
    (tmp_path / "lease-a.json").write_text(json.dumps(fields))
    (tmp_path / "lease-b.json").write_text(json.dumps(fields | odd))
    with ExitStack() as held:
        for name in ("lease-a.json", "lease-b.json"):
            fcntl.flock(held.enter_context((tmp_path / name).open()), fcntl.LOCK_EX)
        folder = os.open(tmp_path, os.O_RDONLY)
        held.callback(os.close, folder)
        good, bad = lease_files.live(folder)
    assert (good.problem, good.memory_bytes) == ("", 2**50)
    assert (bad.problem, bad.memory_bytes) == (f"its field {min(odd)} makes no sense", None)


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_job_without_a_runner_keeps_no_place_for_a_shelf_that_is_denied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, cancelled: bool
) -> None:
    """After a while it is for a person, whatever was wished; another daemon does the same."""

    async def story() -> None:
        async with world(tmp_path, cpus=1) as here:
            (his,) = await here.running(BOB, "his")
            (hers,) = await here.submit(ANN, "hers")
            here.shelf(BOB).refuse("runner", DENIED)
            here.runners.end(his, None)
            await until(lambda: his in here.daemon.dispatch.silent)
            assert here.is_in(Phase.STARTED, his)
            if cancelled:
                await here.daemon.cancel(BOB, his)
            monkeypatch.setattr(aftermath, "SILENT_S", 0.0)
            await here.again()
            await here.until_in(Phase.STARTED, hers)
            ended = here.entry(his)
            assert ended is not None
            assert (ended.state, ended.why) == (State.HOLDING, SILENT)

    asyncio.run(story())


def test_a_runner_that_may_live_keeps_its_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that begins cannot know: neither time nor an admin ends it; it is found later."""
    monkeypatch.setattr(aftermath, "SILENT_S", 0.0)
    looked: list[int] = []
    monkeypatch.setattr(dispatch, "may_run", lambda uid: not looked.append(uid))

    async def story() -> None:
        async with world(tmp_path) as here:
            (his,) = await here.running(BOB, "his")
            runner = here.shelf(BOB).stand_ins["runner"]
            here.shelf(BOB).refuse("runner", DENIED)
            await here.again()
            await until(lambda: len(looked) > 1)
            assert "is being stopped" in await outcome(here.daemon.cancel(ROOT, his))
            assert here.is_in(Phase.STARTED, his)
            here.shelf(BOB).stand_ins["runner"] = runner
            await until(lambda: his in here.daemon.dispatch.runners)

    asyncio.run(story())


def test_an_admin_s_cancel_ends_at_once_what_has_no_runner(tmp_path: Path) -> None:
    """Its owner's waits; the place is free, and nothing that comes late takes the job up again."""

    async def story() -> None:
        async with world(tmp_path, cpus=1) as here:
            (his,) = await here.running(BOB, "his")
            (hers,) = await here.submit(ANN, "hers")
            here.shelf(BOB).refuse("runner", DENIED)
            here.runners.end(his, None)
            await until(lambda: his in here.daemon.dispatch.silent)
            assert "is being stopped" in await outcome(here.daemon.cancel(BOB, his))
            assert "could not be told" in await outcome(here.daemon.cancel(ROOT, his))
            ended = here.entry(his)
            assert ended is not None
            assert (ended.phase, ended.state) == (Phase.ENDED, State.CANCELLED)
            await here.until_in(Phase.STARTED, hers)
            await until(lambda: his not in here.daemon.dispatch.silent)
            assert here.entry(his) == ended

    asyncio.run(story())


def test_a_cancel_that_a_shelf_does_not_take_ends_nevertheless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is held for a person, who may cancel it again."""
    monkeypatch.setattr(aftermath, "SILENT_S", 0.0)

    async def story() -> None:
        async with world(tmp_path) as here:
            (his,) = await here.running(BOB, "his")
            here.runners.obedient = True
            here.shelf(BOB).refuse("conclude_cancel", DENIED)
            await here.daemon.cancel(BOB, his)
            await here.until_in(Phase.ENDED, his)
            held = here.entry(his)
            assert held is not None
            assert (held.state, held.why) == (State.HOLDING, aftermath.UNTOLD)
            here.shelf(BOB).mend("conclude_cancel")
            assert "is cancelled" in await outcome(here.daemon.cancel(BOB, his))

    asyncio.run(story())


@pytest.mark.parametrize("late", [False, True])
def test_a_daemon_that_stops_waits_for_runners_alone(tmp_path: Path, *, late: bool) -> None:
    """One whose shelf is denied is left to the next daemon; `late`: its runner still lives."""

    async def story() -> None:
        async with world(tmp_path) as here:
            (his,) = await here.running(BOB, "his", timeouts={"stop": 86400})
            here.shelf(BOB).refuse("runner", DENIED)
            here.runners.obedient = late
            if not late:
                here.runners.end(his, None)
                await until(lambda: his in here.daemon.dispatch.silent)
                await here.shelf(BOB).hold("runner").reached.wait()
            async with asyncio.timeout(20):
                await here.daemon.park()
            assert here.is_in(Phase.STARTED, his)

    asyncio.run(story())


@pytest.mark.parametrize(("word", "expected"), [("supervise", True), ("train", False)])
def test_what_may_be_a_runner(word: str, *, expected: bool) -> None:
    """A process of that user and of this program, which this one has not begun itself."""
    if os.geteuid() != 0:
        pytest.skip("only root can become a user who has no other process")
    talk = "read line; true"
    inner = ["/bin/sh", "-c", f"/bin/sh -c '{talk}' {word}; true", "outer"]
    with subprocess.Popen(inner, stdin=subprocess.PIPE, user=NOBODY_ELSE) as shell:
        while len(processes.children(shell.pid)) == 0:
            os.sched_yield()
        assert may_run(NOBODY_ELSE) is expected
    assert not may_run(NOBODY_ELSE)


def late_of(shelves: ToldShelves) -> list[asyncio.Future[Any]]:
    """The questions for listings that took too long."""
    return list(lookup._late[shelves].values())
