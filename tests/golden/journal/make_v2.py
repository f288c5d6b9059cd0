"""Makes v2.sqlite, a journal of schema version 2 with a batch job in it, and v2.json.

    python -m tests.golden.journal.make_v2

Version 2 brought the ledger of items. Both files are committed and never made again, as those
beside it.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
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
from supervisor.core.evidence import Evidence
from supervisor.core.item_events import (
    ItemQuarantined,
    ItemsPlanned,
    ItemsRequeued,
    ItemsSuspected,
    WorkerReplaced,
)
from supervisor.core.machine import step
from supervisor.core.state import JobState
from supervisor.journal import Journal
from supervisor.journal.items import Ledger
from tests.golden.journal.make_v1 import BEGAN_S, ended, job
from tests.golden.journal.make_v1 import reading as reading_v1

HERE = Path(__file__).parent
JOB = "digits-0a1b2c"
PHOTOS = ['"a.jpg"', '"b \\"q\\".jpg"', '"c-\\udce9.jpg"', '{"row":4}', '"e.jpg"', '"f.jpg"', "7"]
KILLED = "killed by signal 11 (SIGSEGV)"
TRACEBACK = "Traceback (most recent call last):\n  ...\nValueError: no image"

Deed = Callable[[Ledger], None]  # what is no event: items are planned and settled in the ledger


def plan(*items: str) -> Deed:
    """Read a source with these items, to its end."""

    def deed(ledger: Ledger) -> None:
        for _ in ledger.plan(items):
            pass

    return deed


def settle(results_bytes: int, *numbers: int) -> Deed:
    """Acknowledge items."""

    def deed(ledger: Ledger) -> None:
        ledger.settle(numbers, results_bytes)

    return deed


STORY: list[Event | Deed] = [
    RunnerStarted(101, 5001, "boot-1"),
    plan(*PHOTOS, PHOTOS[0]),
    ItemsPlanned(7, 7, 0, 1, 7),
    CheckpointChosen(None, None),
    AttemptSpawned(1, 111, 5011),
    ProgressBegan(1),
    settle(100, 1),
    ItemsSuspected(1, 1, (2, 3), Cause.SIGNAL, KILLED),
    WorkerReplaced(1, 1, Cause.SIGNAL, KILLED, 1, 2.5),
    settle(160, 3),
    ItemQuarantined(1, 3, 2, Cause.SIGNAL, KILLED, "the end of its log"),
    ItemQuarantined(1, 3, 4, Cause.EXIT_CODE, "ValueError: no image", TRACEBACK),
    WorkerReplaced(1, 3, Cause.GPU_MEMORY_LIMIT, "grew by 1 GiB", 9, 60.0, 1 << 20, 1 << 30),
    ItemsSuspected(1, 4, (5,), Cause.HANG, "no sign for 60 s"),
    WorkerExited(1, 1, None),
    ended(
        1,
        Cause.BAD_CONFIG,
        Action.RESUME,
        Evidence(exit_code=1, nothing_works="nothing worked yet", items_quarantined=2),
    ),
    BackoffElapsed(),
    CheckpointChosen(None, None),
    AttemptSpawned(2, 112, 5012),
    ProgressBegan(2),
    settle(200, 5),
    WorkerExited(2, 0, None),
    ended(
        2,
        Cause.POISON_ITEM,
        Action.HOLD,
        Evidence(exit_code=0, items_done=1, items_quarantined=2, done=False, done_detail="5 of 7"),
    ),
    ItemsRequeued((4,), "supervise retry"),
    RunnerStarted(102, 5002, "boot-1"),
    plan(*PHOTOS[:6], '"g.jpg"'),
    ItemsPlanned(7, 1, 1, 0, 3, quarantined=1),
]  # fmt: skip -- one event a line, where it fits


def reading(journal: Journal, job_id: str) -> dict[str, object]:
    """All that reading verbs see of a batch job."""
    ledger = journal.ledger(job_id)
    counts = ledger.counts()
    return reading_v1(journal, job_id) | {
        "ledger": {
            "counts": asdict(counts),
            "todo": ledger.todo(),
            "suspects": ledger.suspects(),
            "texts": ledger.texts(range(1, counts.total + counts.gone + 1)),
            "results_bytes": ledger.results_bytes(),
            "quarantined": [asdict(one) for one in ledger.quarantined()],
            "found": ledger.find([PHOTOS[2], '"g.jpg"', '"h.jpg"']),
        }
    }


def write(journal: Journal) -> None:
    """Fill the journal with the story, one second an event."""
    ticks = iter(range(10_000))
    with mock.patch.object(time, "time", side_effect=lambda: BEGAN_S + next(ticks)):
        for name in ("digits", "idle"):
            journal.create_job(job(name))
        state = JobState()
        for one in STORY:
            if isinstance(one, Event):
                state, _ = step(state, one, 0.0)
                journal.append(JOB, one, state)
            else:
                one(journal.ledger(JOB))
        journal.show_progress(JOB, 40, 41)
        journal.remember(JOB, "out/ckpt-40.pt", "f1", '{"ok": true}')


def main() -> None:
    """Write both files beside this one."""
    with TemporaryDirectory() as folder:
        journal = Journal.open(Path(folder))
        write(journal)
        expected = reading(journal, JOB)
        journal.close()  # the last one out moves the write-ahead log into the file
        (HERE / "v2.sqlite").write_bytes((Path(folder) / "journal.sqlite").read_bytes())
    text = json.dumps(expected, indent=1)
    (HERE / "v2.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
