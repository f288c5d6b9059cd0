"""What `supervise top` shows, as plain values: one frame of jobs, host and GPUs.

Owns joining jobs, /proc and the GPUs' leases. Only reads, and knows nothing of a terminal.
Invariant: a process counts as a job's only if it is, or descends from, the very process that the
journal names, by pid and start; of a job that only the daemon knows, from its runner.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from supervisor.cli.top_gpus import GpuView
from supervisor.cli.top_jobs import NO_DAEMON, Running, Told, roll
from supervisor.gpu.leases import (
    LeaseFolderUnusable,
    LeaseRecord,
    Leases,
    SetAside,
    lease_folder,
)
from supervisor.gpu.model import Gpu, Reading
from supervisor.gpu.words import handle, process, short_uuid
from supervisor.host.activity import Sample, Sampler, between
from supervisor.host.pressure import Pressure, pressure
from supervisor.host.processes import Stat, snapshot
from supervisor.views.times import now

_KIB = 1024
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class GpuUse:
    """The GPUs of one job: how each is called, their mean utilization, the memory of its tree."""

    names: tuple[str, ...] = ()
    utilization: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class JobRow:
    """One running job. What is not known is None; `cpu_share` is 1.0 for one core.

    `silent_s` is how long the worker has printed nothing. Memory that processes share counts once
    for each of them.
    """

    id: str
    name: str
    user: str | None
    state: str
    attempt: int | None
    restarts: int | None
    step: int | None
    total: int | None
    silent_s: float | None
    processes: int
    cpu_share: float | None
    memory_bytes: int | None
    gpu: GpuUse


@dataclass(frozen=True, slots=True)
class GpuRow:
    """One GPU or MIG instance. `jobs` lease it; `note` says who else is on it, or why nobody is."""

    gpu: Gpu
    reading: Reading
    jobs: tuple[str, ...]
    note: str


@dataclass(frozen=True, slots=True)
class HostRow:
    """The whole host."""

    load: tuple[float, float, float]
    cores: int
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    pressure: Pressure


@dataclass(frozen=True, slots=True)
class Frame:
    """Everything at one moment. Jobs that are `lost` have no runner any more; others wait for one.

    `daemon_problem` is why jobs of others may be missing; `gpus_age_s` is how old what is said of
    the GPUs is, and `gpu_problem` why that is not new.
    """

    host: HostRow
    jobs: tuple[JobRow, ...]
    waiting: int
    lost: int
    gpus: tuple[GpuRow, ...]
    gpu_problem: str
    gpus_age_s: float
    daemon_problem: str = ""


@dataclass(frozen=True, slots=True)
class _Moment:
    """What all rows of a frame are made from."""

    everybody: Mapping[int, Stat]
    seen: GpuView
    leases: tuple[LeaseRecord, ...] = ()
    aside: tuple[SetAside, ...] = ()
    problem: str = ""


class Watcher:
    """Looks again and again; what a job used of the CPU is counted from one look to the next."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._before: dict[tuple[str, int], Sample] = {}

    def frame(self, seen: GpuView, told: Told = NO_DAEMON) -> Frame:
        """Everything as it is now; GPUs and others' jobs as they were last seen.

        Raises:
            JournalError: the journal cannot be used.
        """
        moment = _moment(seen)
        found = roll(self._state_dir, told)
        samples = [_sample(one.tree(moment.everybody)) for one in found.running]
        rows = [self._row(*one, moment) for one in zip(found.running, samples, strict=True)]
        self._before = {
            (one.id, one.runner): it for one, it in zip(found.running, samples, strict=True)
        }
        return Frame(
            host=_host(),
            jobs=tuple(rows),
            waiting=found.waiting,
            lost=found.lost,
            gpus=tuple(_gpu_row(one, moment) for one in seen.inventory.gpus),
            gpu_problem=moment.problem,
            gpus_age_s=max(0.0, time.monotonic() - seen.at_s),
            daemon_problem=told.problem,
        )

    def _row(self, job: Running, sample: Sample, moment: _Moment) -> JobRow:
        before = self._before.get((job.id, job.runner))
        same = before is not None and before.main == sample.main is not None
        tree = frozenset(sample.moments)
        return JobRow(
            id=job.id,
            name=job.name,
            user=job.user,
            state=job.state,
            attempt=job.attempt,
            restarts=job.restarts,
            step=job.step,
            total=job.total,
            silent_s=_silent_s(job.log),
            processes=len(tree),
            cpu_share=between(before, sample).cpu_share if before and same else None,
            memory_bytes=sum(map(_resident_bytes, tree)) if tree else None,
            gpu=_use(job, tree, moment),
        )


