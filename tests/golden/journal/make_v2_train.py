"""Makes v2-train.sqlite, a journal of schema version 2 of a training, and v2-train.json.

    python -m tests.golden.journal.make_v2_train

It holds what came after `make_v2`: checkpoints of two tiers, and the worker's own report of what it
died of. Both files are committed and never made again, as those beside it.
"""

import json
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

from supervisor.core.causes import Action, Cause
from supervisor.core.events import (
    AttemptSpawned,
    BackoffElapsed,
    CheckpointChosen,
    Event,
    ProgressBegan,
    RunnerStarted,
    WorkerExited,
)
from supervisor.core.evidence import ErrorReport, Evidence
from supervisor.core.machine import step
from supervisor.core.state import JobState
from supervisor.journal import Journal
from tests.golden.journal.make_v1 import BEGAN_S, ended, job, reading, verified

HERE = Path(__file__).parent
JOB = "digits-0a1b2c"
SNAPSHOT = "/dev/shm/supervise-0/digits/step-000000012"
SICK = ErrorReport(
    "non_finite",
    "workers.train.errors.TrainingError",
    "the loss of step 20 is nan",
    step=20,
    rank=1,
    details=(("indices", "[3, 14, 15]"),),
)

STORY: list[Event] = [
    RunnerStarted(101, 5001, "boot-1"),
    CheckpointChosen(None, None),
    AttemptSpawned(1, 111, 5011),
    ProgressBegan(1),
    verified(10),
    replace(verified(12), path=SNAPSHOT, tier="memory", pinned=False),
    WorkerExited(1, None, 9),
    ended(1, Cause.SIGNAL, Action.RESUME, Evidence(signal=9, step=13, checkpoint_step=12)),
    BackoffElapsed(),
    CheckpointChosen(SNAPSHOT, 12, 2, written_at_s=BEGAN_S + 12, tier="memory"),
    AttemptSpawned(2, 112, 5012),
    ProgressBegan(2),
    WorkerExited(2, 1, None),
    ended(
        2,
        Cause.NON_FINITE,
        Action.RESUME_FROM_OLDER,
        Evidence(exit_code=1, report=SICK, step=20, resumed_step=12, checkpoint_step=12),
    ),
    BackoffElapsed(),
    CheckpointChosen("out/ckpt-10.pt", 10, 2, written_at_s=BEGAN_S + 10),
    AttemptSpawned(3, 113, 5013),
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
        journal.show_progress(JOB, 40, 41)
        journal.remember(JOB, "out/ckpt-40.pt", "f1", '{"ok": true}')


def main() -> None:
    """Write both files beside this one."""
    with TemporaryDirectory() as folder:
        journal = Journal.open(Path(folder))
        write(journal)
        expected = reading(journal, JOB)
        journal.close()  # the last one out moves the write-ahead log into the file
        (HERE / "v2-train.sqlite").write_bytes((Path(folder) / "journal.sqlite").read_bytes())
    text = json.dumps(expected, indent=1)
    (HERE / "v2-train.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
