"""What the daemon knows of the GPUs of its host.

Owns the daemon's probe, the last look, and the book of what was given to jobs that have not leased
it yet. It leases nothing: a runner does, and may find that somebody was quicker. Invariant: nobody
waits for the driver longer than the deadline of a look, and nothing is asked of it before somebody
wants GPUs.
"""

import asyncio
import itertools
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from supervisor.daemon.contracts import Conflict, Json
from supervisor.daemon.gpu_documents import document
from supervisor.daemon.gpu_taker import NOTHING, Taker, View, wish
from supervisor.gpu.aside import SetAside
from supervisor.gpu.free import Facts, Refused, Standing, Want, choose, judge
from supervisor.gpu.lease_files import LeaseRecord
from supervisor.gpu.leases import Leases
from supervisor.gpu.model import Inventory, Reading
from supervisor.gpu.probe import HUNG_LIMIT, Probe, ProbeFailed, ProbeHung
from supervisor.gpu.shared_folder import LeaseFolderUnusable, lease_folder
from supervisor.queue.model import Entry, Needs
from supervisor.runner.disk import DiskThread

TIMEOUT_S = 5.0  # of one question to the driver, and of a look as a whole
IMPATIENT_S = 0.5  # where the driver was silent the last time, a look goes on behind the scenes
REST_S = 15.0  # a driver that hangs is left alone for so long
GPU_RESTS_S = 60.0  # and so is a GPU in which it hangs, while the others are asked
LISTED_S = 60.0  # GPUs come and go rarely
TROUBLED_S = 5.0  # where something was wrong with the list, it is asked for sooner,
TROUBLED_TIMES = 12  # but not so soon that asking is all that is done
STRANGER_S = 120.0  # who uses a GPU without a lease for so long is not about to leave

_ANY = Want(1, None, share=False)


