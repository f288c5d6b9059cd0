"""Watches the GPUs of the running attempt: memory of its tree, limits, troubles.

Owns the rhythm of looking and the memory curve. It asks a probe that may hang, and so may never be
awaited by what the job depends on. What it finds becomes events.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

from supervisor.core.activity import GpuActivity
from supervisor.core.events import GpuTroubleSeen, LimitExceeded
from supervisor.core.evidence import Breach, GpuUse, Limit
from supervisor.core.gpu import GpuTrouble, Severity, TroubleKind, xid_trouble
from supervisor.gpu.model import Reading
from supervisor.gpu.probe import ProbeFailed, ProbeHung
from supervisor.gpu.usage import tree_bytes
from supervisor.host.kernel_log import KernelLog, xids
from supervisor.runner.gpus import Gpus, Held
from supervisor.runner.listener import GpuUsage
from supervisor.runner.stage import Stage

LOOK_S = 2.0
CURVE_POINTS = 120


class GpuWatch:
    """Looks at one attempt's GPUs until it is cancelled.

    `own` is what the worker itself says that it holds, in bytes: where the driver names no process
    and others use the GPU too, there is no other figure. It leaves out CUDA's own share.
    """

    def __init__(
        self, loop: Stage, gpus: Gpus, number: int, own: Callable[[], int | None] = lambda: None
    ) -> None:
        self._own = own
        self._loop = loop
        self._gpus = gpus
        self._number = number
        self._spawned_at = loop.clock()
        self._every = 1
        self._looks = 0
        self._told: set[str] = set()
        self.curve: list[GpuUse] = []
        self.used: dict[str, int] = {}
        self.latest: tuple[Reading, ...] = ()

    async def run(self) -> None:
        """Look again and again; hear of troubles as they come."""
        hearing = self._loop.tasks.start(self._hear())
        log = KernelLog()
        try:
            while True:
                await self._look()
                await self._read_kernel_log(log)
                await asyncio.sleep(LOOK_S)
        finally:
            hearing.cancel()
            log.close()

    def forget_limits(self) -> None:
        """Another worker is there: what the one before it used is not held against it."""
        self._told -= set(Limit)

    def activity(self) -> tuple[GpuActivity, ...]:
        """What the GPUs did at the last look."""
        return tuple(
            GpuActivity(
                one.uuid,
                one.utilization,
                one.memory_utilization,
                one.power_w,
                one.power_limit_w,
            )
            for one in self.latest
        )

    def lines(self) -> list[str]:
        """The last look, for people."""
        return [self._line(one) for one in self.latest]

    async def _look(self) -> None:
        held = self._gpus.held
        if held is None:
            return
        try:
            self.latest = await self._gpus.probe.read(tuple(held.lease.uuids))
        except ProbeHung as error:
            first = held.lease.uuids[0]
            now_s = time.time()
            whole = GpuTrouble(
                first, TroubleKind.DRIVER_HUNG, None, str(error), Severity.AVOID, now_s
            )
            self._lose_sight(held)
            await self._trouble(error.trouble(now_s) or whole)
            return
        except ProbeFailed as error:
            self._lose_sight(held)
            self._warn_once(f"the GPUs cannot be watched: {error}")
            return
        tree = self._gpus.tree()
        shared = self._loop.job.settings.resources.share_gpu
        used = {
            one.uuid: tree_bytes(held.before[one.uuid], one, tree, shared=shared)
            for one in self.latest
        }
        known = {uuid: count for uuid, count in used.items() if count is not None}
        own = self._own()
        if not known and own is not None and len(used) == 1:
            known = dict.fromkeys(used, own)
        self.used = known
        self._loop.listener.gpus_used(self._usage(known))
        if known:
            self._remember(sum(known.values()))
            await self._check_limits(known)

    def _lose_sight(self, held: Held) -> None:
        """What was seen last says nothing of now: neither that they work nor that they idle."""
        self.latest = tuple(Reading(uuid) for uuid in held.lease.uuids)
        self._loop.listener.gpus_used(GpuUsage())

    def _usage(self, used: Mapping[str, int]) -> GpuUsage:
        loads = [one.utilization for one in self.latest if one.utilization is not None]
        return GpuUsage(
            used_bytes=sum(used.values()) if used else None,
            utilization=sum(loads) / len(loads) if loads else None,
        )

    async def _check_limits(self, used: Mapping[str, int]) -> None:
        wanted = self._loop.job.settings.resources
        limits = (
            (Limit.GPU_MEMORY, wanted.gpu_memory_bytes),
            (Limit.GPU_MEMORY_SOFT, wanted.gpu_memory_soft_bytes),
        )
        for limit, allowed in limits:
            for uuid, count in used.items():
                if allowed is not None and count > allowed and limit not in self._told:
                    self._told.add(limit)
                    breach = Breach(limit, count, allowed, self._gpus.title(uuid))
                    await self._loop.feed(LimitExceeded(self._number, breach))
                    return

    def _remember(self, count: int) -> None:
        """Add a point; when there are too many, every second one goes."""
        if self._looks % self._every == 0:
            self.curve.append(GpuUse(round(self._loop.clock() - self._spawned_at, 1), count))
        self._looks += 1
        if len(self.curve) > CURVE_POINTS:
            self.curve = self.curve[::2]
            self._every *= 2

    async def _hear(self) -> None:
        while True:
            await self._trouble(await self._gpus.probe.troubles.get())

    async def _read_kernel_log(self, log: KernelLog) -> None:
        """Where the driver reports no events (another user's container), the kernel's log may."""
        for line in xids(log.read_new()):
            for gpu in self._gpus.inventory.gpus:
                if gpu.bus_id.lower() == line.bus_id.lower():
                    await self._trouble(xid_trouble(gpu.uuid, line.code, time.time(), line.text))

    async def _trouble(self, trouble: GpuTrouble) -> None:
        """Join a trouble to the attempt, if it is about a GPU (or its MIG parent) of ours."""
        held = self._gpus.held
        if held is None:
            return
        for uuid in held.lease.uuids:
            gpu = self._gpus.inventory.find(uuid)
            whole = uuid if gpu is None or gpu.parent is None else gpu.parent
            # What spoils an instance spoils the GPU that it is a part of, and so its siblings.
            ours = replace(trouble, uuid=whole if trouble.spoils_gpu else uuid)
            key = f"{ours.kind} {ours.code} {ours.uuid}"
            if trouble.uuid in {uuid, whole} and key not in self._told:
                self._told.add(key)
                await self._loop.feed(GpuTroubleSeen(self._number, ours))

    def _warn_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            with suppress(OSError):
                self._loop.listener.warned(text)

    def _line(self, one: Reading) -> str:
        def figure(value: float | None, unit: str, scale: float = 1.0) -> str:
            return "?" if value is None else f"{value / scale:.1f} {unit}"

        processes = (
            "unknown"
            if one.processes is None
            else ", ".join(
                f"{each.pid} ({figure(each.used_bytes, 'GiB', 1 << 30)})" for each in one.processes
            )
        )
        return (
            f"{self._gpus.title(one.uuid)} {one.uuid}: "
            f"utilization {figure(one.utilization, '%')}, "
            f"memory traffic {figure(one.memory_utilization, '%')}, "
            f"power {figure(one.power_w, 'W')} of {figure(one.power_limit_w, 'W')}, "
            f"memory {figure(one.used_bytes, 'GiB', 1 << 30)}, processes: {processes}"
        )
