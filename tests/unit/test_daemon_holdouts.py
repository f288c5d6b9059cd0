"""Users whose shelves are silent or broken on purpose: what that takes from others."""

import asyncio
import fcntl
import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from supervisor.daemon import lookup, shared
from supervisor.daemon.contracts import ShelfUnavailable
from supervisor.gpu import lease_files
from tests.unit.daemon_world import (
    ANN,
    BOB,
    ToldShelves,
    in_a_hurry,  # noqa: F401 - the fixture is used by name
    until,
    world,
)

pytestmark = pytest.mark.usefixtures("hurried")
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


def late_of(shelves: ToldShelves) -> list[asyncio.Future[Any]]:
    """The questions for listings that took too long."""
    return list(lookup._late[shelves].values())
