"""The last line of a run: how it ended, and what to type next.

Owns its wording for every kind of job.
"""

from collections.abc import Callable
from pathlib import Path

from supervisor.core.causes import Cause, State
from supervisor.journal.records import Counts
from supervisor.runner.opening import OpenJob
from supervisor.runner.run import Outcome
from supervisor.spec.batch import BatchPlan, batch_of
from supervisor.views.batch import items_per_s
from supervisor.views.frozen import again, verb
from supervisor.views.plain import printable, short

_AGAIN = "run the same command again"


def farewell(job: OpenJob, outcome: Outcome) -> str:
    """What to tell the person in front of the terminal when a run is over."""
    batch = batch_of(job.spec)
    if batch is None:
        return _of_any(job.spec.name, outcome)
    words = _OF_BATCH.get(outcome.state)
    counts = job.journal.ledger(job.id).counts()
    if words is None or not counts.total:
        return _of_any(job.spec.name, outcome)
    return f"{job.spec.name}: {words(_End(job, batch, counts, outcome))}"


def _of_any(name: str, outcome: Outcome) -> str:
    words = {
        State.SUCCEEDED: f"{name}: done",
        State.FAILED: f"{name}: failed. Why: supervise explain {name}. To try again: {_AGAIN}",
        State.HOLDING: f"{name}: holding, a person is needed: {outcome.why}. Then {_AGAIN}",
        State.STOPPED: f"{name}: stopped; to resume, {_AGAIN}",
    }
    return words.get(outcome.state, f"{name}: {outcome.state}")


class _End:
    """A batch job whose run is over."""

    def __init__(self, job: OpenJob, batch: BatchPlan, counts: Counts, outcome: Outcome) -> None:
        self.job, self.counts, self.outcome = job, counts, outcome
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

    def command(self, name: str, *arguments: str) -> str:
        """A command of ours about this job."""
        return verb(self.job.state_dir, name, self.job.id, *arguments)


def _succeeded(end: _End) -> str:
    sheet = f", to look at: {end.sheet}" if end.sheet else ""
    return f"{end.done}, results in {end.results}{sheet}"


def _holding(end: _End) -> str:
    why = printable(end.outcome.why)
    if not (end.counts.quarantined and _is_of_quarantine(why)):
        return f"{end.done}; holding, a person is needed: {why}\n  When that is mended, {_AGAIN}"
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
        f"  to go on with what is left: {again(end.job.record, end.job.state_dir, here=Path.cwd())}"
    )


def _stopped(end: _End) -> str:
    return f"{end.done}; stopped. To go on with what is left, {_AGAIN}"


_OF_BATCH: dict[State, Callable[[_End], str]] = {
    State.SUCCEEDED: _succeeded,
    State.HOLDING: _holding,
    State.FAILED: _failed,
    State.STOPPED: _stopped,
}
