"""Disk space of a job: warned about before it is gone, waited for when it is.

Owns which folders count and how much room they need. A file system that does not answer holds up a
thread of its own and nothing else.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from supervisor.core.amounts import size
from supervisor.host.space import low_water_bytes, room, same_file_system, space
from supervisor.journal import JournalUnavailable
from supervisor.runner.disk import DiskThread
from supervisor.runner.opening import OpenJob

LOOK_S = 30.0
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
ANSWER_S = 5.0
MOST_BETWEEN_HOLDS_S = 300.0
TIGHT_BYTES = 64 << 20
FEW_INODES = 64


class Disks:
    """The file systems that a job writes to: its state, its folder, its checkpoints."""

    def __init__(self, job: OpenJob, warn: Callable[[str], None]) -> None:
        layout = job.settings.layout
        folders = [job.state_dir, job.settings.cwd] + ([] if layout is None else [layout.root])
        if job.settings.batch is not None:
            folders.append(job.settings.batch.plan.out)
        self._folders = folders
        self._warn = warn
        self._thread = DiskThread()
        self._low: set[Path] = set()
        self._job = job
        self._newest_bytes: int | None = None
        self._holds = 0

    async def watch(self) -> None:
        """Warn once for each file system that runs low, and again after it had room."""
        while True:
            self._measure()
            await self._thread.run(self._look)
            await asyncio.sleep(LOOK_S)

    async def wait_for_room(self) -> None:
        """Return when a file can be written in each folder, and the next checkpoint fits."""
        pause_s = FIRST_WAIT_S
        said = ""
        self._measure()
        while (why := await self._thread.run(self._lack)) is not None:
            if why != said:
                said = why
                self._warn(f"waiting for disk space: {why}")
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_WAIT_S)
        # A disk that seems to have room and fills again at once must not be filled in a circle.
        await asyncio.sleep(min(FIRST_WAIT_S * 2 ** min(self._holds, 16), MOST_BETWEEN_HOLDS_S))
        self._holds += 1

    async def full(self) -> str:
        """Which disk is full at this moment, and how; "" if none is, or none answers in time."""
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(ANSWER_S):
                return await self._thread.run(self._full)
        return ""

    def _full(self) -> str:
        """One that takes no file at all: what a checkpoint would need is another question.

        Every restart waits for this, so a file is only tried where the counts say that it is tight.
        """
        found = (room(folder, 0) for folder in self._one_of_each() if self._is_tight(folder))
        return next((why for why in found if why is not None), "")

    def _is_tight(self, folder: Path) -> bool:
        found = space(folder)
        few = found.free_inodes is not None and found.free_inodes < FEW_INODES
        return few or not found.total_bytes or found.free_bytes < TIGHT_BYTES

    def _lack(self) -> str | None:
        """Why there is no room for what comes next; None if there is."""
        for folder in self._one_of_each():
            why = room(folder, self._need_bytes(folder))
            if why is not None:
                return why
        return None

    def close(self) -> None:
        """Look no more."""
        self._thread.close()

    def _look(self) -> None:
        with suppress(OSError):  # a disk that fails is told of by whoever needs it
            self._look_at_each()

    def _look_at_each(self) -> None:
        for folder in self._one_of_each():
            found = space(folder)
            if not found.total_bytes:
                continue  # it does not say
            low_bytes = low_water_bytes(found.total_bytes, self._newest_bytes)
            if found.free_bytes >= low_bytes:
                self._low.discard(folder)
            elif folder not in self._low:
                self._low.add(folder)
                free, enough = size(found.free_bytes), size(low_bytes)
                self._warn(f"disk space runs low: {free} free for {folder}; {enough} are wanted")

    def _one_of_each(self) -> list[Path]:
        return [group[0] for group in same_file_system(self._folders)]

    def _need_bytes(self, folder: Path) -> int:
        return low_water_bytes(space(folder).total_bytes, self._newest_bytes) // 2

    def _measure(self) -> None:
        """How large the next checkpoint may be: as large as the last one."""
        with suppress(JournalUnavailable):
            sizes = [one.size_bytes for one in self._job.journal.checkpoints(self._job.id)]
            self._newest_bytes = next((one for one in reversed(sizes) if one), None)
