"""A million items that need no time: what planning, journaling and acknowledging them costs.

Only `supervise` writes down what is done, item by item; the pools stand beside it for scale. They
keep everything in memory, so theirs is a ceiling of what one may hope for, not the same work.
"""

import json
import sys
import tempfile
from datetime import datetime
from pathlib import Path

from benchmarks.figures import MET, arguments
from benchmarks.peers.million import PEERS
from benchmarks.sessions import session, wait_for
from benchmarks.supervised import Job
from benchmarks.table import Cell, Promise, Table, show

ITEMS, QUICK_ITEMS = 1_000_000, 100_000
LIMIT_S = 900.0
PLANNING_S = 10.0
RATE = 5000.0
RSS_MB = 80.0
MB = 1e6


def main() -> int:
    """Measure and tell; 1 if an item was lost."""
    given = arguments(__doc__)
    count = QUICK_ITEMS if given.quick else ITEMS
    with tempfile.TemporaryDirectory(prefix="million-") as folder:
        lines = Path(folder) / "items.txt"
        lines.write_text("".join(f"photos/{n:07d}.jpg\n" for n in range(count)), encoding="ascii")
        peers = [beside(peer, lines) for peer in PEERS]
        ours, promises = supervise(Path(folder) / "job", lines, count)
    heads = ("one worker", "seconds", "items/s", "peak of the parent, MB", "journaled")
    show(
        f"million_items ({count:,})",
        [Table("", heads, [*peers, *ours])],
        promises,
        as_json=given.json,
    )
    return int(promises[0].verdict != MET)


def beside(peer: str, lines: Path) -> tuple[Cell, ...]:
    """What a peer takes for the same lines."""
    with tempfile.TemporaryFile() as said:
        command = [sys.executable, "-m", "benchmarks.peers.million", peer, str(lines)]
        with session(command, said) as leader:
            wait_for(leader, LIMIT_S)
        said.seek(0)
        told: dict[str, float] = json.loads(said.read())
    took_s = told["took_s"]
    return (peer, took_s, told["items"] / took_s, told["peak_rss_bytes"] / MB, "no")


def supervise(
    folder: Path, lines: Path, count: int
) -> tuple[list[tuple[Cell, ...]], list[Promise]]:
    """The same as a job, and whether it keeps what is promised."""
    fields = {
        "map": {"entry": "batch_items:length", "items": str(lines), "out": "out"},
        "chunks": {"size": 500},
    }
    with Job(folder, fields) as job:
        ended = job.run(LIMIT_S)
        results = sum(1 for _ in job.results())
        planning_s = planning(job)
    rest_s = ended.wall_s - planning_s
    peak_mb = ended.peak_rss_bytes / MB
    busy = f"runner on a processor: {ended.cpu_s:.1f} s of {ended.wall_s:.1f} s"
    rows: list[tuple[Cell, ...]] = [
        ("supervise, the whole job", ended.wall_s, count / ended.wall_s, peak_mb, "each item"),
        ("supervise, without planning", rest_s, count / rest_s, peak_mb, "each item"),
    ]
    promises = [
        Promise("items with a result", results, least=count, most=count),
        Promise("planning", planning_s, "s", most=PLANNING_S * count / ITEMS, note=busy),
        Promise(
            "acknowledged", count / rest_s, "items/s", least=RATE, note="start and end included"
        ),
        Promise("peak of the runner", peak_mb, "MB", most=RSS_MB),
    ]
    return rows, promises


def planning(job: Job) -> float:
    """Seconds between the event that all items are known and the one before it."""
    events = job.ask("events", "bench")
    kinds = [event["kind"] for event in events]
    planned = kinds.index("ItemsPlanned")
    before, after = (datetime.fromisoformat(events[at]["at"]) for at in (planned - 1, planned))
    return (after - before).total_seconds()


if __name__ == "__main__":
    sys.exit(main())
