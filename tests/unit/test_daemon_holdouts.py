"""Users whose shelves are silent or broken on purpose: what that takes from others."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from supervisor.daemon import lookup, shared
from supervisor.daemon.contracts import ShelfUnavailable
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


def late_of(shelves: ToldShelves) -> list[asyncio.Future[Any]]:
    """The questions for listings that took too long."""
    return list(lookup._late[shelves].values())
