"""Every row of the table of transitions, with what it leads to: data for test_core_machine."""

from dataclasses import replace
from typing import Any

from supervisor.core.causes import Action, Cause, State
from supervisor.core.deadlines import Deadlines, Timeouts
from supervisor.core.decide import Failure
from supervisor.core.effects import (
    ChooseCheckpoint,
    ConcludeAttempt,
    Effect,
    EndRun,
    KillWorker,
    LeaseGpus,
    ReclaimWorker,
    SetGpusAside,
    SpawnAttempt,
    StopWorker,
    WaitBackoff,
    WaitForSpace,
)
from supervisor.core.events import (
    AttemptEnded,
    AttemptSpawned,
    BackoffElapsed,
    CheckpointChosen,
    CheckpointVerified,
    DeadlineDeferred,
    DeadlinePassed,
    Event,
    GpusAwaited,
    GpusLeased,
    GpusSetAside,
    GpuTroubleSeen,
    HoldRequired,
    LimitExceeded,
    ProgressBegan,
    RunnerStarted,
    SignSeen,
    SpaceReturned,
    SpecChanged,
    StopRequested,
    WorkerExited,
    WorkerRevived,
)
from supervisor.core.evidence import Breach, DeadlineName, Evidence, Limit
from supervisor.core.gpu import xid_trouble
from supervisor.core.state import JobState

S = State
NOW = 1000.0
TIMES = Timeouts(startup_s=10.0, heartbeat_s=20.0, stop_s=5.0, total_s=100.0)
PAST = (Failure(Cause.SIGNAL, 90, "boom", 1.0),)

STARTED = RunnerStarted(4, 5, "boot")
REBOOTED = RunnerStarted(4, 5, "boot", rebooted=True)
CHANGED = SpecChanged(("lr: 1 -> 2",))
FROM_ZERO = CheckpointChosen(None, None)
FROM_300 = CheckpointChosen("c300", 300, candidates=2)
STOP, FORCED = StopRequested("Ctrl-C"), StopRequested("Ctrl-C", forced=True)


HARD = Breach(Limit.GPU_MEMORY, 30, 20, "GPU 0")
SOFT = Breach(Limit.GPU_MEMORY_SOFT, 19, 18, "GPU 0")
FALLEN, FAULTY = xid_trouble("GPU-a", 79, 5.0), xid_trouble("GPU-a", 31, 5.0)
LEASED = GpusLeased(("GPU-a", "GPU-b"))
ASIDE = GpusSetAside(("GPU-a",))
SPOILT = (("GPU-a", "Xid 79"), ("GPU-b", "Xid 48"))
SPOILS = {"spoilt": SPOILT}
LEFT = {"spoilt": SPOILT[1:]}
SET_ASIDE = tuple(SetGpusAside((uuid,), reason) for uuid, reason in SPOILT)


def verified(at: int) -> CheckpointVerified:
    """A checkpoint of this step that verified."""
    return CheckpointVerified(at, f"c{at}", "torch_zip", "crc", 9, 1.0, pinned=True)


def passed(name: DeadlineName) -> DeadlinePassed:
    """A deadline that fired."""
    return DeadlinePassed(name, 1.0)


def ended(action: Action, cause: Cause = Cause.EXIT_CODE, **more: Any) -> AttemptEnded:
    """The end of attempt 3 after 7 s at step 410, with this decision."""
    facts = {"counted": False, "delay_s": 0.0} | more
    seen = Evidence(step=410, error_line="KeyError")
    return AttemptEnded(
        3, cause, "why", action, "because", ran_s=7.0, at_s=50.0, evidence=seen, **facts
    )


