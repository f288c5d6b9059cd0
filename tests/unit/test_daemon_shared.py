"""Answers that many ask for at once."""

import asyncio
from typing import Any

import pytest

from supervisor.daemon import shared
from supervisor.daemon.contracts import NoSuchJob
from supervisor.daemon.shared import FRESH_S, Shared


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


def test_not_all_answers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many jobs are looked at within a moment."""
    monkeypatch.setattr(shared, "MOST", 4)

    async def asked() -> int:
        shelf, answers = Shelf(), Shared(lambda: 5.0)
        for key in range(12):
            await answers.get(key, shelf.ask)
        return len(answers._answers)

    assert asyncio.run(asked()) <= 4
