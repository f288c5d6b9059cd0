"""Answers that many ask for at once."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from supervisor.daemon import shared
from supervisor.daemon.contracts import NoSuchJob
from supervisor.daemon.shared import FRESH_S, Shared
from tests.unit.daemon_world import ANN, BOB, until, world


class Shelf:
    """Counts what it is asked; answers when it is let."""

    def __init__(self) -> None:
        self.asked = 0
        self.let = asyncio.Event()
        self.let.set()

    async def ask(self) -> dict[str, Any]:
        """One more answer."""
        self.asked += 1
        number = self.asked
        await self.let.wait()
        if number == 13:
            raise NoSuchJob("gone")
        return {"number": number}


def test_who_asks_the_same_at_once_is_told_the_same() -> None:
    """And the shelf is asked once; for another job, again."""

    async def asked() -> tuple[list[int], int]:
        shelf, answers = Shelf(), Shared(lambda: 5.0)
        shelf.let.clear()
        waiting = [asyncio.ensure_future(answers.get("a", shelf.ask)) for _ in range(10)]
        waiting.append(asyncio.ensure_future(answers.get("b", shelf.ask)))
        await asyncio.sleep(0)
        waiting[0].cancel()
        shelf.let.set()
        told = await asyncio.gather(*waiting[1:])
        return [one["number"] for one in told], shelf.asked

    assert asyncio.run(asked()) == ([1] * 9 + [2], 2)


def test_an_answer_grows_old() -> None:
    """After that the shelf is asked again."""
    now = 5.0

    async def asked() -> list[int]:
        nonlocal now
        shelf, answers = Shelf(), Shared(lambda: now)
        told = [await answers.get("a", shelf.ask)]
        now += FRESH_S * 0.9
        told.append(await answers.get("a", shelf.ask))
        now += FRESH_S * 0.2
        told.append(await answers.get("a", shelf.ask))
        return [one["number"] for one in told]

    assert asyncio.run(asked()) == [1, 1, 2]


def test_a_refusal_is_not_kept() -> None:
    """Who asks next may have more luck."""

    async def asked() -> int:
        shelf, answers = Shelf(), Shared(lambda: 5.0)
        shelf.asked = 12
        with pytest.raises(NoSuchJob):
            await answers.get("a", shelf.ask)
        return int((await answers.get("a", shelf.ask))["number"])

    assert asyncio.run(asked()) == 14


def test_no_answer_is_kept_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing of ten thousand jobs would be in memory until somebody asks again."""
    monkeypatch.setattr(shared, "FRESH_S", 0.01)

    async def asked() -> int:
        shelf, answers = Shelf(), Shared()
        for key in range(12):
            await answers.get(key, shelf.ask)
        await until(lambda: not answers._answers)
        return shelf.asked

    assert asyncio.run(asked()) == 12


def test_an_older_answer_does_not_take_a_newer_one_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """When its own time is over."""
    monkeypatch.setattr(shared, "FRESH_S", 3600.0)
    now = 5.0

    async def asked() -> list[int]:
        nonlocal now
        shelf, answers = Shelf(), Shared(lambda: now)
        told = [await answers.get("a", shelf.ask)]
        first = answers._answers["a"][1]
        now += 7200.0
        told.append(await answers.get("a", shelf.ask))
        answers._forget("a", first)
        told.append(await answers.get("a", shelf.ask))
        return [one["number"] for one in told]

    assert asyncio.run(asked()) == [1, 2, 2]


def test_a_hundred_who_list_ask_each_shelf_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until something changes: then whoever asks is told of it."""
    monkeypatch.setattr(shared, "FRESH_S", 3600.0)

    async def story() -> None:
        async with world(tmp_path) as here:
            (job,) = await here.running(ANN, "net")
            here.shelf(ANN).asked.clear()
            listings = await asyncio.gather(*(here.daemon.jobs(BOB) for _ in range(100)))
            assert [one["state"] for (one,) in listings] == ["queued"] * 100
            assert [question for question, _ in here.shelf(ANN).asked].count("listing") == 1
            await here.daemon.cancel(ANN, job)
            ((row,), few) = (await here.daemon.jobs(BOB), await here.daemon.jobs(BOB, state="none"))
            assert (row["wish"], few) == ("cancel", [])

    asyncio.run(story())
