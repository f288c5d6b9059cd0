"""Makes v1-gpus.sqlite, a journal of schema version 1 of a job that held GPUs, and v1-gpus.json.

    python -m tests.golden.journal.make_v1_gpus

It holds the events that came after `make_v1`: leases, limits, troubles, a worker that was revived,
a full disk that emptied itself. Both files are committed and never made again, as those beside it.
"""

import json
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

from supervisor.core.causes import Action, Cause
from supervisor.core.events import (
    AttemptEnded,
    AttemptSpawned,
    BackoffElapsed,
    CheckpointChosen,
    DeadlinePassed,
    Event,
    GpusAwaited,
    GpusLeased,
    GpusSetAside,
    GpuTroubleSeen,
    HoldRequired,
    LimitExceeded,
    ProgressBegan,
    RefusedGpu,
    RunnerStarted,
    SpaceReturned,
    WorkerExited,
    WorkerRevived,
)
from supervisor.core.evidence import Breach, DeadlineName, Evidence, GpuUse, Limit, Oom
from supervisor.core.gpu import GpuTrouble, Severity, TroubleKind
from supervisor.core.machine import step
from supervisor.core.state import JobState
from supervisor.journal import Journal
from tests.golden.journal.make_v1 import BEGAN_S, ended, job, reading, verified

HERE = Path(__file__).parent
JOB = "digits-0a1b2c"
GIB = 1 << 30
SOFT = Breach(Limit.GPU_MEMORY_SOFT, 19 * GIB, 18 * GIB, "GPU 0 (NVIDIA H200)")
HARD = Breach(Limit.GPU_MEMORY, 21 * GIB, 20 * GIB, "GPU 0 (NVIDIA H200)")
FALLEN = GpuTrouble(
    "GPU-a", TroubleKind.XID, 79, "Xid 79: the GPU has fallen off the bus", Severity.AVOID, BEGAN_S
)
SILENT = GpuTrouble(
    "GPU-b", TroubleKind.DRIVER_HUNG, None, "no answer in 10 s", Severity.AVOID, BEGAN_S + 9
)
SEEN = "no output and no checkpoint for 1800 s, and idle: CPU 0.1 % of a core, no I/O"
CURVE = (GpuUse(2.0, GIB), GpuUse(4.0, 19 * GIB))


COUNTED = {Action.RESUME, Action.RETRY_OTHER_GPU}


def leased(number: int, cause: Cause, action: Action, seen: Evidence) -> AttemptEnded:
    """The end of an attempt; to try another GPU is counted, too, and a lost runner is not."""
    event = ended(number, cause, action, seen)
    lost = seen.runner_lost or seen.host_rebooted
    return replace(event, counted=event.action in COUNTED and not lost)


