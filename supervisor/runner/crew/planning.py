"""Which items a batch job has: its source is read and the ledger brought up to date.

Owns the reading. It gives way to everything else every few thousand items, so a job of a million is
stopped as quickly as any. A user's function is called in a child, never here.
"""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from supervisor.batch.planner import Listing, listing_command, listing_setup
from supervisor.batch.results import ResultsProblem
from supervisor.batch.sources import CallableSource, SourceProblem, source_of
from supervisor.core.causes import Cause
from supervisor.core.events import Event, HoldRequired
from supervisor.core.item_events import ItemsPlanned
from supervisor.process import Command, SpawnFailed, isolated_child
from supervisor.runner.crew.tools import CrewTools
from supervisor.runner.environment import worker_environment
from supervisor.runner.opening import OpenJob
from supervisor.spec.paths import interpreter
from workers import protocol

READ_BYTES = 1 << 16
GONE = (BrokenPipeError, ConnectionResetError)


class Planning:
    """The items of one job, read once by each runner."""

    def __init__(self, job: OpenJob, tools: CrewTools) -> None:
        self._job = job
        self._tools = tools
        self._is_read = False

    async def plan(self) -> Event | None:
        """What was found, or why it cannot be; None where this runner has done it already.

        Raises JournalError.
        """
        try:
            self._tools.open_results()
            planned = None if self._is_read else await self._read()
        except (SourceProblem, ResultsProblem, SpawnFailed) as error:
            return HoldRequired(Cause.BAD_CONFIG, str(error))
        except OSError as error:
            return HoldRequired(Cause.BAD_CONFIG, str(error))
        self._is_read = True
        return planned

    async def publish(self) -> None:
        """Write what people read, as at the end of the job."""
        await self._tools.publish(whole=True)

    async def _read(self) -> ItemsPlanned:
        ledger = self._job.journal.ledger(self._job.id)
        reading = ledger.plan(await self._source())
        while True:
            try:
                next(reading)
            except StopIteration as end:
                found = end.value
                break
            await asyncio.sleep(0)
        counts = ledger.counts()
        return ItemsPlanned(
            total=counts.total,
            added=found.added,
            gone=found.gone,
            repeated=found.repeated,
            left=counts.todo + counts.suspect,
            quarantined=counts.quarantined,
        )

    async def _source(self) -> Iterator[str]:
        plan = self._tools.settings.plan
        source = source_of(plan.items, self._job.settings.cwd, plan.out)
        if not isinstance(source, CallableSource):
            return source.read()
        await self._list(source, self._job.folder.items)
        return _lines(self._job.folder.items)

    async def _list(self, source: CallableSource, target: Path) -> None:
        """Have the user's function called, and what it names written to a file of ours.

        Raises SourceProblem, SpawnFailed.
        """
        ours, theirs = socket.socketpair()
        log = target.with_suffix(".log")
        log.unlink(missing_ok=True)
        channel = {protocol.ENV_CHANNEL_FD: str(theirs.fileno())}
        command = Command(
            argv=listing_command(interpreter(self._job.spec, os.environ)),
            cwd=self._job.settings.cwd,
            env=worker_environment(self._job, 0) | channel,
            output=log,
            inherit_fds=(self._job.worker_lock.fd, theirs.fileno()),
            tracer_pid=os.getpid(),
        )
        listing = Listing(source)
        with ours, theirs:
            async with isolated_child(command) as running:
                theirs.close()
                ours.setblocking(False)  # noqa: FBT003 - the name of the method says it
                loop = asyncio.get_running_loop()
                with (
                    target.open("w", encoding="ascii") as file,
                    suppress(*GONE),
                ):  # its end says more
                    await loop.sock_sendall(ours, listing_setup(source))
                    while chunk := await loop.sock_recv(ours, READ_BYTES):
                        file.writelines(f"{item}\n" for item in listing.feed(chunk))
                status = await running.wait()
        listing.close(f"it ended with {status}; what it printed is in {log}")


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="ascii") as file:
        for line in file:
            yield line.rstrip("\n")
