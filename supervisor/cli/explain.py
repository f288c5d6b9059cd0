"""`supervise explain`: why each attempt ended, what was decided, what to do now.

Owns the telling. Every word comes from the journal and the attempts' folders; nothing is concluded
here that the runner did not conclude.
"""

from collections.abc import Iterator
from pathlib import Path

import click

from supervisor.cli.explain_items import items_told, story_of
from supervisor.cli.fields import print_json
from supervisor.cli.jobs import job_argument, json_option
from supervisor.cli.remote import Far, job_of_anyone
from supervisor.cli.show import headline
from supervisor.cli.text import labelled, paragraph, word
from supervisor.core.causes import Action
from supervisor.journal import AttemptRecord
from supervisor.runner.words import at_step
from supervisor.views.batch import items_done
from supervisor.views.chosen import Chosen
from supervisor.views.documents import explanation
from supervisor.views.fields import attempts_of
from supervisor.views.frozen import said
from supervisor.views.next_step import next_step, note
from supervisor.views.plain import counted, printable, short
from supervisor.views.proof import Start, proof_of, starts_of
from supervisor.views.times import clock, lasting

_DECIDED = {
    Action.RESUME: "resume from the newest checkpoint that verifies",
    Action.RESUME_FROM_OLDER: "resume from an older checkpoint",
    Action.RETRY_OTHER_GPU: "try again on another GPU",
    Action.SHRINK_CHUNK: "try again with a smaller chunk",
    Action.QUARANTINE_ITEM: "set the item aside and go on",
    Action.HOLD: "hold",
    Action.GIVE_UP: "give up",
    Action.FINISH: "finish",
}


@click.command("explain")
@job_argument
@click.option("--attempt", "number", type=click.IntRange(min=1), help="This attempt alone.")
@click.option("--item", metavar="NAME|NUMBER", help="One item of a batch job alone.")
@json_option
@click.pass_obj
def command(
    state_dir: Path, job: str | None, number: int | None, item: str | None, *, as_json: bool
) -> None:
    """Tell of each attempt: what it started from, how it ended, the evidence, the decision.

    The last paragraph says what the job waits for and which command to type.
    """
    with job_of_anyone(state_dir, job) as chosen:
        if isinstance(chosen, Far):
            chosen.require_explanation()
        if item is not None:
            _refuse_far(chosen)
            story = story_of(chosen, item)
            if as_json:
                print_json(story.fields())
            else:
                click.echo("\n".join(story.lines()))
            return
        attempts = attempts_of(chosen.journal, chosen.record)
        if number is not None:
            attempts = [one for one in attempts if one.number == number] or _none(chosen, number)
        if as_json and isinstance(chosen, Far):
            print_json(chosen.explanation([one.number for one in attempts]))
        elif as_json:
            print_json(explanation(chosen, attempts))
        else:
            click.echo("\n".join(_story(chosen, attempts)))


def _refuse_far(chosen: Chosen) -> None:
    if isinstance(chosen, Far):
        what = "items are in its owner's journal, which the daemon does not show"
        raise click.UsageError(f"{chosen.record.id} is a job of {chosen.user}: {what}")


def _none(chosen: Chosen, number: int) -> list[AttemptRecord]:
    had = len(chosen.journal.attempts(chosen.record.id))
    there = f"it has had {had}" if had else "none has begun yet"
    raise click.UsageError(f"{chosen.record.id} has no attempt {number}: {there}")


def _story(chosen: Chosen, attempts: list[AttemptRecord]) -> Iterator[str]:
    yield headline(chosen)
    folder = chosen.record.folder
    starts = chosen.starts() if isinstance(chosen, Far) else starts_of(chosen)
    is_batch = said(chosen.record).is_batch
    for one in attempts:
        yield ""
        yield _title(one)
        if is_batch:
            yield from items_told(chosen, one.number)
        else:
            yield from _start(one, starts.get(one.number, Start()), folder)
        yield from _end(chosen, one)
    yield ""
    yield click.style("Now", bold=True)
    yield from _rejected(starts.get(None, Start()))
    step = chosen.next_step if isinstance(chosen, Far) else next_step(chosen)
    yield paragraph(step.words)
    if step.command:
        yield f"\n    {step.command}"


def _title(one: AttemptRecord) -> str:
    name = click.style(f"Attempt {one.number}", bold=True)
    if one.spawned_s is None:
        return f"{name}  {clock(one.chosen_s)}, no worker came to be"
    if one.ended_s is None:
        return f"{name}  since {clock(one.spawned_s)}{_reached(one)}"
    return f"{name}  {clock(one.spawned_s)}, ran {lasting(one.ran_s)}{_reached(one)}"


def _reached(one: AttemptRecord) -> str:
    done = items_done(one)
    if done:
        return f", finished {counted(done)}"
    if one.step is None:
        return ", no step seen"
    if one.step == one.resumed_step:
        return f", no further than step {one.step}"
    return f", reached step {one.step}"


def _start(one: AttemptRecord, start: Start, folder: str) -> Iterator[str]:
    yield from _rejected(start)
    if one.resumed_path is None:
        yield labelled("from", "the beginning")
        return
    copy = "; put back from the copy that supervise kept" if start.restored else ""
    path = short(one.resumed_path, folder)
    yield labelled("from", f"{at_step(one.resumed_step)} ({path}{copy})")


def _rejected(start: Start) -> Iterator[str]:
    for bad in start.rejected:
        yield labelled("bad", printable(bad))


def _end(chosen: Chosen, one: AttemptRecord) -> Iterator[str]:
    proof = chosen.proof(one) if isinstance(chosen, Far) else proof_of(chosen, one)
    if one.cause is None:
        gone = chosen.note if isinstance(chosen, Far) else note(chosen)
        yield labelled("cause", f"not known yet: {gone}" if gone else "none: it is running")
    else:
        yield labelled("cause", f"{_cause(one.cause)}: {proof.reason}")
    if proof.lines:
        yield labelled("evidence", proof.lines[0], proof.lines[1:])
    if proof.stack is not None:
        yield labelled("stacks", proof.stack, [f"  {line}" for line in proof.stack_lines])
    if proof.hang:
        yield labelled("also", printable(proof.hang[0]), [*map(printable, proof.hang[1:])])
    yield labelled("output", proof.log or "none was written")
    if one.decision is not None:
        what = _DECIDED.get(Action(one.decision), one.decision)
        yield labelled(
            "decision", f"{what} ({printable(one.decision_reason or 'no reason given')})"
        )


def _cause(name: str) -> str:
    colour = None if name in {"completed", "stopped"} else "red"
    return click.style(name, fg=colour, bold=True) if colour else word(name)
