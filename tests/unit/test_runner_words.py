"""The sentences that people read, one per event."""

import pytest

from supervisor.core.amounts import seconds, size
from supervisor.core.causes import Action, Cause, State
from supervisor.core.deadlines import Timeouts
from supervisor.core.events import (
    AttemptEnded,
    AttemptSpawned,
    BackoffElapsed,
    CheckpointChosen,
    CheckpointVerified,
    DeadlinePassed,
    GpusAwaited,
    GpusLeased,
    GpuTroubleSeen,
    HoldRequired,
    JobCancelled,
    LimitExceeded,
    RefusedGpu,
    RejectedCheckpoint,
    RunnerStarted,
    SpaceReturned,
    SpecChanged,
    StopRequested,
    WorkerRevived,
)
from supervisor.core.evidence import Breach, DeadlineName, Limit
from supervisor.core.gpu import GpuTrouble, Severity, TroubleKind, xid_trouble
from supervisor.core.state import JobState
from supervisor.runner.words import at_step, sentence

GIB = 1 << 30
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
        (CheckpointVerified(5, "/m", "published", "verified", 9, 0, pinned=False, tier="memory"),
         RUNNING, "snapshot in memory, step 5, verified (9 B)"),
        (CheckpointChosen("/m", 5, tier="memory"), RUNNING, "step 5 (/m, a snapshot in memory)"),
        (DeadlinePassed(DeadlineName.STOP, 60), RUNNING, "did not stop within 1 min 00 s"),
        (DeadlinePassed(DeadlineName.TOTAL, 60), RUNNING, "whole time (1 min 00 s) is used up"),
        (DeadlinePassed(DeadlineName.STARTUP, 60), RUNNING, "no sign of progress for 1 min"),
        (DeadlinePassed(DeadlineName.HEARTBEAT, 60), RUNNING, "no sign of progress for"),
        (StopRequested("Ctrl-C"), JobState(phase=State.STOPPED), "Ctrl-C: stopping"),
        (StopRequested("Ctrl-C"), JobState(phase=State.STOPPING), "once more to kill it"),
        (JobCancelled("anna"), JobState(phase=State.CANCELLED), "anna: the job is cancelled"),
        (StopRequested("Ctrl-C", forced=True), RUNNING, "Ctrl-C again: killing the worker"),
        (_ended(), JobState(phase=State.BACKING_OFF), "decision: resume in 1.5 s (restart 1"),
        (_ended(delay_s=0), JobState(phase=State.BACKING_OFF), "decision: resume (restart 1"),
        (_ended(), JobState(phase=State.STOPPED), "the job is stopped and can be resumed"),
        (_ended(Action.GIVE_UP), JobState(phase=State.FAILED), "the job failed"),
        (BackoffElapsed(), RUNNING, None),
        (_ended(Action.HOLD), JobState(phase=State.HOLDING), "(restart 1 of 5); the job is held"),
        (_ended(Action.RETRY_OTHER_GPU), JobState(phase=State.BACKING_OFF),
         "decision: retry_other_gpu in 1.5 s"),
        (HoldRequired(Cause.BAD_CONFIG, "too few GPUs"), RUNNING, "holding: too few GPUs"),
        (SpaceReturned(), RUNNING, "there is room on the disk again: going on"),
        (GpusLeased(("GPU-a", "GPU-b"), waited_s=0.4), RUNNING, "leased GPU-a, GPU-b"),
        (GpusLeased(("GPU-a",), waited_s=75), RUNNING, "leased GPU-a after 1 min 15 s"),
        (GpusAwaited("none is free"), RUNNING, "waiting for GPUs: none is free"),
        (WorkerRevived(2), RUNNING, "moved while its stacks were saved: it is not killed"),
        (LimitExceeded(2, Breach(Limit.GPU_MEMORY, 21 * GIB, 20 * GIB, "GPU 0 (H200)")), RUNNING,
         "21.0 GiB used, resources.gpu_memory is 20.0 GiB on GPU 0 (H200): killing the worker"),
        (LimitExceeded(2, Breach(Limit.GPU_MEMORY_SOFT, 19 * GIB, 18 * GIB, "GPU 0")), RUNNING,
         "resources.gpu_memory_soft is 18.0 GiB on GPU 0: asking the worker to save and leave"),
        (LimitExceeded(2, Breach(Limit.MEMORY, 2 * GIB, GIB)), RUNNING,
         "2.0 GiB used, resources.memory is 1.0 GiB: killing the worker"),
        (GpuTroubleSeen(2, xid_trouble("GPU-a", 79, 1.0)), RUNNING,
         "the GPU has fallen off the bus: asking the worker to leave"),
        (DeadlinePassed(DeadlineName.HEARTBEAT, 60, "silent for 60 s, and idle"), RUNNING,
         "silent for 60 s, and idle: saving where it stands, then killing it"),
    ],
)  # fmt: skip
def test_an_event_is_one_sentence(event, state, words):
    """Each says what happened; what is nobody's business says nothing."""
    said = sentence(event, state)
    assert said is None if words is None else words in said


def test_only_a_full_disk_is_said_to_be_waited_for():
    """Every other hold needs a person, and must not promise to end by itself."""
    full = sentence(HoldRequired(Cause.DISK_FULL, "no room"), RUNNING)
    other = sentence(HoldRequired(Cause.UNKILLABLE, "process 7 does not end"), RUNNING)
    assert full == "holding: no room; it goes on by itself when there is room"
    assert other == "holding: process 7 does not end"


def test_a_trouble_that_stops_nobody_is_only_told():
    """An Xid that programs cause, or a driver that is slow to answer, asks nobody to leave."""
    silent = GpuTrouble("GPU-a", TroubleKind.DRIVER_HUNG, None, "no answer", Severity.AVOID, 1.0)
    for trouble in (xid_trouble("GPU-a", 31, 1.0), silent):
        said = sentence(GpuTroubleSeen(2, trouble), RUNNING)
        assert said == f"GPU GPU-a: {trouble.text}"


def test_each_gpu_that_a_job_does_not_get_is_told_with_its_reason():
    """One line each: before the lease what was wrong with the last ones, and while it waits all."""
    refused = (RefusedGpu("GPU-a", "not given back: 2 GiB"), RefusedGpu("GPU-b", "leased by x"))
    assert sentence(GpusLeased(("GPU-c",), refused), RUNNING).splitlines() == [
        "GPU GPU-a is not used: not given back: 2 GiB",
        "GPU GPU-b is not used: leased by x",
        "leased GPU-c",
    ]
    assert sentence(GpusAwaited("none is free", refused), RUNNING).splitlines() == [
        "waiting for GPUs: none is free",
        "  not given back: 2 GiB",
        "  leased by x",
    ]


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
