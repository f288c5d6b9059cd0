"""GPUs in the life of a job: troubles, limits, what is set aside, and a learned heartbeat."""

from dataclasses import replace
from typing import Any

import pytest

from supervisor.core.attempt import MOST_TROUBLES
from supervisor.core.causes import Action, Cause, State
from supervisor.core.deadlines import Deadlines, Timeouts
from supervisor.core.effects import EndRun, LeaseGpus, SetGpusAside, StopWorker, WaitBackoff
from supervisor.core.events import (
    AttemptEnded,
    AttemptSpawned,
    BackoffElapsed,
    CheckpointChosen,
    DeadlinePassed,
    Event,
    GpusLeased,
    GpusSetAside,
    GpuTroubleSeen,
    LimitExceeded,
    RunnerStarted,
    SignSeen,
    StopRequested,
    WorkerExited,
)
from supervisor.core.evidence import Breach, DeadlineName, Evidence, Limit
from supervisor.core.gpu import XIDS, GpuTrouble, Severity, TroubleKind, xid_trouble
from supervisor.core.machine import step
from supervisor.core.signatures import first_root_error
from supervisor.core.state import JobState

RUNNING = JobState(
    Timeouts(heartbeat_s=20.0, stop_s=5.0),
    gpus_wanted=1,
    gpus=("GPU-a",),
    phase=State.RUNNING,
    attempt=1,
)
EXITED = replace(RUNNING, exited=True)
LOST = xid_trouble("GPU-a", 79, 5.0)
HUNG_DRIVER = GpuTrouble(
    "GPU-a", TroubleKind.DRIVER_HUNG, None, "no answer in 10 s", Severity.AVOID, 5.0
)


def run(state: JobState, *events: Event, now: float = 100.0) -> JobState:
    """The state after a few events."""
    for event in events:
        state, _ = step(state, event, now)
    return state


def ended(cause: Cause, action: Action = Action.RETRY_OTHER_GPU, **facts: Any) -> AttemptEnded:
    """The end of an attempt that held GPU-a, and whatever else the evidence says."""
    seen = Evidence(**({"gpus": ("GPU-a",)} | facts))
    return AttemptEnded(
        1,
        cause,
        "why",
        action,
        "because",
        delay_s=1.0,
        counted=True,
        ran_s=1.0,
        at_s=1.0,
        evidence=seen,
    )  # fmt: skip -- one record


def test_every_xid_says_what_it_asks_for_and_an_unknown_one_takes_no_gpu_away() -> None:
    """The table's word counts; a code that is not in it is noted, with the driver's own line."""
    for code, xid in XIDS.items():
        trouble = xid_trouble("GPU-a", code, 1.0)
        assert (trouble.severity, trouble.code) == (xid.severity, code)
        assert xid.text in trouble.text
    unknown = xid_trouble("GPU-a", 4711, 1.0, "something new")
    assert (unknown.severity, unknown.spoils_gpu) == (Severity.NOTE, False)
    assert "something new" in unknown.text
    assert "NVIDIA" in xid_trouble("GPU-a", 4711, 1.0).text


@pytest.mark.parametrize(
    ("code", "spoils", "ends"), [(31, False, False), (48, True, True), (79, True, True)]
)
def test_which_troubles_end_an_attempt(code: int, spoils: bool, ends: bool) -> None:  # noqa: FBT001 -- a table
    """A program's own fault leaves the GPU fit; hardware that needs a reset does not."""
    trouble = xid_trouble("GPU-a", code, 1.0)
    assert (trouble.spoils_gpu, trouble.ends_attempt) == (spoils, ends)


def test_a_driver_that_does_not_answer_us_stops_no_worker() -> None:
    """The training may well go on: only its own silence is a hang."""
    state, effects = step(RUNNING, GpuTroubleSeen(1, HUNG_DRIVER), 1.0)
    assert effects == ()
    assert state.troubles == (HUNG_DRIVER,)