class GpuDesk:
    """The GPUs of this host, for one event loop."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._probe = Probe(timeout_s)
        self._leases = Leases(lease_folder())
        self._thread = DiskThread()
        self._turn = asyncio.Lock()
        self._tickets = itertools.count()
        self._begun = -1
        self._looks: set[asyncio.Task[None]] = set()
        self._inventory: Inventory | None = None
        self._list_again_s = 0.0
        self._rests_until_s = 0.0
        self._hung: dict[str, tuple[float, Reading]] = {}
        self._silent = False
        self._closed = False
        self._view = View()
        self._used_since_s: dict[str, float] = {}
        self._given: dict[str, tuple[str, ...]] = {}

    @property
    def problem(self) -> str | None:
        """What keeps all GPUs from jobs, or some of them from the list; None if nothing does."""
        return self._view.trouble or self._view.facts.inventory.problem

    @property
    def probe_pid(self) -> int | None:
        """The child that asks the driver; None while there is none."""
        return self._probe.pid

    async def look(self, *, anew: bool = False) -> None:
        """Find out what the GPUs do and who has them, as of now; `anew` lists them again, too.

        To be called when somebody wants GPUs. Takes `timeout_s` at worst, and never raises for
        what it finds: a driver that does not answer is the reason that jobs are given.
        """
        if self._closed:
            return
        if anew:
            self._list_again_s = self._rests_until_s = 0.0
            self._hung.clear()
        look = asyncio.create_task(self._look(next(self._tickets)))
        self._looks.add(look)
        look.add_done_callback(self._looks.discard)
        limit_s = min(IMPATIENT_S, self._timeout_s) if self._silent else self._timeout_s
        done, _ = await asyncio.wait({look}, timeout=limit_s)
        if done:
            with suppress(asyncio.CancelledError):  # it was closed meanwhile
                look.result()
        elif not self._silent:
            self._silent = True
            words = f"the NVIDIA driver does not answer: nothing within {self._timeout_s:g} s"
            self._view = replace(self._view, trouble=words)

    def taker(self, started: Sequence[Entry]) -> Taker:
        """One plan's view of the GPUs. What `started` jobs were given is taken, leased or not."""
        return Taker(replace(self._view, given=self._given), started)

    def placed(self, job_id: str, needs: Needs, uuids: Sequence[str]) -> None:
        """A job was given these; empty: which ones is not known any more."""
        if needs.gpus:
            self._given[job_id] = tuple(uuids)

    def gone(self, job_id: str) -> None:
        """A job needs its GPUs no more."""
        self._given.pop(job_id, None)

    def impossible(self, needs: Needs) -> str | None:
        """Why this host's GPUs could never do; None if they could, or too little is known."""
        view = self._view
        if not needs.gpus or view.trouble or view.facts.inventory.problem is not None:
            return None
        found = choose(wish(needs), view.facts)
        return found.reason if isinstance(found, Refused) and found.never else None

    async def documents(self) -> list[Json]:
        """Every GPU as a JSON object, as `supervise gpus --json` shows it."""
        await self.look()
        trouble, facts = self._view.trouble, self._view.facts
        return [document(gpu, facts, _ANY, trouble) for gpu in facts.inventory.gpus]

    async def release(self, uuid: str) -> bool:
        """Let a GPU that was set aside be used again; False if it was not set aside.

        Raises:
            Conflict: the lease folder refuses.

        """
        try:
            return await self._thread.run(self._leases.release, uuid)
        except (LeaseFolderUnusable, OSError) as error:
            raise Conflict(f"{uuid} stays set aside: {error}") from error

    async def close(self) -> None:
        """End the probe and whatever waits for it."""
        self._closed = True
        await self._probe.close()
        looks = tuple(self._looks)
        for look in looks:
            look.cancel()
        await asyncio.gather(*looks, return_exceptions=True)
        await self._probe.close()  # a look may have begun a new one, just before it was cancelled
        self._thread.close()

    async def _look(self, ticket: int) -> None:
        async with self._turn:
            if self._begun > ticket:  # one that began after this was asked for has done it
                return
            self._begun = next(self._tickets)
            if time.monotonic() >= self._rests_until_s:
                self._view = await self._see()

    async def _see(self) -> View:
        """All that can be known now. The leases come first: who leaves meanwhile is still there."""
        trouble = ""
        records: tuple[LeaseRecord, ...] = ()
        asides: tuple[SetAside, ...] = ()
        try:
            records, asides = await self._thread.run(self._read_folder)
        except (LeaseFolderUnusable, OSError) as error:
            trouble = str(error)
        try:
            inventory = await self._list()
            readings = await self._read([gpu.uuid for gpu in inventory.gpus])
        except (ProbeHung, ProbeFailed) as error:
            self._silent = isinstance(error, ProbeHung)
            self._rests_until_s = time.monotonic() + (REST_S if self._silent else 0.0)
            known = self._inventory or NOTHING.inventory
            return View(Facts(known, {}, records, asides), str(error))
        self._silent = False
        facts = Facts(inventory, readings, records, asides)
        for record in records:
            self._given.pop(record.owner.job_id, None)  # from here on the lease itself tells
        return View(facts, trouble, self._strangers(facts))

    async def _list(self) -> Inventory:
        began_s = time.monotonic()
        if self._inventory is None or began_s >= self._list_again_s:
            self._inventory = await self._probe.inventory()
            now_s = time.monotonic()
            troubled_s = max(TROUBLED_S, (now_s - began_s) * TROUBLED_TIMES)
            age_s = LISTED_S if self._inventory.problem is None else troubled_s
            self._list_again_s = now_s + age_s
        return self._inventory

    async def _read(self, uuids: Sequence[str]) -> dict[str, Reading]:
        """What each of them does. One in which the driver hangs is not asked again for a while."""
        now_s = time.monotonic()
        self._hung = {uuid: one for uuid, one in self._hung.items() if one[0] > now_s}
        for _ in range(HUNG_LIMIT):
            asked = [uuid for uuid in uuids if uuid not in self._hung]
            try:
                read = await self._probe.read(asked)
            except ProbeHung as error:
                if error.uuid not in asked:
                    raise
                hung, again_s = error, time.monotonic() + GPU_RESTS_S
                self._hung[error.uuid] = again_s, Reading(error.uuid, problems=(str(error),))
                continue
            spoilt = {uuid: reading for uuid, (_, reading) in self._hung.items()}
            return spoilt | {one.uuid: one for one in read}
        raise hung

    def _read_folder(self) -> tuple[tuple[LeaseRecord, ...], tuple[SetAside, ...]]:
        return tuple(self._leases.records()), tuple(self._leases.set_asides())

    def _strangers(self, facts: Facts) -> frozenset[str]:
        """GPUs that somebody without a lease has used for long: no job that has just ended."""
        gpus = facts.inventory.gpus
        used = [gpu.uuid for gpu in gpus if judge(gpu, _ANY, facts)[0] is Standing.USED]
        now_s = time.monotonic()
        self._used_since_s = {uuid: self._used_since_s.get(uuid, now_s) for uuid in used}
        since = self._used_since_s.items()
        return frozenset(uuid for uuid, since_s in since if now_s - since_s > STRANGER_S)
