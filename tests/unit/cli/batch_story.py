"""A batch job with a history: poison, a suspect, a leak, and items that are left.

Owns the story that the tests of the batch verbs are told.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from supervisor.core.causes import Action, Cause
from supervisor.core.events import Event
from supervisor.core.item_events import (
    ItemQuarantined,
    ItemsPlanned,
    ItemsSuspected,
    WorkerReplaced,
)
from workers.protocol import canonical

MIB = 1024**2
MAP = {"entry": "pkg:measure", "items": "photos/*.jpg", "out": "out/", "batch": None}


def name(number: int) -> str:
    """The item of a number."""
    return f"photos/{number:03}.jpg"


def batch_job(new_job: Callable[..., Any], items: int = 10, **more: object) -> Any:
    """A job over some photos, planned and not begun."""
    story = new_job("sizes-3fa2c1", name="sizes", command=None, map=MAP, cwd=".", **more)
    ledger = story.journal.ledger(story.id)
    for _ in ledger.plan(canonical(name(one)) for one in range(1, items + 1)):
        pass
    return story.at(0).runner().saw(ItemsPlanned(items, items, 0, 0, items))


def poisoned(new_job: Callable[..., Any], aside: int = 2, items: int = 10) -> Any:
    """The last `aside` items kill their workers; the job holds, and all others are done."""
    story = batch_job(new_job, items).begins(41)
    first = items - aside + 1
    story.at(3).saw(suspected(first, items))
    for one in range(first, items + 1):
        story.at(4).saw(suspected(one, one), quarantined(one))
    story.at(5).saw(replaced())
    story.journal.ledger(story.id).settle(range(1, first), 100)
    story.journal.show_progress(story.id, first - 1, items)
    story.at(8).exits(code=0)
    return story.ends(
        Cause.POISON_ITEM,
        f"{aside} of {items} items are quarantined",
        action=Action.HOLD,
        words="a person is needed",
        exit_code=0,
        items_done=first - 1,
        items_quarantined=aside,
        ran_s=8.0,
    )


def suspected(first: int, last: int) -> Event:
    """A call with these items failed."""
    return ItemsSuspected(
        1, 1, tuple(range(first, last + 1)), Cause.SIGNAL, "killed by SIGSEGV (core dumped)"
    )


def quarantined(number: int) -> Event:
    """An item failed alone."""
    detail = 'Traceback:\n  File "m.py", line 3\nFatal Python error: Segmentation fault\n'
    return ItemQuarantined(1, 4, number, Cause.SIGNAL, "killed by SIGSEGV", detail)


def replaced(worker: int = 2, host: int = 64 * MIB) -> Event:
    """A worker leaked, and was replaced in time."""
    reason = "its host memory grew by 64.0 MiB over 32 items"
    return WorkerReplaced(1, worker, Cause.COMPLETED, reason, 32, 2.5, host, 0)


def outputs(story: Any) -> Path:
    """The files that the job has written, as far as verbs look for them."""
    out = Path(story.folder) / "out"
    out.mkdir(parents=True)
    (out / "results.jsonl").write_text(json.dumps({"item": name(1), "result": 1}) + "\n")
    return out
