"""A daemon that starts on a long history, and one that has nothing to do but to look after jobs.

The journal gets a million events of a thousand jobs, as years of work leave them; the daemon is
started on it until it answers. Then twenty jobs run, and what the daemon itself takes of a core is
read from the kernel's account.
"""

import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil

from benchmarks.figures import Figure, Spread, arguments, show
from benchmarks.served import Served
from supervisor.journal import Journal

EVENTS, QUICK_EVENTS = 1_000_000, 50_000
HISTORY_JOBS, RUNNING = 1000, 20
ROUNDS = 5
IDLE_S, QUICK_IDLE_S = 60.0, 10.0
START_LIMIT_S, IDLE_LIMIT = 2.0, 0.5
BEGIN_LIMIT_S = 120.0
BODY = '{"step": 1200, "path": "/data/runs/step_1200.pt", "kind": "torch", "level": "checksums"}'


def main() -> None:
    """Measure and tell."""
    given = arguments(__doc__)
    events = QUICK_EVENTS if given.quick else EVENTS
    with tempfile.TemporaryDirectory(prefix="daemon-start-") as folder:
        served = Served(Path(folder), "--cpus", str(RUNNING))
        write_history(served.state_dir, events)
        starts = []
        for _ in range(ROUNDS):
            starts.append(served.start())
            served.kill()
        served.start()
        ids = served.submit([job(number) for number in range(RUNNING)])
        served.until(lambda: runs(served, ids), BEGIN_LIMIT_S)
        idle = idle_percent(served, QUICK_IDLE_S if given.quick else IDLE_S)
        served.end()
    spread = Spread.of(starts)
    show(
        f"daemon_start ({events} events in the journal)",
        [
            Figure("start to its answer, median", spread.median, "s", limit=START_LIMIT_S),
            Figure("the same, worst", spread.high, "s"),
            Figure(f"idle with {RUNNING} running jobs, of a core", idle, "%", limit=IDLE_LIMIT),
        ],
        as_json=given.json,
    )


def write_history(state_dir: Path, events: int) -> None:
    """Fill a journal with jobs that ended long ago."""
    Journal.open(state_dir).close()
    with closing(sqlite3.connect(state_dir / "journal.sqlite")) as journal, journal:
        journal.executemany(
            "INSERT INTO jobs (id, name, folder, spec, created_s, updated_s, state) "
            "VALUES (?, ?, '/data', '{}', ?, ?, 'succeeded')",
            ((f"old-{one:06x}", "old", float(one), float(one)) for one in range(HISTORY_JOBS)),
        )
        journal.executemany(
            "INSERT INTO events (job_id, at_s, kind, body) VALUES (?, ?, 'CheckpointVerified', ?)",
            history(events),
        )


def history(events: int) -> Iterator[tuple[str, float, str]]:
    """So many events, job by job."""
    for one in range(events):
        yield f"old-{one * HISTORY_JOBS // events:06x}", float(one), BODY


def job(number: int) -> dict[str, object]:
    """A job that runs and says little."""
    return {"name": f"job-{number}", "command": ["sleep", "86400"], "timeouts": {"stop": "2s"}}


def runs(served: Served, ids: list[str]) -> bool:
    """Whether all have a worker."""
    jobs = served.jobs()
    return all(jobs[one]["state"] == "running" for one in ids)


def idle_percent(served: Served, for_s: float) -> float:
    """The daemon's share of a core while its jobs run and nobody asks anything."""
    process = psutil.Process(served.pid)
    before = process.cpu_times()
    time.sleep(for_s)
    after = process.cpu_times()
    return float(100 * (after.user + after.system - before.user - before.system) / for_s)


if __name__ == "__main__":
    main()
