"""Makes v1.sqlite, a queue of schema version 1 with every field filled, and v1.json.

    python -m tests.golden.queue.make_v1

Both files are committed and never made again: they are what users have on their disks.
"""

import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from supervisor.queue.model import Group, Phase
from supervisor.queue.store import Queue
from tests.unit.queue_entries import NOW_S, full_entry, submitted

HERE = Path(__file__).parent


def write(queue: Queue) -> None:
    """Four jobs on their ways, one forgotten, two groups; one second a happening."""
    ticks = iter(range(10_000))
    with mock.patch.object(time, "time", side_effect=lambda: NOW_S + next(ticks)):
        queue.add([submitted(1), submitted(2, after=("job-1",))])
        queue.add([submitted(3, key="nightly"), submitted(4)])
        queue.shelved(["job-1", "job-2"])
        placed = replace(submitted(1).entry, phase=Phase.STARTED, placed_s=NOW_S + 9, launches=1)
        queue.change(placed, "Placed", gpus=["GPU-1"])
        queue.change(full_entry(7), "Ended", by=1000, why="the disk is full")
        queue.forget(["job-4"])
        held = Group(uid=1000, name="sweep", hold_after=3, failures=3, held=True)
        queue.change_group(held, "GroupHeld", failures=3)
        queue.change_group(Group(uid=0, name="plain"), "GroupSet")


def reading(queue: Queue) -> Any:
    """What it must read as, for ever."""
    return {
        "entries": [asdict(one) for one in queue.entries()],
        "unshelved": [asdict(one) for one in queue.unshelved()],
        "groups": [asdict(one) for one in queue.groups()],
        "happenings": [asdict(one) for one in queue.happenings()],
        "next_seq": queue.next_seq(),
    }


def main() -> None:
    """Write both files beside this one."""
    with TemporaryDirectory() as folder:
        queue = Queue.open(Path(folder))
        write(queue)
        expected = reading(queue)
        queue.close()  # the last one out moves the write-ahead log into the file
        (HERE / "v1.sqlite").write_bytes((Path(folder) / "queue.sqlite").read_bytes())
    text = json.dumps(expected, indent=1)
    (HERE / "v1.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
