"""One worker of a crew, from its launcher to the end of its tree.

Owns the child, its channel and those who look at it. It tells the crew what it hears and how it
ended; it decides nothing. Invariant: its end is told once, when its whole tree is gone or proven
not to go.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from supervisor.core.activity import GpuActivity
from supervisor.core.batch.words import Failed, Fault, MemorySeen, Ready, Reported, Word
from supervisor.core.evidence import Breach, SpawnError
from supervisor.process import Child, ChildUnkillable, Command, ExitStatus, isolated_child
from supervisor.runner.crew.channel import Channel
from supervisor.runner.crew.settling import Settling
from supervisor.runner.crew.standby import Standby
from supervisor.runner.home import AttemptFolder
from supervisor.runner.isolation import Enclosure
from supervisor.runner.worker import LiveWorker
from workers import messages
from workers.lines import ProtocolBroken, encode_do
from workers.protocol import FAILURE_KINDS

_FAULTS = {
    # What only a training has a rule for is an item's error.
    **dict.fromkeys(FAILURE_KINDS, Fault.ERROR),
    "bad_config": Fault.BAD_RESULT,
    **{fault.value: fault for fault in Fault},
}
DETAIL_CHARS = 16 << 10
CLOSED_S = 2.0  # from the end of its channel to its own
ORDER_BYTES = 8 << 20  # of items in one line to a worker


@dataclass(frozen=True, slots=True)
class Birth:
    """What a worker is made from."""

    serial: int
    slot: int
    command: Command
    standby: Standby
    enclosure: Enclosure
    setup: bytes
    log: Path


@dataclass(slots=True)
class End:
    """How it ended, as far as the runner saw it.

    `dismissed` before it had begun anything; `stack` is where it stood when it hung.
    """

    status: ExitStatus | None = None
    spawn_error: SpawnError | None = None
    survivors: tuple[int, ...] = ()
    left: bool = False
    unready: messages.Failure | None = None
    broken: str = ""
    breach: Breach | None = None
    killed: bool = False
    dismissed: bool = False
    stack: Path | None = None


class Member:
    """One worker. `tell` takes its words; `texts` are those of the items in its hands."""

    def __init__(
        self, birth: Birth, settling: Settling, tell: Callable[[Word], Awaitable[None]]
    ) -> None:
        self.birth = birth
        self.serial = birth.serial
        self.end = End()
        self.child: Child | None = None
        self.texts: dict[int, str] = {}
        self.known: frozenset[int] = frozenset()
        self.gpu_bytes: Callable[[], int | None] = lambda: None
        self.gpu_activity: Callable[[], tuple[GpuActivity, ...]] = tuple
        self._begun: tuple[int, ...] = ()
        self._settling = settling
        self._tell = tell
        self._channel = Channel(birth.standby.ours)
        self._ended = asyncio.Event()
        self._stuck = asyncio.Event()
        self._log_from = _size(birth.log)

    async def live(self, spawned: Callable[["Member"], Awaitable[None]]) -> None:
        """Start it, hear it out, and see its tree end. Raises SpawnFailed.

        `spawned` is told when it runs.
        """
        try:
            async with isolated_child(
                self.birth.command, launcher=self.birth.standby.launcher
            ) as child:
                self.birth.standby.theirs.close()
                self.child = child
                self.known = frozenset({child.pid})
                if self.end.killed:
                    await child.kill()
                self._channel.send(self.birth.setup)
                hearing = asyncio.ensure_future(self._hear())
                try:
                    await spawned(self)
                    self.end.status = await self._until_its_end(child)
                    self._ended.set()
                    self._channel.finish()
                    await hearing  # to the last word, and what follows from it
                finally:
                    hearing.cancel()
            self.end.survivors = tuple(one.pid for one in child.survivors())
        except ChildUnkillable as error:
            self.end.survivors = tuple(one.pid for one in error.survivors) or (error.pid,)
        finally:
            self.birth.standby.theirs.close()
            self._channel.close()

    def hand_out(self, items: Sequence[tuple[int, str]], batch: int | None) -> None:
        """Give it items."""
        self.texts.update(items)
        for part in _parts(items, batch):
            self._channel.send(encode_do(part, batch))

    def dismiss(self) -> None:
        """Ask it to leave after the call that it is in."""
        self._channel.leave()

    async def kill(self) -> None:
        """End its tree at once."""
        self.end.killed = True
        if self.child is not None:
            try:
                await self.child.kill()
            except ChildUnkillable:  # `live` leaves its block, meets the same, and tells
                self._stuck.set()

    async def save_evidence(self, folder: AttemptFolder, gpu_lines: list[str]) -> bool:
        """Write down where it stands, as evidence of a hang; whether it is unharmed by that."""
        if self.child is None:
            return False
        with suppress(OSError):  # a full disk: what cannot be written down is done without
            folder.path.mkdir(parents=True, exist_ok=True)
        return await LiveWorker(self.child, folder).save_evidence(gpu_lines, self.birth.log)

    def output(self, limit_bytes: int) -> list[str]:
        """The last lines that it printed itself."""
        with suppress(OSError), self.birth.log.open("rb") as log:
            log.seek(max(self._log_from, log.seek(0, 2) - limit_bytes))
            text = log.read(limit_bytes).decode(errors="replace")
            return [line for line in text.replace("\r", "\n").split("\n") if line.strip()]
        return []

    @property
    def main_pid(self) -> int:
        """Its main process; 0 while there is none."""
        return 0 if self.child is None else self.child.pid

    def pids(self) -> frozenset[int]:
        """The processes of its tree; `known` are all that were ever seen of it."""
        leaf = self.birth.enclosure.leaf
        if self.child is None:
            return frozenset()
        found = self.child.members() if leaf is None else leaf.members()
        now = frozenset(one.pid for one in found)
        self.known |= now
        return now

    def frozen(self) -> bool:
        """Whether its control group is frozen."""
        leaf = self.birth.enclosure.leaf
        return leaf is not None and leaf.frozen()

    def gpus(self) -> tuple[GpuActivity, ...]:
        """What its GPUs did at the last look."""
        return self.gpu_activity()

    async def _until_its_end(self, child: Child) -> ExitStatus | None:
        """How it ended; None where the kernel does not let go of it."""
        exited = asyncio.ensure_future(child.wait())
        stuck = asyncio.ensure_future(self._stuck.wait())
        try:
            await asyncio.wait({exited, stuck}, return_when=asyncio.FIRST_COMPLETED)
            return exited.result() if exited.done() else None
        finally:
            exited.cancel()
            stuck.cancel()

    async def _hear(self) -> None:
        try:
            while said := await self._channel.read():
                await self._take(said)
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSED_S):
                    await self._ended.wait()
                return
            self.end.broken = "it closed its channel, and lived on"
        except ProtocolBroken as error:
            self.end.broken = f"its channel brought what no worker says: {error}"
        except Exception:  # of the runner: nobody hears this worker any more
            await self.kill()
            raise
        await self.kill()

    async def _take(self, said: list[messages.Report]) -> None:
        """Make words of what it said: one for all the items that are done."""
        finished: list[int] = []
        for one in said:
            if isinstance(one, messages.Done):
                text = self.texts.pop(one.number, None)
                if text is not None:
                    finished.append(one.number)
                    self._settling.add(one.number, text, one.result)
            elif isinstance(one, messages.Begun):
                self._begun = one.numbers
            else:
                await self._report(finished)
                finished = []
                await self._take_rare(one)
        await self._report(finished)
        if self._settling.full:
            await self._settling.settle()

    async def _report(self, finished: list[int]) -> None:
        if self._begun and finished:
            done = set(finished)
            self._begun = tuple(one for one in self._begun if one not in done)
        if finished or self._begun:
            await self._tell(Reported(self.serial, tuple(finished), self._begun))

    async def _take_rare(self, one: messages.Report) -> None:
        if isinstance(one, messages.Ready):
            await self._tell(Ready(self.serial))
        elif isinstance(one, messages.Failed):
            self._begun = ()
            for number in one.numbers:
                self.texts.pop(number, None)
            await self._tell(_failed(self.serial, one))
        elif isinstance(one, messages.Memory):
            gpu = self.gpu_bytes() if one.gpu_bytes is None else one.gpu_bytes
            await self._tell(MemorySeen(self.serial, one.items, one.rss_bytes, gpu))
        elif isinstance(one, messages.Unready):
            self.end.unready = one.failure
        elif isinstance(one, messages.Left):
            self.end.left = True


def _parts(
    items: Sequence[tuple[int, str]], batch: int | None
) -> Iterator[Sequence[tuple[int, str]]]:
    """The items of each line to a worker: all in one, else those of a call, else each alone."""
    if _length(items) <= ORDER_BYTES:
        yield items
        return
    for first in range(0, len(items), batch or 1):
        call = items[first : first + (batch or 1)]
        if _length(call) <= ORDER_BYTES:
            yield call
        else:
            yield from ([one] for one in call)


def _length(items: Sequence[tuple[int, str]]) -> int:
    return sum(len(text) for _, text in items)


def _failed(serial: int, said: messages.Failed) -> Failed:
    failure = said.failure
    reason = f"{failure.type_name}: {failure.message}".removesuffix(": ").strip()
    return Failed(
        serial,
        said.numbers,
        _FAULTS[failure.kind],
        reason.split("\n", 1)[0][:1000],
        failure.traceback[-DETAIL_CHARS:],
        failure.fatal,
    )


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0
