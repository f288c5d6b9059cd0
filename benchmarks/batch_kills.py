"""SIGKILL at random moments to the workers and runners of a job of many small items: who is lost.

A kill comes when a given number of calls have begun, counted by the calls themselves; the numbers,
and what is killed, come from a seed. A dead runner is started again by the same command. At the end
every item must have one line of results and one whole output file, and be quarantined by no kill
from outside. Ends only what the job's own runner started.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.batch_items import CALL, whole
from benchmarks.figures import MET
from benchmarks.sessions import below
from benchmarks.supervised import Job
from benchmarks.table import Cell, Promise, Table, show

ITEMS, KILLS = 5000, 1000
QUICK_ITEMS, QUICK_KILLS = 500, 50
RUNNERS_SHARE = 0.1
WORK_S = 0.001
AFTER_S = 0.02  # at most so long after the call that makes a kill due
LIMIT_S = 1800.0
LOOK_EVERY_S = 0.002
CALL_BYTES = len(CALL % (b"", 0))
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Kill:
    """Due when so many calls have begun, and `after_s` more: the runner, or its worker."""

    calls: int
    after_s: float
    runner: bool


@dataclass(slots=True)
class Toll:
    """Who was killed, how often the command ran, how the last one ended; None: not in time."""

    workers: int = 0
    runners: int = 0
    runs: int = 0
    code: int | None = None
    took_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Account:
    """The items at the end, by what is wrong with them; and how often each was begun."""

    missing: list[str]
    doubled: list[str]
    torn: list[str]
    quarantined: list[dict[str, Any]]
    calls: Counter[str]


def main() -> int:
    """Run and tell; 1 if an item was lost, doubled or torn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="500 items and 50 kills")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument("--seed", type=int, default=1, help="of the kills")
    given = parser.parse_args()
    items, kills = (QUICK_ITEMS, QUICK_KILLS) if given.quick else (ITEMS, KILLS)
    with tempfile.TemporaryDirectory(prefix="batch-kills-") as folder:
        with job_of(Path(folder), items) as job:
            toll = run(job, plan(given.seed, items, kills))
        found = account(job, items)
        said = job.said()
    promises = judged(found, toll, items)
    title = f"batch_kills ({items} items, {kills} kills, seed {given.seed})"
    show(title, [told(found, toll)], promises, as_json=given.json)
    broken = any(one.verdict != MET for one in promises)
    if broken:
        print(f"batch_kills: the last words of the job:\n{said}", file=sys.stderr)
    return int(broken)


def plan(seed: int, items: int, kills: int) -> list[Kill]:
    """All kills, in their order."""
    chance = random.Random(seed)  # noqa: S311 - to be the same every time
    moments = sorted(chance.randrange(1, items) for _ in range(kills))
    return [
        Kill(calls, chance.uniform(0, AFTER_S), chance.random() < RUNNERS_SHARE)
        for calls in moments
    ]


def job_of(folder: Path, items: int) -> Job:
    """The job, not yet started."""
    args = {"calls": str(folder / "calls"), "work_s": WORK_S}
    entry = {"entry": "batch_items:Written", "args": args, "items": "items.txt", "out": "out"}
    job = Job(folder, {"map": entry, "restart": {"budget": 1_000_000}})
    text = "".join(f"{name}\n" for name in names(items))
    (folder / "items.txt").write_text(text, encoding="ascii")
    (folder / "calls").touch()
    return job


def names(items: int) -> list[str]:
    """What the items are called."""
    return [f"item-{number:05d}" for number in range(items)]


