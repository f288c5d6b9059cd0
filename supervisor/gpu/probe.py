"""The GPUs as the supervisor asks about them: through a child, each question with a deadline.

Owns the one running probe, and what happens when the driver does not answer: the probe is killed,
or given up where even that does not work, and the next question starts another. Never loads NVML
in this process. Invariant: no call takes longer than its deadline and the time to kill, and after
`close` no probe is left that can be killed.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import TypeVar

from supervisor.core.gpu import GpuTrouble, Severity, TroubleKind
from supervisor.gpu import wire
from supervisor.gpu.model import Gpu, Inventory, Reading
from supervisor.gpu.probe_process import ProbeFailed, ProbeProcess

__all__ = ["Probe", "ProbeFailed", "ProbeHung", "look"]

T = TypeVar("T")

TIMEOUT_S = 10.0
TROUBLES_KEPT = 1000

# One GPU that hangs does not hide the others, but a driver that hangs everywhere is not asked on.
HUNG_LIMIT = 2


class ProbeHung(RuntimeError):
    """The driver did not answer in time. `uuid` is blank where no single GPU was being asked."""

    def __init__(self, process: ProbeProcess, timeout_s: float) -> None:
        self.pid = process.pid
        self.function, self.uuid = process.asking()
        self.abandoned = False
        where = f"in {self.function}" if self.function else "before it asked the driver anything"
        of = f" of {self.uuid}" if self.uuid else ""
        self.what = f"no answer within {timeout_s:g} s {where}{of}"
        super().__init__(self.what)

    def __str__(self) -> str:
        end = "hangs in the kernel and was given up" if self.abandoned else "was killed"
        return f"the NVIDIA driver does not answer: {self.what}; the probe (pid {self.pid}) {end}"

    def trouble(self, at_s: float) -> GpuTrouble | None:
        """Return this as a trouble of the GPU that was being asked, if it was one."""
        if not self.uuid.startswith(("GPU-", "MIG-")):
            return None
        kind = TroubleKind.DRIVER_HUNG
        return GpuTrouble(self.uuid, kind, None, str(self), Severity.AVOID, at_s)


class Probe:
    """Asks about GPUs. For one event loop; calls wait for each other.

    Every call raises ProbeHung or ProbeFailed; the one after it begins with a new probe.
    """

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self.troubles: asyncio.Queue[GpuTrouble] = asyncio.Queue(TROUBLES_KEPT)
        self._timeout_s = timeout_s
        self._turn = asyncio.Lock()
        self._process: ProbeProcess | None = None
        self._leaving: list[ProbeProcess] = []
        self._watched: tuple[str, ...] = ()

    @property
    def pid(self) -> int | None:
        """The running probe's pid: a child of this process that is no worker."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start the probe ahead of the first question. Raises ProbeFailed."""
        async with self._turn:
            await self._running()

    async def inventory(self) -> Inventory:
        """Return the GPUs of this host; `problem` says why there are none, or fewer."""
        begun, count = await self._call(wire.unpack_driver, "driver")
        problems = [begun.problem] if begun.problem else []
        gpus: list[Gpu] = []
        hung = 0
        for index in range(count):
            try:
                one = await self._call(wire.unpack_inventory, "gpu", index)
            except ProbeHung as error:
                hung += 1
                if hung >= HUNG_LIMIT:
                    raise
                problems.append(f"GPU {index} is left out: {error}")
                continue
            gpus += one.gpus
            problems += [one.problem] if one.problem else []
        return Inventory(begun.driver, tuple(gpus), "; ".join(problems) or None)

    async def read(self, uuids: Iterable[str]) -> tuple[Reading, ...]:
        """Return what each of these does now, in this order."""
        asked = list(uuids)
        return await self._call(wire.unpack_readings, "read", asked) if asked else ()

    async def read_each(self, uuids: Iterable[str]) -> tuple[Reading, ...]:
        """As `read`, but a GPU in which the driver hangs only spoils its own reading."""
        asked = list(uuids)
        spoilt: dict[str, Reading] = {}
        while True:
            try:
                read = await self.read(uuid for uuid in asked if uuid not in spoilt)
            except ProbeHung as error:
                if error.uuid not in asked or len(spoilt) + 1 >= HUNG_LIMIT:
                    raise
                spoilt[error.uuid] = Reading(error.uuid, problems=(str(error),))
                continue
            found = spoilt | {one.uuid: one for one in read}
            return tuple(found[uuid] for uuid in asked)

    async def watch(self, uuids: Iterable[str]) -> tuple[str, ...]:
        """Report troubles of these, and of no others, to `troubles` from now on.

        Returns a sentence for each that NVML will not report on. A new probe goes on watching.
        """
        wanted = tuple(uuids)
        try:
            return await self._call(wire.unpack_lines, "watch", list(wanted))
        finally:
            self._watched = wanted

    async def close(self) -> None:
        """End the probe; what was being asked fails."""
        process, self._process = self._process, None
        if process is not None:
            self._leaving.append(process)
            await process.end()
        self._tidy()

    async def _call(self, unpack: Callable[[wire.Json], T], do: str, *arguments: wire.Json) -> T:
        async with self._turn:
            try:
                async with asyncio.timeout(self._timeout_s):
                    process = await self._running()
                    return unpack(await process.ask(do, *arguments))
            except TimeoutError:
                raise await self._hung() from None
            except wire.Garbled as error:
                raise ProbeFailed(f"the GPU probe sent {error}") from error

    async def _running(self) -> ProbeProcess:
        """Return the running probe, or start one, which then watches what the last one did."""
        if self._process is not None and not self._process.ended:
            return self._process
        if self._process is not None:
            self._leaving.append(self._process)
        self._tidy()
        try:
            self._process = process = ProbeProcess(self._told)
            await process.connect()
        except OSError as error:
            raise ProbeFailed(f"the GPU probe could not be started: {error}") from error
        if self._watched:
            await process.ask("watch", list(self._watched))
        return process

    async def _hung(self) -> Exception:
        process, self._process = self._process, None
        if process is None:
            return ProbeFailed("the GPU probe was closed")
        hung = ProbeHung(process, self._timeout_s)
        self._leaving.append(process)
        hung.abandoned = not await process.kill()
        self._tidy()
        return hung

    def _tidy(self) -> None:
        """Reap what has ended meanwhile; what hangs in the kernel is tried again the next time."""
        self._leaving = [process for process in self._leaving if not process.reap()]

    def _told(self, trouble: GpuTrouble) -> None:
        if not self.troubles.full():  # the first ones tell the cause
            self.troubles.put_nowait(trouble)


def look(timeout_s: float = 5.0) -> tuple[Inventory, tuple[Reading, ...]]:
    """Return the GPUs and what they do, blocking; `Inventory.problem` says what went wrong.

    For the command line: starts an event loop and a probe of its own, and ends both.
    """
    return asyncio.run(_look(timeout_s))


async def _look(timeout_s: float) -> tuple[Inventory, tuple[Reading, ...]]:
    probe = Probe(timeout_s)
    inventory = Inventory("", ())
    try:
        inventory = await probe.inventory()
        return inventory, await probe.read_each(gpu.uuid for gpu in inventory.gpus)
    except (ProbeHung, ProbeFailed) as error:
        problem = "; ".join(filter(None, [inventory.problem, str(error)]))
        return Inventory(inventory.driver, inventory.gpus, problem), ()
    finally:
        await probe.close()
