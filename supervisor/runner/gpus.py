"""The GPUs of one job: leased before an attempt, seen clean before the next, given back at the end.

Owns the probe and the lease. What a lease needs is decided by `supervisor.gpu`; what a trouble
means by `supervisor.core`. Invariant: a worker is given only GPUs whose lease this runner holds and
whose event is in the journal. A driver that hangs delays the job, and never stops this process.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from supervisor.core.causes import Cause
from supervisor.core.effects import LeaseGpus, SetGpusAside
from supervisor.core.events import (
    Event,
    GpusAwaited,
    GpusLeased,
    GpusSetAside,
    HoldRequired,
    RefusedGpu,
)
from supervisor.gpu.free import Refused, Want
from supervisor.gpu.gate import clean
from supervisor.gpu.lease_files import Owner
from supervisor.gpu.leases import Lease, Leases
from supervisor.gpu.model import Inventory, Reading
from supervisor.gpu.probe import Probe, ProbeFailed, ProbeHung
from supervisor.gpu.shared_folder import LeaseFolderUnusable, lease_folder
from supervisor.host import identity
from supervisor.runner.disk import DiskThread
from supervisor.runner.opening import OpenJob

LOOK_AGAIN_S = 2.0
CLEAN_S = 30.0  # a driver frees the memory of a dead process within seconds
CLEAN_LOOK_S = 0.1
SAY_AFTER_S = 1.0  # what is over sooner is worth no word
UNCLEAN = "those of the last attempt are not given back yet"
AVOIDED = "an attempt of this job failed on it, and is tried elsewhere"


@dataclass(slots=True)
class Held:
    """The lease, and what its GPUs looked like before the job used them."""

    lease: Lease
    before: dict[str, Reading]


class Gpus:
    """The GPUs of a job.

    `tree` names the processes of the running worker, `known` all that it or the last one ever had.
    `before_release` ends whoever else inherited the lease, which would keep it.
    """

    def __init__(
        self,
        job: OpenJob,
        feed: Callable[[Event], Awaitable[None]],
        clock: Callable[[], float],
        clean_s: float = CLEAN_S,
    ) -> None:
        self._clean_s = clean_s
        self._job = job
        self._feed = feed
        self._clock = clock
        self._wanted = job.settings.resources
        self._leases = Leases(lease_folder())
        self._thread = DiskThread()  # a lease waits for other runners to decide theirs
        self._said = ""
        self._prefer = job.prefer  # until the first lease: what comes later has its own reasons
        self._set_aside: set[str] = set()
        self.probe = Probe()
        self.held: Held | None = None
        self.inventory = Inventory("", ())
        self.before_release: Callable[[], None] = lambda: None
        self.tree: Callable[[], frozenset[int]] = frozenset
        self.known: Callable[[], frozenset[int]] = frozenset

    @property
    def fds(self) -> tuple[int, ...]:
        """What the worker inherits, so that the lease lives as long as any of its processes."""
        return () if self.held is None else tuple(self.held.lease.fds)

    def share(self, slot: int, count: int) -> tuple[str, ...]:
        """The leased GPUs of one of several workers at a time, `count` of them."""
        held = () if self.held is None else tuple(self.held.lease.uuids)
        return held[slot * count : (slot + 1) * count]

    def environment(self, uuids: tuple[str, ...] | None = None) -> dict[str, str]:
        """What makes CUDA see the leased GPUs, or these of them, in the order of `nvidia-smi`."""
        if self.held is None:
            return {}
        return {
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "CUDA_VISIBLE_DEVICES": ",".join(uuids or self.held.lease.uuids),
        }

    def title(self, uuid: str) -> str:
        """`GPU 0 (NVIDIA H200)`, for people."""
        gpu = self.inventory.find(uuid)
        return uuid if gpu is None else f"GPU {gpu.index} ({gpu.name})"

    async def lease(self, effect: LeaseGpus) -> None:
        """Get the GPUs of the next attempt; waits for as long as it takes."""
        started = self._clock()
        refused = await self._keep_or_release(self._avoided(effect))
        while True:
            try:
                found = await self._try(self._avoided(effect))
            except ProbeHung as error:
                found = Refused(str(error), never=False)
            except ProbeFailed as error:
                found = Refused(str(error), never=False)
            if isinstance(found, Lease):
                waited_s = self._clock() - started
                await self._feed(GpusLeased(tuple(found.uuids), refused, waited_s))
                return
            if found.never:
                await self._feed(HoldRequired(Cause.BAD_CONFIG, found.reason))
                return
            if found.reason != self._said:
                self._said = found.reason
                each = tuple(RefusedGpu(uuid, why) for uuid, why in found.per_gpu)
                await self._feed(GpusAwaited(found.reason, each))
            await asyncio.sleep(LOOK_AGAIN_S)

    async def given_back(self, uuids: tuple[str, ...]) -> tuple[RefusedGpu, ...]:
        """Wait until the last worker's processes are off these GPUs; those that stay occupied."""
        return () if self.held is None else await self._await_clean(self.held, uuids)

    async def set_aside(self, effect: SetGpusAside) -> None:
        """Keep everybody from these GPUs.

        Where that cannot be written it is not reported as done: this job avoids them all the same,
        its next runner tries again, and whoever leases is told what is wrong with the folder.
        """
        done = [await self._put_aside(uuid, effect.reason) for uuid in effect.gpus]
        self._set_aside.update(uuid for uuid, ok in zip(effect.gpus, done, strict=True) if ok)
        if all(done):
            await self._feed(GpusSetAside(effect.gpus))

    def _avoided(self, effect: LeaseGpus) -> frozenset[str]:
        """What is to be avoided for this job alone: what was set aside, a person may release."""
        return frozenset(effect.avoid) - self._set_aside

    def release(self) -> None:
        """Let others have them."""
        if self.held is not None:
            self.before_release()
            self.held.lease.release()
            self.held = None

    async def close(self) -> None:
        """Give everything back."""
        self.release()
        self._thread.close()
        await self.probe.close()

    async def _try(self, avoid: frozenset[str]) -> Lease | Refused:
        """One attempt at getting them; those of the last attempt count if they are still ours."""
        if self.held is not None:
            return self.held.lease
        await self.probe.start()
        self.inventory = await self.probe.inventory()
        if self.inventory.problem is not None and not self.inventory.gpus:
            return Refused(self.inventory.problem, never=True)
        usable = tuple(one.uuid for one in self.inventory.gpus if one.leasable)
        readings = await self.probe.read_each(usable)
        found = await self._thread.run(
            self._leases.acquire,
            Want(
                count=self._wanted.gpus,
                memory_bytes=self._wanted.gpu_memory_bytes,
                share=self._wanted.share_gpu,
                avoid=avoid,
                prefer=self._prefer,
            ),
            self.inventory,
            readings,
            self._owner(),
            self.known(),
        )
        if isinstance(found, Lease):
            self._said, self._prefer = "", ()
            # Held from here on: a probe that hangs now must not lose the lease.
            self.held = Held(found, {one.uuid: one for one in readings})
            await self.probe.watch(tuple(found.uuids))
        return found

    async def _keep_or_release(self, avoid: frozenset[str]) -> tuple[RefusedGpu, ...]:
        """Before the next attempt: the GPUs must be clean and fit, or others are taken."""
        if self.held is None:
            return ()
        uuids = tuple(self.held.lease.uuids)
        unfit = await self._unfit(self.held, avoid) or await self._await_clean(self.held, uuids)
        if unfit:
            self.release()
        return unfit

    async def _unfit(self, held: Held, avoid: frozenset[str]) -> tuple[RefusedGpu, ...]:
        """Those of the held GPUs that this job may not have again, each with the reason."""
        bad = dict.fromkeys(avoid, AVOIDED)
        try:
            asides = await self._thread.run(self._leases.set_asides)
        except LeaseFolderUnusable as error:  # then the next lease says the same, and waits
            bad |= dict.fromkeys(held.lease.uuids, str(error))
        else:
            bad |= {one.uuid: one.reason for one in asides}
        found = []
        for uuid in held.lease.uuids:
            gpu = self.inventory.find(uuid)
            names = (uuid, None if gpu is None else gpu.parent)
            found += [RefusedGpu(uuid, bad[name]) for name in names if name in bad][:1]
        return tuple(found)

    async def _await_clean(self, held: Held, uuids: tuple[str, ...]) -> tuple[RefusedGpu, ...]:
        """Wait until nothing of the last worker is on its GPUs; those that stay occupied."""
        give_up_at = self._clock() + self._clean_s
        say_at = self._clock() + SAY_AFTER_S
        while True:
            try:
                dirty = self._dirty(held, await self.probe.read(uuids))
            except (ProbeHung, ProbeFailed) as error:
                why = f"not seen clean: {error}"
                dirty = {RefusedGpu(uuid, why): False for uuid in uuids}
            if not dirty or self._clock() > give_up_at:
                break
            if self._clock() > say_at:
                say_at = give_up_at  # once
                await self._feed(GpusAwaited(UNCLEAN, tuple(dirty)))
            await asyncio.sleep(CLEAN_LOOK_S)
        for one, strange in dirty.items():
            if not strange:  # a newcomer on the GPU is no fault of it: it is busy, not broken
                await self._put_aside(one.uuid, one.reason)
        return tuple(dirty)

    def _dirty(self, held: Held, readings: tuple[Reading, ...]) -> dict[RefusedGpu, bool]:
        """The GPUs that are not clean, each with whether a stranger is on it."""
        found = {}
        shared = self._wanted.share_gpu
        for now in readings:
            before = held.before[now.uuid]
            why = clean(before, now, self.known(), shared=shared)
            if why is not None:
                known = {one.pid for one in before.processes or ()} | self.known()
                strange = any(one.pid not in known for one in now.processes or ())
                found[RefusedGpu(now.uuid, f"not given back: {why}")] = strange
        return found

    async def _put_aside(self, uuid: str, reason: str) -> bool:
        """Whether it could be written down."""
        with suppress(OSError, LeaseFolderUnusable):
            await self._thread.run(self._leases.set_aside, uuid, reason, self._owner())
            return True
        return False

    def _owner(self) -> Owner:
        pid = os.getpid()
        ticks = identity.start_ticks(pid) or 0
        return Owner(self._job.id, str(self._job.state_dir), pid, ticks, identity.boot_id())
