"""`supervise logs`: what the worker printed, byte for byte.

Owns the verb. The log is copied, never interpreted: whatever the worker wrote, in whatever
encoding, arrives. Lines of our own go to stderr when the log is followed, so that stdout is the
worker's alone.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import click

from supervisor.cli.copying import LINE_LIMIT, copy_from, tail_offset, unfinished
from supervisor.cli.following import Place, follow
from supervisor.cli.jobs import job_argument, json_option
from supervisor.cli.remote import Far, job_of_anyone
from supervisor.cli.remote_queue import Served
from supervisor.cli.runner_log import human_lines
from supervisor.cli.titles import title
from supervisor.journal import AttemptRecord
from supervisor.views.chosen import Chosen
from supervisor.views.plain import printable

RUNNER_OUT = "runner.out"  # what a runner of the daemon prints: nothing, unless it breaks
LAST_WORDS = 20  # lines of it


@dataclass(frozen=True, slots=True)
class Asked:
    """The options. `number` None means the last attempt, `lines` None all of its lines."""

    following: bool
    number: int | None
    every: bool
    lines: int | None
    runner: bool
    as_json: bool

    def contradiction(self) -> str | None:
        """Two options that exclude each other, in words."""
        pairs = (
            (self.following and self.as_json, "-f and --json"),
            (self.following and self.runner, "-f and --runner"),
            (self.number is not None and self.every, "--attempt and --all"),
            (self.number is not None and self.runner, "--attempt and --runner"),
            (self.every and self.runner, "--all and --runner"),
        )
        return next((f"{words} do not go together" for both, words in pairs if both), None)


@click.command("logs")
@job_argument
@click.option("-f", "--follow", "following", is_flag=True, help="Go on until the job ends.")
@click.option("--attempt", "number", type=click.IntRange(min=1), help="Of this attempt.")
@click.option("--all", "every", is_flag=True, help="Of every attempt, each under a title.")
@click.option("-n", "--lines", type=click.IntRange(min=0), help="The last so many lines alone.")
@click.option("--runner", is_flag=True, help="The runner's own log instead of the worker's.")
@json_option
@click.pass_obj
def command(state_dir: Path, /, job: str | None, **given: Any) -> None:  # noqa: ANN401 - the options
    """Print the output of the last attempt. With -f, follow it across attempts."""
    asked = Asked(**given)
    if wrong := asked.contradiction():
        raise click.UsageError(wrong)
    with job_of_anyone(state_dir, job) as chosen:
        if asked.runner:
            _print_runner_log(chosen, asked)
        elif asked.as_json:
            _print_json(chosen, asked)
        else:
            _print(chosen, asked, Served(state_dir, chosen.record.id))


def _attempts(chosen: Chosen, asked: Asked) -> list[AttemptRecord]:
    attempts = chosen.journal.attempts(chosen.record.id)
    if asked.number is None:
        return attempts if asked.every else attempts[-1:]
    found = [one for one in attempts if one.number == asked.number]
    if not found:
        had = f"it has had {len(attempts)}" if attempts else "none has begun yet"
        raise click.UsageError(f"{chosen.record.id} has no attempt {asked.number}: {had}")
    return found


def _print(chosen: Chosen, asked: Asked, served: Served) -> None:
    attempts = _attempts(chosen, asked)
    if not attempts and not asked.following:
        click.echo(f"{chosen.record.id}: no attempt has begun yet", err=True)
    if isinstance(chosen, Far):
        from supervisor.cli.remote_logs import show  # noqa: PLC0415 - of another user's job alone

        show(chosen, attempts, asked)
        return
    offset, path = 0, None
    for one in attempts:
        if asked.every:
            click.echo("\n" * (path is not None and unfinished(path)) + title(one))
            sys.stdout.flush()
        path = chosen.folder.attempt(one.number).log
        if not asked.every and not asked.following and not path.exists():
            click.echo(f"attempt {one.number} left no output", err=True)
        offset = copy_from(path, tail_offset(path, asked.lines), sys.stdout.buffer)
        sys.stdout.buffer.flush()
    if asked.following:
        last = attempts[-1].number if attempts else 0
        follow(chosen, served, Place(last, offset, only=asked.number is not None))


def _print_json(chosen: Chosen, asked: Asked) -> None:
    """A log may be larger than memory, so the document is written line by line."""
    attempts = _attempts(chosen, asked)
    if asked.every:
        click.echo("[")
    for index, one in enumerate(attempts):
        _one_json(chosen, one, asked)
        click.echo("," if asked.every and index + 1 < len(attempts) else "")
    if asked.every:
        click.echo("]")
    elif not attempts:
        click.echo(json.dumps({"attempt": None, "path": None, "lines": []}))


def _one_json(chosen: Chosen, one: AttemptRecord, asked: Asked) -> None:
    if isinstance(chosen, Far):
        from supervisor.cli.remote_logs import document  # noqa: PLC0415 - as above

        click.echo(document(chosen, one.number, asked.lines), nl=False)
        return
    path = chosen.folder.attempt(one.number).log
    head = json.dumps({"attempt": one.number, "path": str(path)})[:-1]
    click.echo(f'{head}, "lines": [', nl=False)
    for index, line in enumerate(_lines(path, asked.lines)):
        comma = ",\n " if index else "\n "
        click.echo(comma + json.dumps(line, ensure_ascii=False), nl=False)
    click.echo("]}", nl=False)


def _lines(path: Path, last: int | None) -> Iterator[str]:
    try:
        file: IO[bytes] = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(tail_offset(path, last))
        while line := file.readline(LINE_LIMIT):
            yield line.decode(errors="replace").rstrip("\r\n")


def _print_runner_log(chosen: Chosen, asked: Asked) -> None:
    """What the runner logged; where it died without a word, its end is in what it printed."""
    path, printed = chosen.folder.runner_log, chosen.folder.path / RUNNER_OUT
    if isinstance(chosen, Far):
        from supervisor.cli.remote_logs import texts  # noqa: PLC0415 - of another user's job alone

        lines = texts(chosen, None, asked.lines, "runner")
        last_words = texts(chosen, None, LAST_WORDS, "runner_out")
    else:
        lines = list(_lines(path, asked.lines))
        last_words = list(_lines(printed, LAST_WORDS))
    if asked.as_json:
        told = {"attempt": None, "path": str(path), "lines": lines, "printed": last_words}
        click.echo(json.dumps(told, indent=1))
        return
    if not lines and not last_words:
        click.echo(f"{chosen.record.id}: its runner has logged nothing", err=True)
    for line in lines:
        for text in human_lines(line):
            click.echo(text)
    if last_words:
        click.echo("==> and printed last, beside its log <==")
        for line in last_words:
            click.echo(printable(line))
