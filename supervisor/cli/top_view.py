"""How a frame of `supervise top` looks: lines of text, and JSON.

Owns the choice of columns. Draws nothing itself. Invariant: no line is wider than the room that it
is given; what matters least goes first.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import compress

import click

from supervisor.cli.text import GAP, Column, Cut, fitted, table, width, word
from supervisor.cli.top_frame import Frame, GpuRow, HostRow, JobRow
from supervisor.core.amounts import seconds, size
from supervisor.gpu.words import GIB, handle, short_uuid
from supervisor.views.fields import Fields
from supervisor.views.plain import counted, printable
from supervisor.views.times import iso, now

GPUS_ARE_OLD_S = 5.0
BETWEEN = f"{GAP}·{GAP}"
LEAST_ROOM = 16  # for the job's name, which is cut before any column but the least is left out


@dataclass(frozen=True, slots=True)
class Part:
    """A column, and when it goes: the highest first, 0 never."""

    head: Column
    goes: int = 0


_JOB = (
    Part(Column("JOB", cut=Cut.TAIL)),
    Part(Column("USER", cut=Cut.TAIL), 2),
    Part(Column("STATE")),
    Part(Column("#", right=True), 6),
    Part(Column("STEP", right=True)),
    Part(Column("SILENT", right=True), 3),
    Part(Column("CPU", right=True), 4),
    Part(Column("MEMORY", right=True), 5),
    Part(Column("GPU"), 1),
    Part(Column("UTIL", right=True), 8),
    Part(Column("GPU MEM", right=True), 7),
    Part(Column("RESTARTS", right=True), 9),
)
_GPU_COLUMNS = frozenset({"GPU", "UTIL", "GPU MEM"})
_GPU = (
    Part(Column("GPU")),
    Part(Column("NAME"), 5),
    Part(Column("UTIL", right=True)),
    Part(Column("MEMORY", right=True)),
    Part(Column("POWER", right=True), 4),
    Part(Column("TEMP", right=True), 6),
    Part(Column("HELD BY", cut=Cut.TAIL)),
)


def lines(frame: Frame, room: int | None, none: str) -> list[str]:
    """The frame as text with colours, in so many cells; `none` is said where no job runs."""
    told = [*_host(frame.host, room), ""]
    if frame.jobs:
        told += _jobs(frame.jobs, room)
    else:
        told.append(none)
    if frame.waiting:
        told.append(f"{counted(frame.waiting, 'job')} waiting for a turn: supervise ps")
    if frame.lost:
        told.append(_lost(frame.lost))
    if frame.daemon_problem:
        said = f"other users' jobs are not known: {printable(frame.daemon_problem)}"
        told.append(click.style(said, fg="yellow"))
    if frame.gpus:
        told += ["", *_table(_GPU, [_gpu(one) for one in frame.gpus], room)]
    trouble = _trouble(frame)
    if trouble:
        told.append(click.style(f"GPUs: {trouble}", fg="yellow"))
    return told if room is None else [fitted(one) for one in told]


def _trouble(frame: Frame) -> str:
    """What there is to say where GPUs are, or jobs that hold some."""
    if not frame.gpus:
        return printable(frame.gpu_problem) if any(one.gpu.names for one in frame.jobs) else ""
    said = [printable(frame.gpu_problem)] if frame.gpu_problem else []
    if frame.gpus_age_s > GPUS_ARE_OLD_S:
        said = [
            *(said or ["the driver does not answer"]),
            f"figures of {seconds(frame.gpus_age_s)} ago",
        ]
    return "; ".join(said)


def _lost(count: int) -> str:
    noun = "job has" if count == 1 else "jobs have"
    return click.style(f"{count} more {noun} lost the runner: supervise ps", fg="red")


def _host(host: HostRow, room: int | None) -> list[str]:
    load = " ".join(f"{one:.2f}" for one in host.load)
    parts = [f"load {load} on {host.cores} cores"]
    if host.memory_used_bytes is not None and host.memory_total_bytes is not None:
        parts.append(f"memory {size(host.memory_used_bytes)} of {size(host.memory_total_bytes)}")
    seen = host.pressure
    named = (("cpu", seen.cpu_some), ("memory", seen.memory_some), ("disk", seen.io_some))
    waits = [f"{name} {share:.0f} %" for name, share in named if share is not None]
    if waits:
        parts.append(f"waiting for {', '.join(waits)}")
    return _filled(parts, room)


def _filled(parts: Sequence[str], room: int | None) -> list[str]:
    """As many parts on a line as fit."""
    told = [parts[0]]
    for part in parts[1:]:
        longer = told[-1] + BETWEEN + part
        if room is None or width(longer) <= room:
            told[-1] = longer
        else:
            told.append(part)
    return told


def _jobs(rows: Sequence[JobRow], room: int | None) -> list[str]:
    on_gpus = any(one.gpu.names for one in rows)
    hidden = set() if on_gpus else set(_GPU_COLUMNS)
    hidden |= {"USER"} if len({one.user for one in rows}) == 1 else set()
    kept = [part.head.title not in hidden for part in _JOB]
    parts = tuple(compress(_JOB, kept))
    return _table(parts, [tuple(compress(_job(one), kept)) for one in rows], room)


def _table(parts: Sequence[Part], rows: Sequence[tuple[str, ...]], room: int | None) -> list[str]:
    """The rows below their titles; columns that find no room are left out."""
    kept = list(range(len(parts)))
    while room is not None and _needed(parts, rows, kept) > room:
        least = max(kept, key=lambda index: parts[index].goes)
        if not parts[least].goes:
            break
        kept.remove(least)
    heads = [parts[index].head for index in kept]
    return table(heads, [[row[index] for index in kept] for row in rows]).splitlines()


def _needed(parts: Sequence[Part], rows: Sequence[tuple[str, ...]], kept: Sequence[int]) -> int:
    needed = len(GAP) * (len(kept) - 1)
    for index in kept:
        cells = (parts[index].head.title, *(row[index] for row in rows))
        widest = max(map(width, cells))
        is_cut = parts[index].head.cut is not Cut.NEVER
        needed += min(widest, LEAST_ROOM) if is_cut else widest
    return needed


def _job(one: JobRow) -> tuple[str, ...]:
    return (
        printable(one.id),
        printable(one.user or "-"),
        word(one.state),
        _or_dash(one.attempt),
        _step(one),
        "-" if one.silent_s is None else _short(one.silent_s),
        _percent(None if one.cpu_share is None else one.cpu_share * 100),
        _bytes(one.memory_bytes),
        ",".join(one.gpu.names) or "-",
        _percent(one.gpu.utilization),
        _bytes(one.gpu.memory_bytes),
        _or_dash(one.restarts),
    )


def _gpu(one: GpuRow) -> tuple[str, ...]:
    gpu, reading = one.gpu, one.reading
    index = handle(gpu) if gpu.parent is None else f"{gpu.index} {short_uuid(gpu.uuid)}"
    used = "-" if reading.used_bytes is None else f"{reading.used_bytes / GIB:.1f}"
    total = f"{gpu.total_bytes / GIB:.0f}" if gpu.total_bytes else "-"
    limit = "" if reading.power_limit_w is None else f"/{reading.power_limit_w:.0f}"
    temperature = reading.temperature_c
    return (
        index,
        printable(gpu.name),
        _percent(reading.utilization),
        f"{used}/{total} GiB",
        "-" if reading.power_w is None else f"{reading.power_w:.0f}{limit} W",
        "-" if temperature is None else f"{temperature:.0f} °C",
        printable(", ".join(one.jobs) + ("; " if one.jobs and one.note else "") + one.note) or "-",
    )


def _step(one: JobRow) -> str:
    if one.step is None:
        return "-"
    return f"{one.step}/{one.total}" if one.total else str(one.step)


def _short(duration_s: float) -> str:
    """A duration in whole units: what counts is which."""
    return f"{duration_s:.0f} s" if duration_s < 100 else seconds(duration_s)  # noqa: PLR2004 -- two digits


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0f} %"


def _bytes(count: int | None) -> str:
    return "-" if count is None else size(count)


def _or_dash(number: int | None) -> str:
    return "-" if number is None else str(number)


def fields(frame: Frame) -> Fields:
    """The frame as JSON; docs/json.md."""
    return {
        "at": iso(now()),
        "host": asdict(frame.host) | {"load": list(frame.host.load)},
        "jobs": [_job_fields(one) for one in frame.jobs],
        "waiting_jobs": frame.waiting,
        "lost_jobs": frame.lost,
        "gpus": [_gpu_fields(one) for one in frame.gpus],
        "gpu_problem": frame.gpu_problem or None,
        "daemon_problem": frame.daemon_problem or None,
    }


def _job_fields(one: JobRow) -> Fields:
    found = asdict(one)
    gpu = found.pop("gpu")
    return found | {
        "gpus": list(gpu["names"]),
        "gpu_utilization": gpu["utilization"],
        "gpu_memory_bytes": gpu["memory_bytes"],
    }


def _gpu_fields(one: GpuRow) -> Fields:
    gpu, reading = one.gpu, one.reading
    return {
        "index": gpu.index,
        "uuid": gpu.uuid,
        "name": gpu.name,
        "parent": gpu.parent,
        "total_bytes": gpu.total_bytes or None,
        "used_bytes": reading.used_bytes,
        "utilization": reading.utilization,
        "memory_utilization": reading.memory_utilization,
        "power_w": reading.power_w,
        "power_limit_w": reading.power_limit_w,
        "temperature_c": reading.temperature_c,
        "jobs": list(one.jobs),
        "note": one.note or None,
    }
