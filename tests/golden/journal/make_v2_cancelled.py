"""Makes v2-cancelled.sqlite, a journal of schema version 2 of a job that its owner ended.

    python -m tests.golden.journal.make_v2_cancelled

It holds what came after `make_v2_train`: JobCancelled, of a job whose GPU was spoilt. Both files
are committed and never made again, as those beside it.
"""

import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

from supervisor.core.causes import Action, Cause
from supervisor.core.events import (
    AttemptSpawned,
    CheckpointChosen,
    Event,
    GpusLeased,
    GpusSetAside,
    JobCancelled,
    ProgressBegan,
    RunnerStarted,
    StopRequested,
    WorkerExited,
)
from supervisor.core.evidence import Evidence
from supervisor.core.gpu import xid_trouble
from supervisor.core.machine import step
from supervisor.core.state import JobState
from supervisor.journal import Journal
from tests.golden.journal.make_v1 import BEGAN_S, ended, job, reading, verified

HERE = Path(__file__).parent
JOB = "digits-0a1b2c"
FALLEN = xid_trouble("GPU-a", 79, BEGAN_S)

STORY: list[Event] = [
    RunnerStarted(101, 5001, "boot-1"),
    GpusLeased(("GPU-a",)),
    CheckpointChosen(None, None),
    AttemptSpawned(1, 111, 5011),
    ProgressBegan(1),
    verified(40),
    StopRequested("SIGTERM"),
    WorkerExited(1, None, 9),
    ended(
        1,
        Cause.GPU_HARDWARE,
        Action.FINISH,
        Evidence(signal=9, step=41, gpus=("GPU-a",), gpu_troubles=(FALLEN,)),
    ),
    JobCancelled("supervise cancel by anna"),
    GpusSetAside(("GPU-a",)),
]


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
        journal.remember(JOB, "out/ckpt-40.pt", "f1", '{"ok": true}')


def main() -> None:
    """Write both files beside this one."""
    with TemporaryDirectory() as folder:
        journal = Journal.open(Path(folder))
        write(journal)
        expected = reading(journal, JOB)
        journal.close()  # the last one out moves the write-ahead log into the file
        (HERE / "v2-cancelled.sqlite").write_bytes((Path(folder) / "journal.sqlite").read_bytes())
    text = json.dumps(expected, indent=1)
    (HERE / "v2-cancelled.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
