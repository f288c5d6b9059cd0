"""What a job waits for, and which command to type next.

Owns these sentences, one per state; the table is complete, so no job leaves its owner guessing.
"""

from collections.abc import Callable
from dataclasses import dataclass

from supervisor.core.causes import Cause, State
from supervisor.journal.records import Counts
from supervisor.runner.alive import runner_gone, runner_lives
from supervisor.views import frozen
from supervisor.views.chosen import Chosen
from supervisor.views.frozen import said, verb
from supervisor.views.plain import counted, printable


@dataclass(frozen=True, slots=True)
class NextStep:
    """A sentence, and the command that it speaks of (None where there is nothing to do)."""

    words: str
    command: str | None = None


RUNNER_GONE = "its runner is gone; run the same command to resume"


QUEUED = "it waits in the queue of the daemon"
TAKEN_UP = "its runner is gone; the daemon starts another"


def note(chosen: Chosen) -> str | None:
    """What to say beside the state where no runner looks after the job, though it should."""
    if not runner_gone(chosen.record):
        return None
    if not chosen.submitted:
        return RUNNER_GONE
    return QUEUED if _never_ran(chosen) else TAKEN_UP


def _never_ran(chosen: Chosen) -> bool:
    return chosen.record.state == State.QUEUED and chosen.record.runner_pid is None


def _again(chosen: Chosen) -> str:
    if chosen.submitted:
        return verb(chosen.state_dir, "resume", chosen.record.id)
    return frozen.again(chosen.record, chosen.state_dir, here=chosen.here)


def _anew(chosen: Chosen) -> str:
    how = "submit" if chosen.submitted else "run"
    return frozen.again(chosen.record, chosen.state_dir, "--fresh", here=chosen.here, how=how)


def _this(chosen: Chosen) -> str:
    return "this command" if chosen.submitted else "the same command"


def _attended(what: str) -> Callable[[Chosen], NextStep]:
    def words(chosen: Chosen) -> NextStep:
        pid = chosen.record.runner_pid
        follow = verb(chosen.state_dir, "logs", "-f", chosen.record.id)
        return NextStep(f"{what}, looked after by its runner (process {pid}). To watch it:", follow)

    return words


def _holding(chosen: Chosen) -> NextStep:
    aside = _counts(chosen).quarantined
    if aside:
        what = f"{counted(aside)} {'is' if aside == 1 else 'are'} quarantined"
        words = f"A person is needed: {what}. When their cause is mended, try them again:"
        retry = verb(chosen.state_dir, "retry", chosen.record.id, "--items", "quarantined")
        return NextStep(words, retry)
    why = printable(chosen.record.why) or "it does not say why"
    if why.startswith(f"{Cause.DISK_FULL}:") and runner_lives(chosen.record):
        return NextStep(f"It goes on by itself when there is room on the disk: {why}")
    if why.endswith("does not start from zero by itself"):
        words = (
            f"A person is needed: {why}. When one is put back, {_again(chosen)} resumes from it. "
            "To start anew, with what is there kept under another name:"
        )
        return NextStep(words, _anew(chosen))
    words = f"A person is needed: {why}. When that is settled, {_this(chosen)} resumes it:"
    return NextStep(words, _again(chosen))


def _stopped(chosen: Chosen) -> NextStep:
    what = _this(chosen).capitalize()
    words = f"It was stopped on request{_where(chosen)}. {what} resumes it:"
    return NextStep(words, _again(chosen))


def _failed(chosen: Chosen) -> NextStep:
    if said(chosen.record).is_batch:
        words = f"It was given up. When the cause is mended, {_this(chosen)} does what is left:"
        return NextStep(words, _again(chosen))
    words = (
        f"It was given up{_where(chosen)}. When the cause is mended, {_this(chosen)} tries it "
        "again, from its newest checkpoint that verifies and with a new restart budget:"
    )
    return NextStep(words, _again(chosen))


def _succeeded(chosen: Chosen) -> NextStep:
    if said(chosen.record).is_batch:
        words = f"All its items are done. When there are new ones, {_this(chosen)} does those:"
        return NextStep(words, _again(chosen))
    words = "It is done; nothing is left to do. To run it anew, its outputs kept aside:"
    return NextStep(words, _anew(chosen))


def _cancelled(chosen: Chosen) -> NextStep:
    words = "It was cancelled. To run it anew, its outputs kept aside:"
    return NextStep(words, _anew(chosen))


def _of_daemon(chosen: Chosen) -> NextStep:
    if _never_ran(chosen):
        words = "It waits in the queue of the daemon. To see what for:"
        return NextStep(words, verb(chosen.state_dir, "ps"))
    words = "Its runner is gone, and the daemon starts another by itself. To see if one serves:"
    return NextStep(words, verb(chosen.state_dir, "daemon", "status"))


def _lost(chosen: Chosen) -> NextStep:
    words = (
        "Its runner is gone (killed, or the host was restarted), and its worker with it. Run the "
        "same command to resume:"
    )
    return NextStep(words, _again(chosen))


def _counts(chosen: Chosen) -> Counts:
    return chosen.journal.ledger(chosen.record.id).counts()


def _where(chosen: Chosen) -> str:
    step = chosen.record.step
    if said(chosen.record).is_batch:
        counts = _counts(chosen)
        return f" at {counts.done} of {counts.total} items" if counts.total else ""
    return "" if step is None else f" at step {step}"


_BY_STATE: dict[State, Callable[[Chosen], NextStep]] = {
    State.QUEUED: _attended("It is about to start"),
    State.RUNNING: _attended("It is running"),
    State.BACKING_OFF: _attended("It waits a moment before the next attempt"),
    State.STOPPING: _attended("It is stopping"),
    State.HOLDING: _holding,
    State.STOPPED: _stopped,
    State.SUCCEEDED: _succeeded,
    State.FAILED: _failed,
    State.CANCELLED: _cancelled,
}


def next_step(chosen: Chosen) -> NextStep:
    """What to tell the owner of this job."""
    if runner_gone(chosen.record):
        return _of_daemon(chosen) if chosen.submitted else _lost(chosen)
    return _BY_STATE[State(chosen.record.state)](chosen)
