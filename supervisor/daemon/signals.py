"""Tells runners to stop, and to kill: once each, however often it is asked for.

Owns these tasks; which signals a runner understands is `runner.control`'s. A runner takes a second
signal for force, so one that has heard is not told again. Invariant: at most one task tells a job's
runner anything, and it ends with the runner.
"""

import asyncio
from contextlib import suppress

from supervisor.daemon.contracts import Refusal, Shelves
from supervisor.daemon.runners import Runners
from supervisor.queue.model import Entry

LISTENS_S = 0.1  # how often a runner that starts is asked whether it listens
LONGEST_S = 2.0  # and one whose shelf cannot be read


class Signals:
    """What runners are being told."""

    def __init__(self, shelves: Shelves, runners: Runners) -> None:
        self._shelves = shelves
        self._runners = runners
        self._telling: dict[str, tuple[asyncio.Task[None], bool]] = {}
        self._told: dict[str, int] = {}
        self._due: dict[str, bool] = {}  # what the next runner of a job is told

    def tell(self, entry: Entry, *, kill: bool = False) -> None:
        """Have its runner stop the job, or kill it. One that does not listen yet hears it then."""
        if entry.id not in self._runners:
            self._due[entry.id] = kill or self._due.get(entry.id, False)
            return
        task, killing = self._telling.get(entry.id, (None, False))
        if task is not None and not task.done():
            if killing or not kill:
                return
            task.cancel()
        elif not kill and self._told.get(entry.id) == entry.launches:
            return
        work = asyncio.get_running_loop().create_task(self._until_heard(entry, kill=kill))
        self._telling[entry.id] = (work, kill)

    def begun(self, entry: Entry) -> None:
        """A job has a runner again: it hears what was said before it was there."""
        kill = self._due.pop(entry.id, None)
        if kill is not None:
            self.tell(entry, kill=kill)

    def forget(self, job_id: str) -> None:
        """Its runner is gone."""
        task, _ = self._telling.pop(job_id, (None, False))
        if task is not None:
            task.cancel()
        self._told.pop(job_id, None)
        self._due.pop(job_id, None)

    async def close(self) -> None:
        """Tell nobody any more."""
        tasks = [task for task, _ in self._telling.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _until_heard(self, entry: Entry, *, kill: bool) -> None:
        pause_s = LISTENS_S
        while entry.id in self._runners:
            with suppress(Refusal):  # of a disk, perhaps: its owner wants it to stop all the same
                asked = {"id": entry.id, "kill": kill}
                if (await self._shelves.of(entry.uid).ask("stop", asked))["heard"]:
                    self._told[entry.id] = entry.launches
                    return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_S)