BASE = JobState(
    TIMES, attempt=3, resumed_step=300, best_checkpoint=400, disk_checkpoint=400, failures=PAST
)
QUEUED = replace(  # with all that an attempt before may have left behind
    BASE,
    phase=S.QUEUED,
    ceiling=400,
    exited=True,
    exit_code=1,
    signal=9,
    stop_requested=True,
    fired=DeadlineName.HEARTBEAT,
    saved_step=390,
    step=395,
    progressed=True,
    why="hang: silent",
    seen="idle",
    breach=HARD,
    troubles=(FALLEN,),
)
RUNNING = replace(
    BASE,
    phase=S.RUNNING,
    step=350,
    progressed=True,
    spent_s=3.0,
    deadlines=Deadlines(heartbeat=1007.0),
)
UNSPAWNED = replace(BASE, phase=S.RUNNING)
EXITED = replace(RUNNING, exited=True, exit_code=1, deadlines=Deadlines())
HUNG = replace(RUNNING, fired=DeadlineName.HEARTBEAT, deadlines=Deadlines())
STOPPING = replace(RUNNING, phase=S.STOPPING, stop_requested=True, deadlines=Deadlines(stop=1004.0))
OVER_LIMIT = replace(RUNNING, breach=HARD, deadlines=Deadlines())
LEAVING = replace(RUNNING, breach=SOFT, deadlines=Deadlines(stop=1004.0))
SICK = replace(LEAVING, breach=None, troubles=(FAULTY, FALLEN))
TIMED_OUT = replace(STOPPING, stop_requested=False, fired=DeadlineName.TOTAL)
OVER = replace(BASE, exited=True, why="exit_code: boom", spent_s=5.0)
BACKING_OFF = replace(OVER, phase=S.BACKING_OFF, ceiling=200)
STOPPED = replace(OVER, phase=S.STOPPED, ceiling=200)
HOLDING, FAILED = replace(OVER, phase=S.HOLDING), replace(OVER, phase=S.FAILED)
SUCCEEDED = replace(OVER, phase=S.SUCCEEDED)

NEW_ATTEMPT = {
    "attempt": 4,
    "exited": False,
    "exit_code": None,
    "signal": None,
    "fired": None,
    "stop_requested": False,
    "step": None,
    "saved_step": None,
    "progressed": False,
    "why": "",
    "seen": "",
    "breach": None,
    "troubles": (),
}  # fmt: skip -- one record
NO_DEADLINES = {"deadlines": Deadlines()}
GRACE = {"phase": S.STOPPING, "deadlines": Deadlines(stop=NOW + 5)}
ALIVE = {"deadlines": Deadlines(heartbeat=NOW + 20)}
AFTER = {"exited": True, "spent_s": 10.0, "step": 410, "why": "exit_code: why"} | NO_DEADLINES
COUNTED = (*PAST, Failure(Cause.EXIT_CODE, 410, "KeyError", 50.0))
KILL, KILL_HUNG = KillWorker(), KillWorker(capture_stacks=True)
RECLAIM = ReclaimWorker(3, rebooted=False)

NEWEST = {"best_checkpoint": 500, "disk_checkpoint": 500, "failures": ()}

Row = tuple[JobState, Event, dict[str, Any], tuple[Effect, ...]]

