"""Makes v1.sqlite, the journal of schema version 1, and v1.json, what it must read as for ever.

    python tests/golden/journal/make_v1.py

Both files are committed and never made again for version 1: a newer program that cannot read them
cannot read its users' journals either. A new schema version gets a script and files of its own.
"""

import json
import time
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

from supervisor.core.causes import Action, Cause
from supervisor.core.deadlines import Deadlines
from supervisor.core.events import (
    AttemptEnded,
    AttemptSpawned,
    BackoffElapsed,
    CheckpointChosen,
    CheckpointVerified,
    DeadlinePassed,
    Event,
    HoldRequired,
    ProgressBegan,
    RejectedCheckpoint,
    RunnerStarted,
    SpecChanged,
    StopRequested,
    WorkerExited,
)
from supervisor.core.evidence import DeadlineName, Evidence, SpawnError
from supervisor.core.machine import step
from supervisor.core.signatures import RootError
from supervisor.core.state import JobState
from supervisor.journal import JobRecord, Journal

HERE = Path(__file__).parent
BEGAN_S = 1_700_000_000.0
OOM = RootError("cuda_oom", Cause.CUDA_OOM, "CUDA out of memory", "a smaller batch")


def verified(at: int) -> CheckpointVerified:
    """A checkpoint that verified, and of which we have a copy."""
    path = f"out/ckpt-{at}.pt"
    return CheckpointVerified(at, path, "torch_zip", "crc", 4096, BEGAN_S + at, pinned=True)


def ended(number: int, cause: Cause, action: Action, seen: Evidence) -> AttemptEnded:
    """The end of an attempt, with a decision."""
    counted = action in {Action.RESUME, Action.RESUME_FROM_OLDER}
    delay_s = 1.5 if counted else 0.0
    return AttemptEnded(
        number,
        cause,
        f"why {number}",
        action,
        f"therefore {number}",
        delay_s,
        counted,
        60.25,
        BEGAN_S + 100 * number,
        seen,
    )  # fmt: skip -- one record


STORY: list[Event] = [
    RunnerStarted(101, 5001, "boot-1"),
    CheckpointChosen(None, None),
    AttemptSpawned(1, 111, 5011),
    ProgressBegan(1),
    verified(10),
    verified(20),
    WorkerExited(1, 1, None),
    ended(1, Cause.CUDA_OOM, Action.RESUME, Evidence(exit_code=1, step=27, root_error=OOM)),
    BackoffElapsed(),
    CheckpointChosen(
        "out/ckpt-10.pt",
        10,
        2,
        restored=True,
        rejected=(RejectedCheckpoint("out/ckpt-20.pt", 20, "truncated", "out/.set-aside/20"),),
        written_at_s=BEGAN_S + 10,
    ),
    AttemptSpawned(2, 112, 5012),
    DeadlinePassed(DeadlineName.STARTUP, 600.0),
    WorkerExited(2, None, 9),
    ended(
        2,
        Cause.STARTUP_TIMEOUT,
        Action.RESUME_FROM_OLDER,
        Evidence(signal=9, deadline=DeadlineName.STARTUP, deadline_s=600.0, resumed_step=10),
    ),
    BackoffElapsed(),
    HoldRequired(Cause.DISK_FULL, "no space for the copy of the checkpoint"),
    SpecChanged(("lr: 0.1 -> 0.01",)),
    RunnerStarted(102, 5002, "boot-2", rebooted=True),
    CheckpointChosen("out/ckpt-5.pt", 5, 3, written_at_s=BEGAN_S + 5),
    AttemptSpawned(3, 113, 5013),
    ProgressBegan(3),
    StopRequested("Ctrl-C"),
    StopRequested("Ctrl-C", forced=True),
    WorkerExited(3, None, 15),
    ended(3, Cause.STOPPED, Action.FINISH, Evidence(signal=15, stop_requested=True, step=8)),
    RunnerStarted(103, 5003, "boot-2"),
    CheckpointChosen("out/ckpt-5.pt", 5, 3, written_at_s=BEGAN_S + 5),
    ended(
        4,
        Cause.SPAWN_FAILED,
        Action.GIVE_UP,
        Evidence(spawn_error=SpawnError("exec", 2, "no such file"), survivors=(7, 8), oom_kills=1),
    ),
    RunnerStarted(104, 5004, "boot-2"),
    CheckpointChosen("out/ckpt-5.pt", 5, 3, written_at_s=BEGAN_S + 5),
    AttemptSpawned(5, 115, 5015),
    ProgressBegan(5),
    verified(40),
    WorkerExited(5, 0, None),
    ended(
        5,
        Cause.COMPLETED,
        Action.FINISH,
        Evidence(exit_code=0, step=40, done=True, done_detail="step 40 of 40", progressed=True),
    ),
]  # fmt: skip -- one event a line, where it fits


def job(name: str) -> JobRecord:
    """A job as it is accepted."""
    return JobRecord(
        id=f"{name}-0a1b2c",
        name=name,
        folder="/home/u/job",
        spec='{"name": "x"}',
        created_s=BEGAN_S,
        updated_s=BEGAN_S,
        state="queued",
        why="",
        step=None,
        total=None,
        runner_pid=None,
        runner_ticks=None,
        boot_id=None,
    )  # fmt: skip -- one record


def reading(journal: Journal, job_id: str) -> dict[str, object]:
    """All that reading verbs see of a job, and the state that a runner replays."""
    state, phases = JobState(), []
    for event in journal.replay(job_id):
        state, _ = step(state, event, 0.0)
        phases.append(state.phase)
    return {
        "phases": phases,
        "state": asdict(state) | {"deadlines": asdict(Deadlines())},
        "job": asdict(journal.job(job_id)),  # type: ignore[arg-type] -- it is there
        "attempts": [asdict(one) for one in journal.attempts(job_id)],
        "checkpoints": [asdict(one) for one in journal.checkpoints(job_id)],
        "events": [[one.seq, one.at_s, one.kind] for one in journal.events(job_id)],
    }


def write(journal: Journal) -> None:
    """Fill the journal with the story, one second an event."""
    ticks = iter(range(10_000))
    with mock.patch.object(time, "time", side_effect=lambda: BEGAN_S + next(ticks)):
        for name in ("digits", "idle"):
            journal.create_job(job(name))
        state = JobState()
        for event in STORY:
            state, _ = step(state, event, 0.0)
            spec = '{"name": "x", "lr": 0.01}' if isinstance(event, SpecChanged) else None
            journal.append("digits-0a1b2c", event, state, spec)
        journal.show_progress("digits-0a1b2c", 40, 41)
        journal.remember("digits-0a1b2c", "out/ckpt-40.pt", "f1", '{"ok": true}')


def main() -> None:
    """Write both files beside this one."""
    with TemporaryDirectory() as folder:
        journal = Journal.open(Path(folder))
        write(journal)
        expected = reading(journal, "digits-0a1b2c")
        journal.close()  # the last one out moves the write-ahead log into the file
        (HERE / "v1.sqlite").write_bytes((Path(folder) / "journal.sqlite").read_bytes())
    text = json.dumps(expected, indent=1)
    (HERE / "v1.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
