"""Entries, submissions and a taker of GPUs for the tests of the queue."""

from dataclasses import replace
from typing import Any

from supervisor.core.causes import State
from supervisor.queue.model import Entry, Needs, Phase, Wish
from supervisor.queue.plan import Capacity, OutOfReach, Situation
from supervisor.queue.store import Submitted

NOW_S = 1_700_000_000.0
GIB = 1 << 30
SPEC = '{"name": "train", "command": ["true"]}'
SURROUNDINGS = '{"env": {"HOME": "/home/ann"}, "umask": 18, "limits": {}}'

FULL = {
    "priority": -3,
    "after": ("prep-1a2b3c", "fetch-0d0d0d"),
    "key": "nightly ünï \U0001f600",
    "group": "sweep",
    "claims": ("/data/runs/1", "/data/out"),
    "stop_s": 12.5,
    "phase": Phase.ENDED,
    "wish": Wish.CANCEL,
    "state": State.HOLDING,
    "why": "the disk is full",
    "placed_s": NOW_S + 2.25,
    "ended_s": NOW_S + 3.5,
    "launches": 4,
    "lost": 2,
    "boot_id": "0b0b-1c1c",
}


def entry(seq: int = 1, needs: Needs | None = None, **fields: Any) -> Entry:
    """A job called `job-SEQ`, submitted `seq` seconds after NOW_S if nothing else is said."""
    given = {"id": f"job-{seq}", "name": "job", "folder": "/data", "uid": 1000}
    given |= {"submitted_s": NOW_S + seq, "queued_s": NOW_S + seq} | fields
    return Entry(seq=seq, needs=needs or Needs(), **given)


def full_entry(seq: int = 7) -> Entry:
    """An entry each of whose fields has a value other than its default."""
    needs = Needs(2, 20 * GIB, share_gpu=True, cpus=8, memory_bytes=32 * GIB)
    return entry(seq, needs, **FULL)


def submitted(seq: int = 1, **fields: Any) -> Submitted:
    """A submission of that job."""
    return Submitted(entry(seq, **fields), SPEC, SURROUNDINGS)


class Cards:
    """GPUs without memory: `free` of so many, some of which may be out of reach for now."""

    def __init__(self, free: int, broken: int = 0) -> None:
        self.free = [f"GPU-{number}" for number in range(free)]
        self.broken = broken
        self.total = free
        self.asked = 0

    def holding(self, count: int) -> "Cards":
        """So many are with jobs that run."""
        self.free = self.free[count:]
        return self

    def take(self, needs: Needs) -> tuple[str, ...] | str:
        """Give them in order."""
        self.asked += 1
        if needs.gpus > self.total - self.broken:
            return OutOfReach(f"{self.broken} of {self.total} are broken")
        if needs.gpus > len(self.free) - self.broken:
            return f"only {max(0, len(self.free) - self.broken)} of {self.total} is free"
        given, self.free = tuple(self.free[: needs.gpus]), self.free[needs.gpus :]
        return given


def situation(*waiting: Entry, **fields: Any) -> Situation:
    """These wait on a host of 16 cores and 64 GiB, an hour before anybody loses patience."""
    given: dict[str, Any] = {
        "started": (),
        "states": {},
        "held_groups": frozenset(),
        "capacity": Capacity(16, 64 * GIB),
        "now_s": NOW_S,
    }
    return Situation(waiting=waiting, **(given | fields))


def started(one: Entry) -> Entry:
    """The same, running."""
    return replace(one, phase=Phase.STARTED)