def test_troubles_that_repeat_do_not_fill_the_memory() -> None:
    """A GPU that falls apart may report a hundred times."""
    state = run(RUNNING, *[GpuTroubleSeen(1, LOST)] * 100)
    assert len(state.troubles) == MOST_TROUBLES


def test_what_ends_an_attempt_is_never_crowded_out_by_notes() -> None:
    """Eight GPUs with two notes each, and then one falls off the bus: that is what must be told."""
    notes = [xid_trouble(f"GPU-{n}", code, 1.0) for n in range(8) for code in (63, 92)]
    state = run(RUNNING, *[GpuTroubleSeen(1, one) for one in [*notes, LOST, notes[0]]])
    assert len(state.troubles) == MOST_TROUBLES
    assert LOST in state.troubles
    assert state.troubles[:-1] == tuple(notes[1:])


def test_a_stop_that_comes_after_a_breach_does_not_explain_the_end() -> None:
    """The worker was told to leave because of its memory; then somebody pressed Ctrl-C."""
    breach = Breach(Limit.GPU_MEMORY_SOFT, 2, 1)
    state = run(RUNNING, LimitExceeded(1, breach), StopRequested("Ctrl-C"))
    assert not state.stop_requested
    assert state.phase is State.STOPPING


def test_grace_after_a_soft_limit_ends_in_a_kill_and_the_limit_stays_the_reason() -> None:
    """The deadline that fires is the stop's; what led to it is kept."""
    breach = Breach(Limit.GPU_MEMORY_SOFT, 2, 1)
    state = run(RUNNING, LimitExceeded(1, breach), SignSeen(5))
    assert state.deadlines == Deadlines(stop=105.0)
    state = run(state, DeadlinePassed(DeadlineName.STOP, 5.0), WorkerExited(1, None, 9))
    assert (state.breach, state.fired, state.phase) == (breach, DeadlineName.STOP, State.RUNNING)


LOGGED = first_root_error(["NVRM: Xid (PCI:0000:3b:00): 79"])
# (cause, evidence, GPUs set aside, words of the reason)
ASIDE: list[tuple[Cause, dict[str, Any], set[str], str]] = [
    (Cause.GPU_HARDWARE, {"gpu_troubles": (LOST,)}, {"GPU-a"}, "Xid 79"),
    (Cause.HANG, {"gpu_troubles": (LOST,)}, {"GPU-a"}, "Xid 79"),
    (Cause.GPU_HARDWARE, {"root_error": LOGGED}, {"GPU-a"}, "79"),
    (Cause.GPU_HARDWARE, {"root_error": LOGGED, "gpus": ("GPU-a", "GPU-b")}, set(), ""),
    (Cause.UNKILLABLE, {"survivors": (7, 8)}, {"GPU-a"}, "process 7, 8"),
    (Cause.HANG, {"gpu_troubles": (HUNG_DRIVER,)}, {"GPU-a"}, "no answer"),
    (Cause.COMPLETED, {"gpu_troubles": (HUNG_DRIVER,)}, set(), ""),
    (Cause.COMPLETED, {"gpu_troubles": (HUNG_DRIVER, LOST)}, {"GPU-a"}, "Xid 79"),
    (Cause.STOPPED, {"gpu_troubles": (HUNG_DRIVER,)}, set(), ""),
    (Cause.HOST_REBOOTED, {"gpu_troubles": (LOST,), "host_rebooted": True}, set(), ""),
    (Cause.CUDA_ERROR, {"gpu_troubles": (xid_trouble("GPU-a", 31, 1.0),)}, set(), ""),
    (Cause.CUDA_OOM, {}, set(), ""),
]


@pytest.mark.parametrize(("cause", "facts", "gpus", "words"), ASIDE)
def test_what_is_set_aside_when_an_attempt_ends(
    cause: Cause, facts: dict[str, Any], gpus: set[str], words: str
) -> None:
    """Exactly the GPUs that the evidence is about, before the next attempt is waited for."""
    _, effects = step(EXITED, ended(cause, **facts), 1.0)
    asides = [one for one in effects if isinstance(one, SetGpusAside)]
    assert {uuid for one in asides for uuid in one.gpus} == gpus
    assert all(words in one.reason for one in asides)
    assert effects[-1] == WaitBackoff(1.0)
    assert len(effects) == len(asides) + 1


