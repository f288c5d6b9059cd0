"""`supervise doctor`: what works on this host, and what it would take.

Owns the verb and its page; the checks are in `diagnosis`. Changes nothing. Invariant: each check
gives a finding within its time, whatever state the host is in, and none keeps another from being
made.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import wrap

import click

from supervisor.cli.diagnosis import disk, evidence, gpus, host, memory, processes
from supervisor.cli.diagnosis.facts import CHECK_S, Check, Facts
from supervisor.cli.diagnosis.finding import Bounded, Finding, Status, unknown
from supervisor.cli.fields import print_json
from supervisor.cli.jobs import json_option
from supervisor.cli.text import GAP, INDENT, NARROWEST, READABLE, columns, width
from supervisor.runner.exits import Exit
from supervisor.views.plain import printable

GROUPS: dict[str, tuple[Check, ...]] = {
    # First of all: whether control groups can be used is asked before any child is started.
    "Processes": processes.CHECKS,
    "Memory": memory.CHECKS,
    "GPUs": gpus.CHECKS,
    "Evidence": evidence.CHECKS,
    "Disk": disk.CHECKS,
    "Host": host.CHECKS,
}
COLOURS = {
    Status.OK: "green",
    Status.WEAK: "yellow",
    Status.MISSING: "red",
    Status.UNKNOWN: "magenta",
}
MARK_WIDTH = max(map(len, Status))
NAME_WIDTH = max(len(one.name) for checks in GROUPS.values() for one in checks)
LEFT = len(INDENT) + MARK_WIDTH + NAME_WIDTH + 2 * len(GAP)


@dataclass(frozen=True, slots=True)
class Examined:
    """A check, and what it found."""

    group: str
    check: Check
    finding: Finding

    @property
    def fatal(self) -> bool:
        """Whether no job can run for this."""
        return self.check.vital and self.finding.status is Status.MISSING


@click.command("doctor")
@json_option
@click.pass_context
def command(ctx: click.Context, *, as_json: bool) -> None:
    """Tell what works on this host, what does not, and what it would take.

    Exit code 1: something is missing without which no job can run.
    """
    state_dir: Path = ctx.obj
    results = examine(Facts(state_dir))
    if as_json:
        seen = list(results)
        print_json([_fields(one) for one in seen])
    else:
        seen = []
        for one in results:
            if not seen or seen[-1].group != one.group:
                click.echo(("\n" if seen else "") + click.style(one.group, bold=True))
            click.echo("\n".join(_lines(one)))
            seen.append(one)
        click.echo("\n" + _summary(seen))
    if any(one.fatal for one in seen):
        ctx.exit(Exit.FAILED)


def examine(facts: Facts) -> Iterator[Examined]:
    """Make every check that concerns this host, in order; each within a time of its own."""
    for group, checks in GROUPS.items():
        for check in checks:
            finding = examined(check, facts)
            if finding is not None:
                yield Examined(group, check, finding)


def examined(check: Check, facts: Facts, limit_s: float = CHECK_S) -> Finding | None:
    """What a check finds, or how it failed."""
    try:
        return Bounded(f"the check `{check.name}`", lambda: check.look(facts), limit_s).result()
    except Exception as error:  # noqa: BLE001 - a fault of a check is a finding, and no more
        return unknown(error)


def _fields(one: Examined) -> dict[str, object]:
    words = {name: text or None for name, text in asdict(one.finding).items()}
    return {"check": one.check.name, "group": one.group, "vital": one.check.vital} | words


def _lines(one: Examined) -> Iterator[str]:
    """The finding, its text aligned behind mark and name."""
    finding = one.finding
    mark = click.style(finding.status.ljust(MARK_WIDTH), fg=COLOURS[finding.status])
    room = columns()
    whole = None if room is None else max(min(room, READABLE) - LEFT, NARROWEST)
    first = f"{INDENT}{mark}{GAP}{one.check.name.ljust(NAME_WIDTH)}{GAP}"
    for text in _wrapped(finding.found, whole):
        yield first + text
        first = " " * LEFT
    for text in _wrapped(finding.means, whole):
        yield first + click.style(text, dim=True)
    for number, text in enumerate(_wrapped(finding.do, None if whole is None else whole - 2)):
        yield first + ("  " if number else "→ ") + text


def _wrapped(text: str, room: int | None) -> list[str]:
    plain = printable(text)
    if room is None or width(plain) <= room:
        return [plain] if plain else []
    return wrap(plain, room, break_long_words=False, break_on_hyphens=False)


def _summary(seen: list[Examined]) -> str:
    counted = Counter(one.finding.status for one in seen)
    words = ", ".join(f"{counted[status]} {status}" for status in Status if counted[status])
    fatal = [one.check.name for one in seen if one.fatal]
    if fatal:
        return f"{words}. No job can run here, for want of: {', '.join(fatal)}."
    return f"{words}. Jobs can run here."
