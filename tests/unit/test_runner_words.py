"""The sentences that people read, one per event."""

import pytest

from supervisor.core.causes import Action, Cause, State
from supervisor.core.deadlines import Timeouts
from supervisor.core.events import (
    AttemptEnded,
    AttemptSpawned,
    BackoffElapsed,
    CheckpointChosen,
    CheckpointVerified,
    DeadlinePassed,
    HoldRequired,
    RejectedCheckpoint,
    RunnerStarted,
    SpecChanged,
    StopRequested,
)
from supervisor.core.evidence import DeadlineName
from supervisor.core.state import JobState
from supervisor.runner.words import at_step, seconds, sentence, size

BEGUN = RunnerStarted(1, 1, "b", rebooted=False)
RUNNING = JobState(phase=State.RUNNING, attempt=2, timeouts=Timeouts(stop_s=60))


@pytest.mark.parametrize(
    ("duration_s", "words"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
        (3600 * 76, "3 d 4 h"),
    ],
)
def test_a_duration_is_said_as_people_say_it(duration_s, words):
    """Tenths below ten seconds, then two units at most; nothing is ever 60 s."""
    assert seconds(duration_s) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [(812, "812 B"), (1 << 20, "1.0 MiB"), (20 << 30, "20.0 GiB"), (3 << 40, "3.0 TiB")],
)
def test_a_size_is_said_in_binary_units(count, words):
    """Bytes whole, the rest with one decimal, TiB at most."""
    assert size(count) == words


def test_a_step_that_is_not_known_is_the_beginning():
    """Nobody reads `step None`."""
    assert (at_step(None), at_step(540)) == ("the beginning", "step 540")


def _ended(action=Action.RESUME, delay_s=1.5):
    return AttemptEnded(2, Cause.SIGNAL, "killed by SIGKILL", action, "restart 1 of 5",
                        delay_s, counted=True, ran_s=12, at_s=0)  # fmt: skip


@pytest.mark.parametrize(
    ("event", "state", "words"),
    [
        (BEGUN, JobState(), None),
        (BEGUN, RUNNING, "the runner of attempt 2 is gone"),
        (BEGUN, JobState(attempt=2), "taking over after attempt 2"),
        (SpecChanged(("a", "b")), RUNNING, "job.yaml changed in 2 place(s)"),
        (CheckpointChosen(None, None), RUNNING, "attempt 2 starts from the beginning"),
        (CheckpointChosen("/c", 5, restored=True), RUNNING, "step 5 (/c, restored from the"),
        (HoldRequired(Cause.DISK_FULL, "no room"), RUNNING, "holding: no room"),
        (AttemptSpawned(2, 77, 1), RUNNING, "attempt 2 is running (process 77)"),
        (CheckpointVerified(5, "/c", "plain", "size", 9, 0, pinned=False), RUNNING,
         "checkpoint step 5 complete (its format has no checksum) (plain, 9 B; no room"),
        (DeadlinePassed(DeadlineName.STOP, 60), RUNNING, "did not stop within 1 min 00 s"),
        (DeadlinePassed(DeadlineName.TOTAL, 60), RUNNING, "whole time (1 min 00 s) is used up"),
        (DeadlinePassed(DeadlineName.STARTUP, 60), RUNNING, "no sign of progress for 1 min"),
        (DeadlinePassed(DeadlineName.HEARTBEAT, 60), RUNNING, "no output, no checkpoint for"),
        (StopRequested("Ctrl-C"), JobState(phase=State.STOPPED), "Ctrl-C: stopping"),
        (StopRequested("Ctrl-C"), JobState(phase=State.STOPPING), "once more to kill it"),
        (StopRequested("Ctrl-C", forced=True), RUNNING, "Ctrl-C again: killing the worker"),
        (_ended(), JobState(phase=State.BACKING_OFF), "decision: resume in 1.5 s (restart 1"),
        (_ended(delay_s=0), JobState(phase=State.BACKING_OFF), "decision: resume (restart 1"),
        (_ended(), JobState(phase=State.STOPPED), "the job is stopped and can be resumed"),
        (_ended(Action.GIVE_UP), JobState(phase=State.FAILED), "the job failed"),
        (BackoffElapsed(), RUNNING, None),
    ],
)  # fmt: skip
def test_an_event_is_one_sentence(event, state, words):
    """Each says what happened; what is nobody's business says nothing."""
    said = sentence(event, state)
    assert said is None if words is None else words in said


def test_a_checkpoint_that_is_passed_over_is_named_with_its_reason_and_place():
    """Also one that is sound, but set aside by the policy: it is `not used`, never `bad`."""
    passed = (
        RejectedCheckpoint("/c", 5, "torn", "/x/c"),
        RejectedCheckpoint("/d", 4, "older", None),
    )
    holding = JobState(phase=State.HOLDING, why="none of 2 checkpoints verifies")
    assert sentence(CheckpointChosen(None, None, rejected=passed), holding).splitlines() == [
        "checkpoint /c is not used: torn; kept as /x/c",
        "checkpoint /d is not used: older",
        "holding: none of 2 checkpoints verifies",
    ]
