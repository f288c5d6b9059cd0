"""What `supervise top` shows, as plain values: one frame of jobs, host and GPUs.

Owns joining the journal, /proc and the GPUs' leases. Only reads, and knows nothing of a terminal.
Invariant: a process counts as a job's only if it is, or descends from, the very process that the
journal names, by pid and start.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from supervisor.cli.jobs import opened
from supervisor.cli.top_gpus import GpuView
from supervisor.core.causes import Cause
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
from supervisor.host.processes import Stat, descendants, snapshot
from supervisor.journal import AttemptRecord, JobRecord
from supervisor.runner.alive import ATTENDED, runner_lives
from supervisor.runner.home import JobFolder
from supervisor.views.times import now

_KIB = 1024
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_NO_FAULT = frozenset({Cause.COMPLETED, Cause.STOPPED})


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
    state: str
    attempt: int | None
    restarts: int
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
    """Everything at one moment. Jobs that are `lost` have no runner any more.

    `gpus_age_s` is how old what is said of the GPUs is, and `gpu_problem` why that is not new.
    """

    host: HostRow
    jobs: tuple[JobRow, ...]
    lost: int
    gpus: tuple[GpuRow, ...]
    gpu_problem: str
    gpus_age_s: float


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
        self._before: dict[str, Sample] = {}

    def frame(self, seen: GpuView) -> Frame:
        """Everything as it is now; the GPUs as they were last seen.

        Raises:
            JournalError: the journal cannot be used.
        """
        moment = _moment(seen)
        rows, lost, samples = [], 0, {}
        with opened(self._state_dir) as journal:
            for record in [] if journal is None else journal.jobs():
                if journal is None or record.state not in ATTENDED:
                    continue
                if not runner_lives(record):
                    lost += 1
                    continue
                attempts = journal.attempts(record.id)
                tree = _tree(attempts, moment.everybody)
                samples[record.id] = _sample(tree)
                rows.append(self._row(record, attempts, samples[record.id], moment))
        self._before = samples
        return Frame(
            host=_host(),
            jobs=tuple(rows),
            lost=lost,
            gpus=tuple(_gpu_row(one, moment) for one in seen.inventory.gpus),
            gpu_problem=moment.problem,
            gpus_age_s=max(0.0, time.monotonic() - seen.at_s),
        )

    def _row(
        self, record: JobRecord, attempts: list[AttemptRecord], sample: Sample, moment: _Moment
    ) -> JobRow:
        before = self._before.get(record.id)
        same = before is not None and before.main == sample.main is not None
        tree = frozenset(sample.moments)
        return JobRow(
            id=record.id,
            name=record.name,
            state=record.state,
            attempt=attempts[-1].number if attempts else None,
            restarts=sum(one.cause not in _NO_FAULT for one in attempts[:-1]),
            step=record.step,
            total=record.total,
            silent_s=_silent_s(self._state_dir, attempts),
            processes=len(tree),
            cpu_share=between(before, sample).cpu_share if before and same else None,
            memory_bytes=sum(map(_resident_bytes, tree)) if tree else None,
            gpu=_use(record, tree, moment),
        )


def _moment(seen: GpuView) -> _Moment:
    everybody = snapshot()
    leases = Leases(lease_folder())
    try:
        held, aside = tuple(leases.records()), tuple(leases.set_asides())
    except LeaseFolderUnusable as error:
        return _Moment(everybody, seen, problem="; ".join(filter(None, [seen.problem, str(error)])))
    return _Moment(everybody, seen, held, aside, seen.problem)


def _tree(attempts: list[AttemptRecord], everybody: Mapping[int, Stat]) -> list[int]:
    """The running attempt's worker and its descendants, the worker first; none when it is gone."""
    last = attempts[-1] if attempts else None
    if last is None or last.pid is None or last.ended_s is not None:
        return []
    main = everybody.get(last.pid)
    if main is None or main.ended or main.start_ticks != last.start_ticks:
        return []
    return [last.pid, *sorted(descendants(everybody, [last.pid]))]


def _sample(tree: list[int]) -> Sample:
    return Sampler(lambda: tree).take()


def _silent_s(state_dir: Path, attempts: list[AttemptRecord]) -> float | None:
    """How long the running attempt has printed nothing."""
    if not attempts or attempts[-1].ended_s is not None:
        return None
    last = attempts[-1]
    with suppress(OSError):
        log = JobFolder.of(state_dir, last.job_id).attempt(last.number).log
        return max(0.0, now() - log.stat().st_mtime)
    return None


def _resident_bytes(pid: int) -> int:
    with suppress(OSError, IndexError):  # gone meanwhile
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
    return 0


def _use(record: JobRecord, tree: frozenset[int], moment: _Moment) -> GpuUse:
    """What a job does with the GPUs that its runner leased."""
    runner = (record.runner_pid, record.runner_ticks)
    own = [one for one in moment.leases if (one.owner.pid, one.owner.start_ticks) == runner]
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