# (state, event, what changes, effects). What is not named stays as it was.
ROWS: list[Row] = [
    (QUEUED, STARTED, {}, (ChooseCheckpoint(400),)),
    (QUEUED, CHANGED, {}, ()),
    (QUEUED, verified(300), {}, ()),
    (QUEUED, verified(500), NEWEST | {"ceiling": None}, ()),
    (
        QUEUED,
        FROM_300,
        NEW_ATTEMPT | {"phase": S.RUNNING, "resumed_step": 300},
        (SpawnAttempt(4, "c300", 300),),
    ),
    (
        replace(QUEUED, best_checkpoint=None, disk_checkpoint=None, ceiling=None),
        FROM_ZERO,
        NEW_ATTEMPT | {"phase": S.RUNNING, "resumed_step": None},
        (SpawnAttempt(4, None, None),),
    ),
    (
        QUEUED,
        HoldRequired(Cause.DISK_FULL, "full"),
        {"phase": S.HOLDING, "why": "full"},
        (WaitForSpace(),),
    ),
    (
        QUEUED,
        HoldRequired(Cause.UNKILLABLE, "stuck"),
        {"phase": S.HOLDING, "why": "stuck"},
        (EndRun(S.HOLDING),),
    ),
    (replace(QUEUED, gpus_wanted=2), STARTED, {}, (LeaseGpus(),)),
    (replace(QUEUED, gpus=("GPU-a",)), STARTED, {"gpus": ()}, (ChooseCheckpoint(400),)),
    (
        replace(QUEUED, gpus_wanted=1, avoid=("GPU-c",), **SPOILS),
        STARTED,
        {},
        (*SET_ASIDE, LeaseGpus(("GPU-c", "GPU-a", "GPU-b"))),
    ),
    (
        replace(QUEUED, gpus_wanted=1, **SPOILS),
        replace(STARTED, rebooted=True),
        {"spoilt": ()},
        (LeaseGpus(),),
    ),
    (replace(QUEUED, **SPOILS), ASIDE, LEFT, ()),
    (
        replace(QUEUED, gpus_wanted=2),
        LEASED,
        {"gpus": ("GPU-a", "GPU-b"), "why": ""},
        (ChooseCheckpoint(400),),
    ),
    (
        replace(QUEUED, gpus_wanted=2, gpus=("GPU-a",)),
        GpusAwaited("none is free"),
        {"gpus": (), "why": "none is free"},
        (),
    ),
    (
        replace(QUEUED, gpus=("GPU-a",)),
        FROM_300,
        NEW_ATTEMPT | {"phase": S.RUNNING, "resumed_step": 300},
        (SpawnAttempt(4, "c300", 300, ("GPU-a",)),),
    ),
    (QUEUED, STOP, {"phase": S.STOPPED}, (EndRun(S.STOPPED),)),
    (RUNNING, STARTED, {"exited": True} | NO_DEADLINES, (RECLAIM,)),
    (RUNNING, REBOOTED, {"exited": True} | NO_DEADLINES, (ReclaimWorker(3, rebooted=True),)),
    (EXITED, STARTED, {}, (RECLAIM,)),
    (HUNG, STARTED, {"exited": True}, (RECLAIM,)),
    (replace(EXITED, **SPOILS), STARTED, {}, (*SET_ASIDE, RECLAIM)),
    (replace(EXITED, **SPOILS), REBOOTED, {"spoilt": ()}, (ReclaimWorker(3, rebooted=True),)),
    (replace(RUNNING, **SPOILS), ASIDE, LEFT, ()),
    (RUNNING, CHANGED, {}, ()),
    (
        UNSPAWNED,
        AttemptSpawned(3, 8, 9),
        {"deadlines": Deadlines(startup=NOW + 10, total=NOW + 100)},
        (),
    ),
    (
        replace(UNSPAWNED, spent_s=30.0),
        AttemptSpawned(3, 8, 9),
        {"deadlines": Deadlines(startup=NOW + 10, total=NOW + 70)},
        (),
    ),
    (replace(RUNNING, progressed=False), ProgressBegan(3), {"progressed": True} | ALIVE, ()),
    (RUNNING, SignSeen(360), {"step": 360} | ALIVE, ()),
    (RUNNING, SignSeen(), ALIVE, ()),
    (EXITED, SignSeen(360), {"step": 360}, ()),
    (HUNG, SignSeen(), {}, ()),
    (OVER_LIMIT, SignSeen(), {}, ()),
    (replace(EXITED, progressed=False), ProgressBegan(3), {"progressed": True}, ()),
    (RUNNING, verified(500), NEWEST | {"saved_step": 500}, ()),
    (RUNNING, verified(400), {"saved_step": 400}, ()),
    (
        replace(RUNNING, avoid=("GPU-c",)),
        verified(500),
        NEWEST | {"saved_step": 500, "avoid": ()},
        (),
    ),
    (RUNNING, verified(300), {}, ()),
    (
        RUNNING,
        passed(DeadlineName.HEARTBEAT),
        {"fired": DeadlineName.HEARTBEAT} | NO_DEADLINES,
        (KILL_HUNG,),
    ),
    (
        RUNNING,
        passed(DeadlineName.STARTUP),
        {"fired": DeadlineName.STARTUP} | NO_DEADLINES,
        (KILL_HUNG,),
    ),
    (
        RUNNING,
        passed(DeadlineName.TOTAL),
        {"fired": DeadlineName.TOTAL, "phase": S.STOPPING, "deadlines": Deadlines(stop=NOW + 5)},
        (StopWorker(),),
    ),
    (
        replace(RUNNING, deadlines=Deadlines(heartbeat=NOW, total=NOW + 70)),
        passed(DeadlineName.HEARTBEAT),
        {"fired": DeadlineName.HEARTBEAT, "deadlines": Deadlines(total=NOW + 70)},
        (KILL_HUNG,),
    ),
    (
        HUNG,  # and while its stacks are saved, its time is up
        passed(DeadlineName.TOTAL),
        {"fired": DeadlineName.TOTAL, "phase": S.STOPPING, "deadlines": Deadlines(stop=NOW + 5)},
        (StopWorker(),),
    ),
    (
        replace(HUNG, deadlines=Deadlines(total=NOW + 70)),
        WorkerRevived(3),
        {"fired": None, "deadlines": Deadlines(heartbeat=NOW + 20, total=NOW + 70)},
        (),
    ),
    (EXITED, passed(DeadlineName.HEARTBEAT), {}, ()),
    (
        RUNNING,
        DeadlinePassed(DeadlineName.HEARTBEAT, 20.0, "and idle"),
        {"fired": DeadlineName.HEARTBEAT, "seen": "and idle"} | NO_DEADLINES,
        (KILL_HUNG,),
    ),
    (
        RUNNING,
        DeadlineDeferred(DeadlineName.HEARTBEAT, 3.0),
        {"deadlines": Deadlines(heartbeat=NOW + 3)},
        (),
    ),
    (RUNNING, DeadlineDeferred(DeadlineName.STARTUP, 3.0), {}, ()),  # it is over
    (EXITED, DeadlineDeferred(DeadlineName.HEARTBEAT, 3.0), {}, ()),
    (HUNG, WorkerRevived(3), {"fired": None, "seen": ""} | ALIVE, ()),
    (EXITED, WorkerRevived(3), {}, ()),
    (RUNNING, LimitExceeded(3, HARD), {"breach": HARD} | NO_DEADLINES, (KILL,)),
    (
        RUNNING,
        LimitExceeded(3, SOFT),
        {"breach": SOFT, "deadlines": Deadlines(stop=NOW + 5)},
        (StopWorker(),),
    ),
    (LEAVING, LimitExceeded(3, SOFT), {}, ()),
    (LEAVING, LimitExceeded(3, HARD), {"breach": HARD} | NO_DEADLINES, (KILL,)),
    (OVER_LIMIT, LimitExceeded(3, HARD), {}, ()),
    (OVER_LIMIT, LimitExceeded(3, SOFT), {}, ()),
    (OVER_LIMIT, GpuTroubleSeen(3, FALLEN), {"troubles": (FALLEN,)}, ()),
    (HUNG, LimitExceeded(3, SOFT), {}, ()),
    (HUNG, LimitExceeded(3, HARD), {"breach": HARD}, (KILL,)),
    (EXITED, LimitExceeded(3, HARD), {}, ()),
    (
        RUNNING,
        GpuTroubleSeen(3, FALLEN),
        {"troubles": (FALLEN,), "deadlines": Deadlines(stop=NOW + 5)},
        (StopWorker(),),
    ),
    (RUNNING, GpuTroubleSeen(3, FAULTY), {"troubles": (FAULTY,)}, ()),
    (HUNG, GpuTroubleSeen(3, FALLEN), {"troubles": (FALLEN,)}, ()),
    (EXITED, GpuTroubleSeen(3, FALLEN), {"troubles": (FALLEN,)}, ()),
    (RUNNING, STOP, GRACE | {"stop_requested": True}, (StopWorker(),)),
    (RUNNING, FORCED, GRACE | {"stop_requested": True}, (KILL,)),
    (EXITED, STOP, {"phase": S.STOPPING}, ()),
    (LEAVING, STOP, GRACE, (StopWorker(),)),
    (SICK, STOP, GRACE, (StopWorker(),)),
    (HUNG, STOP, GRACE, (StopWorker(),)),
    (
        RUNNING,
        WorkerExited(3, 1, None),
        {"exited": True, "exit_code": 1} | NO_DEADLINES,
        (ConcludeAttempt(3),),
    ),
    (
        RUNNING,
        WorkerExited(3, None, 9),
        {"exited": True, "signal": 9} | NO_DEADLINES,
        (ConcludeAttempt(3),),
    ),
    (
        EXITED,
        ended(Action.FINISH, Cause.COMPLETED),
        AFTER | {"phase": S.SUCCEEDED, "why": "completed: why"},
        (EndRun(S.SUCCEEDED),),
    ),
    (EXITED, ended(Action.GIVE_UP), AFTER | {"phase": S.FAILED}, (EndRun(S.FAILED),)),
    (EXITED, ended(Action.HOLD), AFTER | {"phase": S.HOLDING}, (EndRun(S.HOLDING),)),
    (
        EXITED,
        ended(Action.HOLD, Cause.DISK_FULL),
        AFTER | {"phase": S.HOLDING, "why": "disk_full: why"},
        (WaitForSpace(),),
    ),
    (
        EXITED,
        ended(Action.RESUME, counted=True, delay_s=2.0),
        AFTER | {"phase": S.BACKING_OFF, "failures": COUNTED},
        (WaitBackoff(2.0),),
    ),
    (
        EXITED,
        ended(Action.RESUME_FROM_OLDER),
        AFTER | {"phase": S.BACKING_OFF, "ceiling": 300},
        (WaitBackoff(0.0),),
    ),
    (
        replace(EXITED, stop_requested=True),
        ended(Action.FINISH, Cause.STOPPED),
        AFTER | {"phase": S.BACKING_OFF, "why": "stopped: why"},
        (WaitBackoff(0.0),),
    ),
    (
        replace(EXITED, phase=S.STOPPING),  # the stop came after the end
        ended(Action.HOLD, Cause.DISK_FULL),
        AFTER | {"phase": S.STOPPED, "why": "disk_full: why"},
        (EndRun(S.STOPPED),),
    ),
    (STOPPING, STARTED, {"phase": S.RUNNING, "exited": True} | NO_DEADLINES, (RECLAIM,)),
    (replace(STOPPING, **SPOILS), ASIDE, LEFT, ()),
    (STOPPING, CHANGED, {}, ()),
    (STOPPING, AttemptSpawned(3, 8, 9), {"deadlines": Deadlines(stop=NOW + 5)}, (StopWorker(),)),
    (replace(STOPPING, progressed=False), ProgressBegan(3), {"progressed": True}, ()),
    (STOPPING, SignSeen(360), {"step": 360}, ()),
    (STOPPING, verified(500), NEWEST | {"saved_step": 500}, ()),
    (STOPPING, DeadlineDeferred(DeadlineName.HEARTBEAT, 3.0), {}, ()),
    (STOPPING, LimitExceeded(3, SOFT), {}, ()),
    (STOPPING, LimitExceeded(3, HARD), {"breach": HARD} | NO_DEADLINES, (KILL,)),
    (STOPPING, GpuTroubleSeen(3, FALLEN), {"troubles": (FALLEN,)}, ()),
    (STOPPING, passed(DeadlineName.STOP), {"fired": DeadlineName.STOP} | NO_DEADLINES, (KILL,)),
    (TIMED_OUT, passed(DeadlineName.STOP), NO_DEADLINES, (KILL,)),
    (STOPPING, STOP, {}, ()),
    (STOPPING, FORCED, {}, (KILL,)),
    (TIMED_OUT, STOP, {}, ()),
    (replace(STOPPING, exited=True), FORCED, {}, ()),
    (
        STOPPING,
        WorkerExited(3, 0, None),
        {"exited": True, "exit_code": 0} | NO_DEADLINES,
        (ConcludeAttempt(3),),
    ),
    (
        STOPPING,
        ended(Action.FINISH, Cause.STOPPED),
        AFTER | {"phase": S.STOPPED, "why": "stopped: why"},
        (EndRun(S.STOPPED),),
    ),
    (
        STOPPING,
        ended(Action.FINISH, Cause.COMPLETED),
        AFTER | {"phase": S.SUCCEEDED, "why": "completed: why"},
        (EndRun(S.SUCCEEDED),),
    ),
    (
        STOPPING,
        ended(Action.RESUME, counted=True, delay_s=9.0),
        AFTER | {"phase": S.STOPPED, "failures": COUNTED},
        (EndRun(S.STOPPED),),
    ),
    (
        STOPPING,
        ended(Action.RESUME_FROM_OLDER),
        AFTER | {"phase": S.STOPPED, "ceiling": 300},
        (EndRun(S.STOPPED),),
    ),
    (TIMED_OUT, ended(Action.GIVE_UP), AFTER | {"phase": S.FAILED}, (EndRun(S.FAILED),)),
    (STOPPING, ended(Action.HOLD), AFTER | {"phase": S.HOLDING}, (EndRun(S.HOLDING),)),
    (BACKING_OFF, STARTED, {"phase": S.QUEUED}, (ChooseCheckpoint(200),)),
    (BACKING_OFF, CHANGED, {}, ()),
    (replace(BACKING_OFF, **SPOILS), ASIDE, LEFT, ()),
    (
        replace(BACKING_OFF, gpus_wanted=1, gpus=("GPU-a",), **SPOILS),
        BackoffElapsed(),
        {"phase": S.QUEUED, "gpus": ()},
        (LeaseGpus(("GPU-a", "GPU-b")),),
    ),
    (BACKING_OFF, verified(150), {}, ()),
    (BACKING_OFF, BackoffElapsed(), {"phase": S.QUEUED}, (ChooseCheckpoint(200),)),
    (BACKING_OFF, STOP, {"phase": S.STOPPED}, (EndRun(S.STOPPED),)),
    (STOPPED, STARTED, {"phase": S.QUEUED}, (ChooseCheckpoint(200),)),
    (
        replace(STOPPED, gpus_wanted=1, avoid=("GPU-c",)),
        STARTED,
        {"phase": S.QUEUED, "avoid": ()},
        (LeaseGpus(),),
    ),
    (replace(STOPPED, **SPOILS), ASIDE, LEFT, ()),
    (STOPPED, CHANGED, {}, ()),
    (HOLDING, STARTED, {"phase": S.QUEUED, "failures": (), "why": ""}, (ChooseCheckpoint(None),)),
    (
        replace(HOLDING, gpus_wanted=1, avoid=("GPU-c",), **SPOILS),
        STARTED,
        {"phase": S.QUEUED, "failures": (), "why": "", "avoid": ()},
        (*SET_ASIDE, LeaseGpus(("GPU-a", "GPU-b"))),
    ),
    (replace(HOLDING, **SPOILS), ASIDE, LEFT, ()),
    (HOLDING, CHANGED, {}, ()),
    (HOLDING, SpaceReturned(), {"phase": S.QUEUED}, (ChooseCheckpoint(None),)),
    (HOLDING, STOP, {"phase": S.STOPPED}, (EndRun(S.STOPPED),)),
    (FAILED, STARTED, {"phase": S.QUEUED, "failures": (), "why": ""}, (ChooseCheckpoint(None),)),
    (replace(FAILED, **SPOILS), ASIDE, LEFT, ()),
    (FAILED, CHANGED, {}, ()),
    (replace(SUCCEEDED, **SPOILS), ASIDE, LEFT, ()),
    (
        replace(SUCCEEDED, avoid=("GPU-c",)),
        CHANGED,
        {"phase": S.QUEUED, "failures": (), "avoid": ()},
        (),
    ),
]  # fmt: skip -- one row of the table a case