def test_a_gpu_is_set_aside_also_when_the_job_holds() -> None:
    """Other jobs must not get it either."""
    event = ended(Cause.GPU_HARDWARE, Action.HOLD, gpu_troubles=(LOST,))
    _, effects = step(EXITED, event, 1.0)
    assert effects == (SetGpusAside(("GPU-a",), LOST.text), EndRun(State.HOLDING))


def test_what_was_not_set_aside_before_the_runner_died_is_set_aside_by_the_next() -> None:
    """The journal knows it until somebody confirms it; after that a person may have released it."""
    spoils = ended(Cause.GPU_HARDWARE, gpu_troubles=(LOST,))
    aside = SetGpusAside(("GPU-a",), LOST.text)
    again = RunnerStarted(4, 5, "boot")
    unconfirmed = run(EXITED, spoils)
    assert step(unconfirmed, again, 1.0)[1] == (aside, LeaseGpus(("GPU-a",)))
    confirmed = run(unconfirmed, GpusSetAside(("GPU-a",)))
    assert step(confirmed, again, 1.0)[1] == (LeaseGpus(),)


def test_an_attempt_that_failed_elsewhere_for_no_proven_reason_is_tried_on_others() -> None:
    """Another GPU means another one: those tried are avoided until there is progress."""
    state = run(EXITED, ended(Cause.CUDA_ERROR), BackoffElapsed(), GpusLeased(("GPU-b",)))
    state = run(state, CheckpointChosen(None, None), ended(Cause.CUDA_ERROR, gpus=("GPU-b",)))
    assert step(state, BackoffElapsed(), 1.0)[1] == (LeaseGpus(("GPU-a", "GPU-b")),)
    here = run(EXITED, ended(Cause.CUDA_ERROR, Action.RESUME))
    assert step(here, BackoffElapsed(), 1.0)[1] == (LeaseGpus(),)


def test_a_gpu_that_is_set_aside_needs_no_avoiding() -> None:
    """Of two GPUs one is spoilt; the other may be used again at once."""
    state = run(EXITED, ended(Cause.GPU_HARDWARE, gpus=("GPU-a", "GPU-b"), gpu_troubles=(LOST,)))
    assert step(state, BackoffElapsed(), 1.0)[1] == (LeaseGpus(("GPU-a",)),)


def test_a_lost_gpu_asks_the_worker_to_leave_once() -> None:
    """The second report of the same finds it leaving."""
    state, first = step(RUNNING, GpuTroubleSeen(1, LOST), 1.0)
    _, second = step(state, GpuTroubleSeen(1, LOST), 2.0)
    assert (first, second) == ((StopWorker(),), ())


def test_a_learned_heartbeat_follows_the_signs() -> None:
    """Many quick signs shorten the deadline; the next attempt keeps what was learned."""
    auto = replace(RUNNING, timeouts=Timeouts(heartbeat_s=1800.0, heartbeat_auto=True))
    state = run(auto, AttemptSpawned(1, 7, 8), now=0.0)
    for second in range(0, 2000, 10):
        state = run(state, SignSeen(second), now=float(second))
    learned_s = state.timeouts.heartbeat_s
    assert learned_s == 600.0
    assert state.deadlines.heartbeat == pytest.approx(1990.0 + learned_s)
    later = run(state, AttemptSpawned(2, 7, 8), now=5000.0)
    assert run(later, SignSeen(1), now=5001.0).deadlines.heartbeat == pytest.approx(5601.0)


def test_a_given_heartbeat_learns_nothing() -> None:
    """What job.yaml says is what counts."""
    state = RUNNING
    for second in range(0, 2000, 10):
        state = run(state, SignSeen(second), now=float(second))
    assert state.timeouts.heartbeat_s == 20.0