def _moment(seen: GpuView) -> _Moment:
    everybody = snapshot()
    leases = Leases(lease_folder())
    try:
        held, aside = tuple(leases.records()), tuple(leases.set_asides())
    except LeaseFolderUnusable as error:
        return _Moment(everybody, seen, problem="; ".join(filter(None, [seen.problem, str(error)])))
    return _Moment(everybody, seen, held, aside, seen.problem)


def _sample(tree: list[int]) -> Sample:
    return Sampler(lambda: tree).take()


def _silent_s(log: Path | None) -> float | None:
    """How long the running attempt has printed nothing."""
    with suppress(OSError):
        return None if log is None else max(0.0, now() - log.stat().st_mtime)
    return None


def _resident_bytes(pid: int) -> int:
    with suppress(OSError, IndexError):  # gone meanwhile
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
    return 0


def _use(job: Running, tree: frozenset[int], moment: _Moment) -> GpuUse:
    """What a job does with the GPUs that its runner leased."""
    ticks = {job.runner_ticks} - {None}
    own = [
        one
        for one in moment.leases
        if one.owner.pid == job.runner and ticks <= {one.owner.start_ticks}
    ]
    uuids = [uuid for one in own for uuid in one.uuids]
    found = {uuid: moment.seen.inventory.find(uuid) for uuid in uuids}
    names = tuple(handle(gpu) if gpu else short_uuid(uuid) for uuid, gpu in found.items())
    readings = [one for one in map(moment.seen.reading, uuids) if one is not None]
    rates = [one.utilization for one in readings if one.utilization is not None]
    listed = [one for seen in readings for one in seen.processes or () if one.pid in tree]
    known = [one.used_bytes for one in listed if one.used_bytes is not None]
    return GpuUse(
        names,
        utilization=sum(rates) / len(rates) if rates else None,
        memory_bytes=sum(known) if known else None,
    )


def _gpu_row(gpu: Gpu, moment: _Moment) -> GpuRow:
    reading = moment.seen.reading(gpu.uuid) or Reading(gpu.uuid)
    leases = [one for one in moment.leases if one.covers(gpu)]
    jobs = tuple(one.owner.job_id or "a lease that cannot be read" for one in leases)
    return GpuRow(gpu, reading, jobs, "; ".join(_notes(gpu, reading, jobs, moment)))


def _notes(gpu: Gpu, reading: Reading, jobs: tuple[str, ...], moment: _Moment) -> Iterator[str]:
    yield from (f"set aside: {one.reason}" for one in moment.aside if one.uuid == gpu.uuid)
    if not gpu.leasable and gpu.note:
        yield gpu.note
    if not jobs:
        yield from map(process, reading.processes or ())
    yield from reading.problems


def _host() -> HostRow:
    memory = _memory()
    total, available = memory.get("MemTotal"), memory.get("MemAvailable")
    used = None if total is None or available is None else total - available
    return HostRow(os.getloadavg(), os.cpu_count() or 1, used, total, pressure())


def _memory() -> dict[str, int]:
    """proc_meminfo(5), in bytes."""
    with suppress(OSError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        split = (line.split() for line in lines)
        return {one[0].rstrip(":"): int(one[1]) * _KIB for one in split if len(one) > 2}  # noqa: PLR2004 -- with a unit
    return {}
