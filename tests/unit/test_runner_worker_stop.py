"""Asking a worker to stop: on its session where it listens, by signals where it does not."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from supervisor.runner.home import AttemptFolder
from supervisor.runner.worker import STOP_SLACK_S, LiveWorker


class Child:
    """A main process that leaves when the test says so."""

    pid = 4242

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.left = asyncio.Event()

    async def wait(self) -> None:
        """Until it has left."""
        await self.left.wait()

    def signal(self, number: int) -> None:
        """One signal."""
        self.asked.append(number)

    async def stop(self, grace_s: float) -> None:
        """The ladder of signals, with this much of the grace."""
        self.asked.append(round(grace_s - STOP_SLACK_S, 2))


class Session:
    """One on which somebody listens, or nobody."""

    def __init__(self, child: Child, *, listens: bool, leaves: bool) -> None:
        self._child, self._listens, self._leaves = child, listens, leaves

    def ask_stop(self, _reason: str, grace_s: float, _main: int) -> bool:
        """Told."""
        self._child.asked.append(("told", grace_s))
        if self._leaves:
            self._child.left.set()
        return self._listens


@pytest.mark.parametrize(
    ("listens", "leaves", "asked"),
    [
        (False, False, [("told", 0.04), 0.04]),
        (True, False, [("told", 0.04), signal.SIGCONT, 0.01]),
        (True, True, [("told", 0.04), signal.SIGCONT, 0.01]),
    ],
    ids=["deaf", "late", "leaves"],
)
def test_who_listens_is_told_first(
    tmp_path: Path,
    listens: bool,  # noqa: FBT001 - a parameter of the test
    leaves: bool,  # noqa: FBT001 - the same
    asked: list[object],
) -> None:
    """A worker that listens gets its signals only with the last part of the grace."""

    async def stop() -> list[object]:
        child = Child()
        session: Any = Session(child, listens=listens, leaves=leaves)
        found: Any = child
        await LiveWorker(found, AttemptFolder(tmp_path), session).stop(0.04)
        return child.asked

    assert asyncio.run(stop()) == asked