STORY: list[Event] = [
    RunnerStarted(101, 5001, "boot-1"),
    GpusAwaited("1 GPU is wanted, none is free", (RefusedGpu("GPU-a", "leased by job x"),)),
    GpusLeased(("GPU-a",), waited_s=12.5),
    CheckpointChosen(None, None),
    AttemptSpawned(1, 111, 5011),
    ProgressBegan(1),
    verified(10),
    LimitExceeded(1, SOFT),
    verified(12),
    WorkerExited(1, 0, None),
    leased(
        1,
        Cause.GPU_MEMORY_LIMIT,
        Action.RESUME,
        Evidence(exit_code=0, breach=SOFT, gpus=("GPU-a",), gpu_curve=CURVE, step=12, done=False),
    ),
    BackoffElapsed(),
    GpusLeased(("GPU-a",)),
    CheckpointChosen("out/ckpt-12.pt", 12, 2, written_at_s=BEGAN_S + 12),
    AttemptSpawned(2, 112, 5012),
    ProgressBegan(2),
    GpuTroubleSeen(2, FALLEN),
    WorkerExited(2, 1, None),
    leased(
        2,
        Cause.GPU_HARDWARE,
        Action.RETRY_OTHER_GPU,
        Evidence(
            exit_code=1,
            gpus=("GPU-a",),
            gpu_troubles=(FALLEN,),
            error_line="RuntimeError: unspecified launch failure",
            step=13,
            resumed_step=12,
            checkpoint_step=12,
        ),
    ),
    GpusSetAside(("GPU-a",)),
    BackoffElapsed(),
    GpusLeased(("GPU-b",), (RefusedGpu("GPU-a", "set aside: Xid 79"),)),
    CheckpointChosen("out/ckpt-12.pt", 12, 2, written_at_s=BEGAN_S + 12),
    AttemptSpawned(3, 113, 5013),
    DeadlinePassed(DeadlineName.STARTUP, 600.0, SEEN),
    WorkerRevived(3),
    ProgressBegan(3),
    DeadlinePassed(DeadlineName.HEARTBEAT, 1800.0, SEEN),
    WorkerExited(3, None, 9),
    leased(
        3,
        Cause.HANG,
        Action.RESUME,
        Evidence(
            signal=9,
            deadline=DeadlineName.HEARTBEAT,
            deadline_s=1800.0,
            hang=SEEN,
            gpus=("GPU-b",),
            gpu_troubles=(SILENT,),
            resumed_step=12,
        ),
    ),
    RunnerStarted(102, 5002, "boot-1"),
    GpusSetAside(("GPU-b",)),
    GpusLeased(("GPU-c",)),
    HoldRequired(Cause.DISK_FULL, "no space for the copy of the checkpoint"),
    SpaceReturned(),
    GpusLeased(("GPU-c",)),
    CheckpointChosen("out/ckpt-12.pt", 12, 2, written_at_s=BEGAN_S + 12),
    AttemptSpawned(4, 114, 5014),
    LimitExceeded(4, HARD),
    WorkerExited(4, None, 9),
    leased(
        4,
        Cause.GPU_MEMORY_LIMIT,
        Action.RESUME,
        Evidence(
            signal=9,
            breach=HARD,
            oom=Oom(2, of_limit=True, source="cgroup v2", limit_bytes=GIB, peak_bytes=GIB),
            gpus=("GPU-c",),
            no_room="/data: 0 bytes are free",
            resumed_step=12,
        ),
    ),
    BackoffElapsed(),
    GpusLeased(("GPU-c",)),
    CheckpointChosen("out/ckpt-12.pt", 12, 2, written_at_s=BEGAN_S + 12),
    AttemptSpawned(5, 115, 5015),
    RunnerStarted(103, 5003, "boot-2", rebooted=True),
    leased(5, Cause.HOST_REBOOTED, Action.RESUME, Evidence(host_rebooted=True, resumed_step=12)),
    BackoffElapsed(),
    GpusLeased(("GPU-a",)),
    CheckpointChosen("out/ckpt-12.pt", 12, 2, written_at_s=BEGAN_S + 12),
    RunnerStarted(104, 5004, "boot-2"),
    leased(6, Cause.RUNNER_LOST, Action.RESUME, Evidence(runner_lost=True, resumed_step=12)),
    BackoffElapsed(),
    GpusLeased(("GPU-a",)),
    CheckpointChosen("out/ckpt-12.pt", 12, 2, written_at_s=BEGAN_S + 12),
    AttemptSpawned(7, 117, 5017),
    ProgressBegan(7),
    verified(40),
    WorkerExited(7, 0, None),
    leased(
        7,
        Cause.COMPLETED,
        Action.FINISH,
        Evidence(exit_code=0, gpus=("GPU-a",), step=40, done=True, done_detail="step 40 of 40"),
    ),
]  # fmt: skip -- one event a line, where it fits


def write(journal: Journal) -> None:
    """Fill the journal with the story, one second an event."""
    ticks = iter(range(10_000))
    with mock.patch.object(time, "time", side_effect=lambda: BEGAN_S + next(ticks)):
        for name in ("digits", "idle"):
            journal.create_job(job(name))
        state = JobState()
        for event in STORY:
            state, _ = step(state, event, 0.0)
            journal.append(JOB, event, state)
        journal.show_progress(JOB, 40, 41)
        journal.remember(JOB, "out/ckpt-40.pt", "f1", '{"ok": true}')


def main() -> None:
    """Write both files beside this one."""
    with TemporaryDirectory() as folder:
        journal = Journal.open(Path(folder))
        write(journal)
        expected = reading(journal, JOB)
        journal.close()  # the last one out moves the write-ahead log into the file
        (HERE / "v1-gpus.sqlite").write_bytes((Path(folder) / "journal.sqlite").read_bytes())
    text = json.dumps(expected, indent=1)
    (HERE / "v1-gpus.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