def run(job: Job, kills: list[Kill]) -> Toll:
    """Kill as planned and start again what was killed, until the job is done."""
    toll, ahead, due_s = Toll(runs=1), deque(kills), None
    began_s = time.monotonic()
    job.start()
    while (now_s := time.monotonic()) - began_s < LIMIT_S:
        ended = job.poll()
        if ended is not None and ended.code != -signal.SIGKILL:
            toll.code, toll.took_s = ended.code, now_s - began_s
            return toll
        if ended is not None:
            job.start()
            toll.runs += 1
        if ahead and due_s is None and calls_begun(job) >= ahead[0].calls:
            due_s = now_s + ahead[0].after_s
        if due_s is not None and now_s >= due_s and strike(job, ahead[0], toll):
            ahead.popleft()
            due_s = None
        time.sleep(LOOK_EVERY_S)
    return toll


def strike(job: Job, kill: Kill, toll: Toll) -> bool:
    """Kill the runner, or the worker that began the last call; False if that is gone already."""
    assert job.process is not None
    if kill.runner:
        job.process.kill()
        job.process.wait()
        toll.runners += 1
        return True
    worker = last_caller(job)
    if worker not in {one.pid for one in below(job.process.pid)}:
        return False
    with suppress(ProcessLookupError):
        os.kill(worker, signal.SIGKILL)
        toll.workers += 1
        return True
    return False


def calls_begun(job: Job) -> int:
    """How many calls have begun, repeated ones too."""
    return (job.folder / "calls").stat().st_size // CALL_BYTES


def last_caller(job: Job) -> int:
    """The process that began the last call."""
    with (job.folder / "calls").open("rb") as file:
        file.seek(-CALL_BYTES, os.SEEK_END)
        return int(file.read().split()[1])


def account(job: Job, items: int) -> Account:
    """What became of each item."""
    quarantined = job.quarantined()
    results = Counter(str(line["item"]) for line in job.results())
    aside = {str(one["item"]) for one in quarantined}
    calls = (job.folder / "calls").read_text(encoding="ascii").splitlines()
    wanted = names(items)
    return Account(
        missing=[name for name in wanted if name not in results and name not in aside],
        doubled=[name for name, count in results.items() if count + (name in aside) > 1],
        torn=[name for name in results if not is_whole(job.out / f"{name}.txt", name)],
        quarantined=quarantined,
        calls=Counter(line.split()[0] for line in calls),
    )


def is_whole(path: Path, name: str) -> bool:
    """Whether the output file of an acknowledged item is all there."""
    return path.exists() and path.read_text(encoding="ascii") == whole(name)


def told(found: Account, toll: Toll) -> Table:
    """What happened, as a table."""
    causes = Counter(str(one.get("cause")) for one in found.quarantined)
    calls = sum(found.calls.values())
    again = sum(count > 1 for count in found.calls.values())
    rows: list[tuple[Cell, ...]] = [
        ("workers killed", toll.workers),
        ("runners killed", toll.runners),
        ("times the command ran", toll.runs),
        ("exit code of the last", "did not end" if toll.code is None else str(toll.code)),
        ("seconds", toll.took_s),
        ("calls begun", calls),
        ("items begun more than once", again),
        (
            "calls repeated, for each kill",
            (calls - len(found.calls)) / (toll.workers + toll.runners),
        ),
        ("most often", max(found.calls.values(), default=0)),
        ("quarantined", ", ".join(f"{n} {cause}" for cause, n in causes.items()) or "0"),
    ]
    return Table("", ("", ""), rows)


def judged(found: Account, toll: Toll, items: int) -> list[Promise]:
    """What must be 0."""
    bad = {
        "items lost": found.missing,
        "items with two results": found.doubled,
        "torn output files": found.torn,
        "innocent items in quarantine": [str(one["item"]) for one in found.quarantined],
    }
    promises = [
        Promise(name, len(which), most=0, note=" ".join(which[:SHOWN]))
        for name, which in bad.items()
    ]
    wrong = {*found.missing, *found.doubled, *bad["innocent items in quarantine"]}
    code = -1 if toll.code is None else toll.code
    return [
        *promises,
        Promise("items with exactly one result", items - len(wrong), least=items),
        Promise("exit code", code, least=0, most=0),
    ]


if __name__ == "__main__":
    sys.exit(main())
