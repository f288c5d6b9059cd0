"""`supervise gpus`: what GPUs there are, what they do, who holds them, which are set aside.

Owns the verb. Looking changes nothing and keeps no runner waiting; `--release` alone writes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import click

from supervisor.cli.fields import print_json
from supervisor.cli.jobs import json_option
from supervisor.cli.releasing import release
from supervisor.cli.text import Column, Cut, paragraph, table
from supervisor.gpu.aside import SetAside
from supervisor.gpu.free import Facts, Judgement, Standing, Want, judge
from supervisor.gpu.lease_files import LeaseRecord
from supervisor.gpu.leases import LeaseFolderUnusable, Leases, lease_folder
from supervisor.gpu.model import Gpu, GpuProcess, Inventory, Reading
from supervisor.gpu.probe import look
from supervisor.gpu.words import GIB, gib, label, process_name, short_uuid
from supervisor.views.fields import Fields
from supervisor.views.gpus import gpu_fields
from supervisor.views.plain import printable

_HEADS = (
    Column("GPU"),
    Column("NAME"),
    Column("UUID"),
    Column("MEMORY", right=True),
    Column("UTIL", right=True),
    Column("POWER", right=True),
    Column("TEMP", right=True),
    Column("STATE"),
    Column("HELD BY", cut=Cut.TAIL),
)
_COLOURS = {
    Standing.FREE: "green",
    Standing.LEASED: "cyan",
    Standing.USED: "yellow",
    Standing.SET_ASIDE: "red",
    Standing.UNKNOWN: "magenta",
}
_ANY = Want(1, None, share=False)


@dataclass(frozen=True, slots=True)
class Seen:
    """One GPU, with all that is known of it."""

    gpu: Gpu
    reading: Reading
    judgement: Judgement
    leases: tuple[LeaseRecord, ...]
    asides: tuple[SetAside, ...]

    @property
    def strangers(self) -> tuple[GpuProcess, ...]:
        """Processes to name: none where a lease explains them."""
        return () if self.leases else self.reading.processes or ()

    @property
    def unsaid(self) -> bool:
        """Whether the row alone does not tell why the GPU is not free."""
        standing = self.judgement[0]
        if standing is Standing.LEASED:
            return not all(one.owner.lives for one in self.leases)
        if standing is Standing.USED:
            return not any(one.kind == "compute" for one in self.strangers)
        return standing is not Standing.FREE


@click.command("gpus")
@click.option(
    "--release",
    "released",
    metavar="GPU",
    help="Let a GPU that was set aside be used again: its index, its UUID or the beginning of it, "
    "or `all`.",
)
@json_option
def command(released: str | None, *, as_json: bool) -> None:
    """List the GPUs of this host: what they do, and who holds them."""
    leases = Leases(lease_folder())
    if released is not None:
        release(leases, released, as_json=as_json)
        return
    inventory, readings = look()
    trouble, facts = _facts(leases, inventory, readings)
    seen = [_seen(gpu, facts, trouble) for gpu in inventory.gpus]
    if as_json:
        print_json(_fields(leases, inventory, seen, trouble))
        return
    if seen:
        click.echo(table(_HEADS, [_row(one) for one in seen]))
    for note in _notes(inventory, seen):
        click.echo(f"\n{note}" if seen else note)


def _facts(
    leases: Leases, inventory: Inventory, readings: tuple[Reading, ...]
) -> tuple[str, Facts]:
    """Everything there is to judge by, and why the leases could not be read, if so."""
    trouble, records, asides = "", [], []
    try:
        records, asides = leases.records(), leases.set_asides()
    except LeaseFolderUnusable as error:
        trouble = str(error)
    by_uuid = {one.uuid: one for one in readings}
    return trouble, Facts(inventory, by_uuid, tuple(records), tuple(asides))


def _seen(gpu: Gpu, facts: Facts, trouble: str) -> Seen:
    judgement = judge(gpu, _ANY, facts)
    if trouble and judgement[0] is Standing.FREE:
        judgement = Standing.UNKNOWN, trouble
    reading = facts.readings.get(gpu.uuid, Reading(gpu.uuid))
    asides = tuple(one for one in facts.asides if one.uuid in {gpu.uuid, gpu.parent})
    return Seen(gpu, reading, judgement, tuple(facts.leases_on(gpu)), asides)


def _row(one: Seen) -> tuple[str, ...]:
    gpu, now, standing = one.gpu, one.reading, one.judgement[0]
    state = standing.replace("_", " ")
    power = _figure(now.power_w, "", of=now.power_limit_w)
    return (
        str(gpu.index) if gpu.parent is None else "",
        printable(gpu.name) if gpu.parent is None else f"└ {printable(gpu.name)}",
        short_uuid(gpu.uuid),
        _memory(gpu, now),
        _figure(now.utilization, " %"),
        "-" if power == "-" else f"{power} W",
        _figure(now.temperature_c, " °C"),
        click.style(state, fg=_COLOURS[standing]) if standing in _COLOURS else state,
        _held_by(one),
    )


def _figure(value: float | None, unit: str, of: float | None = None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}{unit}" if of is None else f"{value:.0f}/{of:.0f}{unit}"


def _memory(gpu: Gpu, now: Reading) -> str:
    if not gpu.total_bytes:
        return "-" if now.used_bytes is None else gib(now.used_bytes)
    used = "?" if now.used_bytes is None else f"{now.used_bytes / GIB:.1f}"
    return f"{used}/{gib(gpu.total_bytes)}"


def _held_by(one: Seen) -> str:
    jobs = [
        f"{lease.owner.job_id or lease.file} (runner {lease.owner.pid or 'unknown'})"
        for lease in one.leases
    ]
    return ", ".join(jobs + [_process(each) for each in one.strangers]) or "-"


def _process(one: GpuProcess) -> str:
    words = [str(one.pid), process_name(one.pid)]
    words.append("" if one.used_bytes is None else gib(one.used_bytes))
    words.append("(display)" if one.kind == "graphics" else "")
    return " ".join(filter(None, words))


def _notes(inventory: Inventory, seen: list[Seen]) -> Iterator[str]:
    """What a row has no room for."""
    for one in seen:
        note = one.judgement[1] if one.unsaid else one.gpu.note
        if note:
            yield paragraph(printable(f"{label(one.gpu)}: {note}"))
    if inventory.problem:
        yield printable(inventory.problem)
    elif not seen:
        yield "this host has no NVIDIA GPU"


def _fields(leases: Leases, inventory: Inventory, seen: list[Seen], trouble: str) -> Fields:
    return {
        "driver": inventory.driver or None,
        "problem": "; ".join(filter(None, [inventory.problem, trouble])) or None,
        "lease_folder": str(leases.folder),
        "gpus": [
            gpu_fields(one.gpu, one.reading, one.judgement, one.leases, one.asides) for one in seen
        ],
    }
