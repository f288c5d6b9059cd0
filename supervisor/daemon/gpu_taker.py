"""Which GPUs go to which jobs within one plan.

Owns the view of one plan: what the last look found, less what jobs that start now or started a
moment ago are about to lease. Asks nobody. Invariant: no GPU is given twice, shared ones apart, and
a job that is started already comes before any that waits.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from supervisor.gpu.free import (
    Facts,
    Judgement,
    Refused,
    Standing,
    Want,
    choose,
    judge,
    lease_words,
)
from supervisor.gpu.lease_files import LeaseRecord, Owner
from supervisor.gpu.model import Gpu, Inventory
from supervisor.gpu.words import label
from supervisor.host import identity
from supervisor.queue.model import Entry, Needs
from supervisor.queue.plan import OutOfReach

NAMED = 4  # so many GPUs are named in a reason
PLACED = "placed-just-now"

NOTHING = Facts(Inventory("", ()), {}, (), ())


@dataclass(frozen=True, slots=True)
class View:
    """What is known. With a `trouble` no GPU is given to anybody.

    `given` tells which GPUs started jobs were given, `strangers` the GPUs that somebody without a
    lease has used for so long that no job's end will free them.
    """

    facts: Facts = NOTHING
    trouble: str = "nobody has looked at the GPUs yet"
    strangers: frozenset[str] = frozenset()
    given: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Taker:
    """What is left of the GPUs. A `queue.plan.GpuTaker`."""

    def __init__(self, view: View, started: Sequence[Entry]) -> None:
        self._view = view
        self._facts = view.facts
        self._meant: dict[str, str] = {}  # what `free` says of such a lease, and what it is
        self._judgements: dict[tuple[int | None, bool], list[tuple[Gpu, Judgement]]] = {}
        leased = {record.owner.job_id for record in view.facts.records}
        for entry in sorted(started, key=lambda one: one.seq):
            if entry.needs.gpus and entry.id not in leased and not view.trouble:
                self._keep(entry)

    def take(self, needs: Needs) -> tuple[str, ...] | str:
        """Give all that is wanted, or say why not: OutOfReach where no end of a job would help."""
        if self._view.trouble:
            return OutOfReach(self._view.trouble)
        want = wish(needs)
        if self._only_busy(want):
            return self._words(want)
        found = choose(want, self._facts)
        if isinstance(found, Refused):
            return OutOfReach(found.reason)  # there are not so many, or none so large
        self._give(found, needs, PLACED)
        return found

    def _keep(self, entry: Entry) -> None:
        """Take what a started job is about to lease: what it was given, or what it finds instead.

        Where that is less than it wants it gets no lease yet, and what there is is kept for it.
        """
        want = replace(wish(entry.needs), prefer=self._view.given.get(entry.id, ()))
        found = choose(want, self._facts)
        if isinstance(found, Refused):
            found = tuple(self._free(want)[: want.count])
        if found:
            self._give(found, entry.needs, entry.id)

    def _give(self, uuids: tuple[str, ...], needs: Needs, job_id: str) -> None:
        pid = os.getpid()
        owner = Owner(job_id, "", pid, identity.start_ticks(pid) or 0, identity.boot_id())
        memory, now_s, user = needs.gpu_memory_bytes, time.time(), os.geteuid()
        record = LeaseRecord("", owner, uuids, needs.share_gpu, memory, now_s, user)
        self._meant[lease_words(record)] = (
            "given to a job that goes first"
            if job_id == PLACED
            else f"given to {job_id}, which is starting"
        )
        self._facts = replace(self._facts, records=(*self._facts.records, record))
        self._judgements.clear()

    def _only_busy(self, want: Want) -> bool:
        """Whether there are too few free ones, though the host has enough that would do."""
        large = sum(_is_large(gpu, want) for gpu, _ in self._judged(want))
        return len(self._free(want)) < want.count <= large

    def _words(self, want: Want) -> str:
        """What there is to say of busy GPUs; OutOfReach if they will not all be given back."""
        judged = self._judged(want)
        free = len(self._free(want))
        others = [
            f"{label(gpu)}: {self._meant.get(why, why)}"
            for gpu, (standing, why) in judged
            if standing is not Standing.FREE
        ]
        some = f"only {free}" if free else "none"
        more = [f"and {len(others) - NAMED} more"] if len(others) > NAMED else []
        are = "are" if free > 1 else "is"
        text = "; ".join([f"{some} of {len(judged)} {are} free", *others[:NAMED], *more])
        coming = sum(self._comes_free(gpu, standing, want) for gpu, (standing, _) in judged)
        return text if coming >= want.count else OutOfReach(text)

    def _comes_free(self, gpu: Gpu, standing: Standing, want: Want) -> bool:
        """Whether a GPU is free, or will be once the jobs that use it have ended."""
        if not _is_large(gpu, want):
            return False
        if standing is Standing.USED:
            return gpu.uuid not in self._view.strangers
        return standing in {Standing.FREE, Standing.LEASED}

    def _free(self, want: Want) -> list[str]:
        judged = self._judged(want)
        return [gpu.uuid for gpu, (standing, _) in judged if standing is Standing.FREE]

    def _judged(self, want: Want) -> list[tuple[Gpu, Judgement]]:
        """The GPUs that a job may ever have, and what each is to this one, however many it wants.

        Remembered until another one is given: judging reads files, and many jobs ask alike.
        """
        alike = (want.memory_bytes, want.share)
        known = self._judgements.get(alike)
        if known is None:
            gpus = self._facts.inventory.gpus
            known = [(gpu, judge(gpu, want, self._facts)) for gpu in gpus if gpu.leasable]
            self._judgements[alike] = known
        return known


def wish(needs: Needs) -> Want:
    """What a job asks of the GPUs, as `supervisor.gpu` says it."""
    return Want(needs.gpus, needs.gpu_memory_bytes, share=needs.share_gpu)


def _is_large(gpu: Gpu, want: Want) -> bool:
    return not gpu.total_bytes or gpu.total_bytes >= (want.memory_bytes or 0)
