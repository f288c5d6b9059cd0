"""The last line of a run: how it ended, and what to type next.

Owns its wording for every kind of job.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from supervisor.core.causes import Cause, State
from supervisor.journal import JobRecord, Journal
from supervisor.journal.records import Counts
from supervisor.spec.batch import BatchPlan, batch_of
from supervisor.spec.job import JobSpec
from supervisor.views.batch import items_per_s
from supervisor.views.frozen import again, verb
from supervisor.views.plain import printable, short

_AGAIN = "run the same command again"


class Over(Protocol):
    """A job whose run is over: what is read of it."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def record(self) -> JobRecord:
        """Its row."""

    @property
    def spec(self) -> JobSpec:
        """What it is."""

    @property
    def journal(self) -> Journal:
        """Where it stands in."""

    @property
    def state_dir(self) -> Path:
        """Whose jobs those are."""


class Ended(Protocol):
    """How the run ended."""

    @property
    def state(self) -> State:
        """Where the job is."""

    @property
    def why(self) -> str:
        """Why it is there."""


def farewell(job: Over, outcome: Ended, *, again: str = _AGAIN) -> str:
    """What to tell the person in front of the terminal when a run is over.

    `again` says how the job is brought on, as the end of a sentence.
    """
    batch = batch_of(job.spec)
    if batch is None:
        return _of_any(job, outcome, again)
    words = _OF_BATCH.get(outcome.state)
    counts = job.journal.ledger(job.id).counts()
    if words is None or not counts.total:
        return _of_any(job, outcome, again)
    return f"{job.spec.name}: {words(_End(job, batch, counts, outcome, again))}"


def _of_any(job: Over, outcome: Ended, again: str) -> str:
    name = job.spec.name
    explain = verb(job.state_dir, "explain", name)
    why = printable(outcome.why)
    words = {
        State.SUCCEEDED: f"{name}: done",
        State.FAILED: f"{name}: failed. Why: {explain}. To try again: {again}",
        State.HOLDING: f"{name}: holding, a person is needed: {why}. Then {again}",
        State.STOPPED: f"{name}: stopped; to resume, {again}",
    }
    return words.get(outcome.state, f"{name}: {outcome.state}")


class _End:
    """A batch job whose run is over."""

    def __init__(
        self, job: Over, batch: BatchPlan, counts: Counts, outcome: Ended, again: str
    ) -> None:
        self.job, self.counts, self.outcome, self.again = job, counts, outcome, again
        folder = str(job.spec.folder)
        self.results = short(batch.results, folder)
        self.quarantine = short(batch.quarantine, folder)
        self.sheet = short(batch.out / "index.html", folder) if batch.contact_sheet else ""

    @property
    def done(self) -> str:
        """`1000 of 1000 items done, 41.2 items/s`."""
        rate = items_per_s(self.job.journal.attempts(self.job.id))
        speed = "" if rate is None else f", {rate:.1f} items/s"
        return f"{self.counts.done} of {self.counts.total} items done{speed}"

    @property
    def command_again(self) -> str:
        """What is typed to bring the job on."""
        if self.again != _AGAIN:
            return self.again
        return again(self.job.record, self.job.state_dir, here=Path.cwd())

    def command(self, name: str, *arguments: str) -> str:
        """A command of ours about this job."""
        return verb(self.job.state_dir, name, self.job.id, *arguments)


def _succeeded(end: _End) -> str:
    sheet = f", to look at: {end.sheet}" if end.sheet else ""
    return f"{end.done}, results in {end.results}{sheet}"


def _holding(end: _End) -> str:
    why = printable(end.outcome.why)
    if not (end.counts.quarantined and _is_of_quarantine(why)):
        return f"{end.done}; holding, a person is needed: {why}\n  When that is mended, {end.again}"
    retry = end.command("retry", "--items", "quarantined")
    return (
        f"{end.done}, results in {end.results}; {end.counts.quarantined} quarantined, listed in "
        f"{end.quarantine}\n  why: {end.command('explain')}\n  to try them again: {retry}"
    )


def _is_of_quarantine(why: str) -> bool:
    """Whether the quarantined items are all that a person is needed for."""
    of_poison = why.startswith(f"{Cause.POISON_ITEM}:") or why.endswith("items are quarantined")
    return of_poison or not why


def _failed(end: _End) -> str:
    return (
        f"{end.done}; failed: {printable(end.outcome.why)}\n"
        f"  why: {end.command('explain')}\n"
        f"  to go on with what is left: {end.command_again}"
    )


def _stopped(end: _End) -> str:
    return f"{end.done}; stopped. To go on with what is left, {end.again}"


_OF_BATCH: dict[State, Callable[[_End], str]] = {
    State.SUCCEEDED: _succeeded,
    State.HOLDING: _holding,
    State.FAILED: _failed,
    State.STOPPED: _stopped,
}
