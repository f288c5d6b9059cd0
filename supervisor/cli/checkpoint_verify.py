"""`supervise checkpoint verify`: reads checkpoints now and says what they are worth.

Owns the verb. It looks and tells: nothing is remembered, moved or set aside.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from supervisor.checkpoint import Found, Kind, Layout, Outcome, Verdict, find, fingerprint, verify
from supervisor.cli.checkpoint_list import verdict_fields, verdict_word
from supervisor.cli.fields import print_json
from supervisor.cli.jobs import NoSuchJob, chosen_job, json_option
from supervisor.cli.on_disk import layout_of, no_layout
from supervisor.cli.text import width
from supervisor.core.amounts import size
from supervisor.runner.alive import runner_lives
from supervisor.runner.exits import Exit
from supervisor.views.chosen import Chosen
from supervisor.views.plain import printable, short

BYTES_PER_MB = 1e6
MEASURABLE_S = 0.001  # a shorter look says nothing of the speed
BLAMED = frozenset({Outcome.BAD, Outcome.UNREADABLE})
_WIDTHS = (8, 10, 12, 9, 9)  # step, verdict, kind, size, speed


@click.command("verify")
@click.argument("words", nargs=-1, metavar="[JOB] [PATH]...")
@click.option("--step", type=click.IntRange(min=0), help="The checkpoint of this step alone.")
@json_option
@click.pass_context
def verify_command(
    ctx: click.Context, words: tuple[str, ...], step: int | None, *, as_json: bool
) -> None:
    """Verify a job's checkpoints now: all of them, that of one step, or those named by PATH.

    Exit codes: 0 all good, 1 one is bad or cannot be read, 2 there is no such checkpoint.
    """
    state_dir: Path = ctx.obj
    job, paths = _split(state_dir, words)
    if paths and step is not None:
        raise click.UsageError("--step and a path do not go together")
    with chosen_job(state_dir, job) as chosen:
        layout = layout_of(chosen)
        if layout is None:
            raise click.UsageError(no_layout(chosen))
        candidates = _by_path(layout, paths) if paths else _by_step(layout, step)
        told, blamed = _verify(chosen, layout, candidates, tell=not as_json)
        if as_json:
            print_json({"id": chosen.record.id, "ok": not blamed, "checkpoints": told})
    ctx.exit(Exit.FAILED if blamed else Exit.DONE)


def _split(state_dir: Path, words: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """The job and the paths; a first word that is a path and no job leaves the job unsaid."""
    if not words:
        return None, ()
    try:
        with chosen_job(state_dir, words[0]):
            return words[0], words[1:]
    except NoSuchJob:
        if not os.path.lexists(words[0]):
            raise
        return None, words


def _by_step(layout: Layout, step: int | None) -> list[Found]:
    found = [one for one in find(layout).found if step in {None, one.step}]
    if not found:
        what = "no checkpoint" if step is None else f"no checkpoint of step {step}"
        raise click.UsageError(f"{what} in {layout.root} (named like {layout.glob})")
    return found


def _by_path(layout: Layout, paths: Iterable[str]) -> list[Found]:
    """The candidates at these paths; a file that the job would not find is looked at all the same.

    It has no step of its own, which verification does not ask for.
    """
    known = {one.path.resolve(): one for one in find(layout).found}
    found = []
    for text in paths:
        path = Path(text).absolute()
        try:
            stray = Found(path, -1, fingerprint(path), path.parent)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else None
            raise click.UsageError(f"{text} cannot be verified: {why or error}") from error
        found.append(known.get(path.resolve(), stray))
    return found


def _verify(
    chosen: Chosen, layout: Layout, candidates: list[Found], *, tell: bool
) -> tuple[list[dict[str, Any]], int]:
    """What was found, as JSON, and how many are to blame; told as it goes, for it may take long."""
    told, blamed = [], 0
    lives, kind = runner_lives(chosen.record), _kind_so_far(chosen)
    if tell:
        titles = ("STEP", "VERDICT", "KIND", "SIZE", "SPEED")
        click.echo(click.style(_line(titles, "PATH"), dim=True))
    for one in candidates:
        expect = kind if one.step >= 0 else None
        verdict = verify(one, layout, expect=expect, worker_lives=lives)
        blamed += verdict.outcome in BLAMED
        told.append(_fields(one, verdict))
        if tell:
            click.echo(_line(_cells(one, verdict), short(one.path, chosen.record.folder)))
            if not verdict.ok:
                click.echo(f"{'':{_WIDTHS[0]}}  {printable(verdict.reason)}")
    return told, blamed


def _kind_so_far(chosen: Chosen) -> Kind | None:
    """The kind of the job's last verified checkpoint: its runner refuses any other, so do we."""
    kinds = [one.kind for one in chosen.journal.checkpoints(chosen.record.id) if one.verified]
    return Kind(kinds[-1]) if kinds else None


def _cells(one: Found, verdict: Verdict) -> tuple[str, ...]:
    speed = _speed(verdict)
    return (
        "-" if one.step < 0 else str(one.step),
        verdict_word(verdict),
        "-" if verdict.kind is None else str(verdict.kind),
        size(verdict.size_bytes),
        "-" if speed is None else f"{speed:.0f} MB/s",
    )


def _line(cells: tuple[str, ...], path: str) -> str:
    step, verdict, kind, bytes_, speed = (
        " " * max(0, room - width(cell)) for cell, room in zip(cells, _WIDTHS, strict=True)
    )
    placed = (
        step + cells[0],
        cells[1] + verdict,
        cells[2] + kind,
        bytes_ + cells[3],
        speed + cells[4],
    )
    return "  ".join((*placed, path))


def _speed(verdict: Verdict) -> float | None:
    """Megabytes a second; None where it was too quick to tell, or not read to its end."""
    if verdict.duration_s < MEASURABLE_S or not verdict.ok:
        return None
    return verdict.size_bytes / verdict.duration_s / BYTES_PER_MB


def _fields(one: Found, verdict: Verdict) -> dict[str, Any]:
    return {
        "path": str(one.path),
        "step": None if one.step < 0 else one.step,
        "size_bytes": verdict.size_bytes,
        "duration_s": verdict.duration_s,
        "mb_per_s": _speed(verdict),
    } | verdict_fields(verdict)
