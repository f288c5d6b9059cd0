"""A hundred clients at once: errors, how long they wait, and whether supervision notices.

Each client is a connection that asks a thousand times for one of the things that people ask for. At
the same time a job's worker dies ten times a second: how long its runner takes to journal an exit
while the daemon is busy is read from the journal. On a small host the clients take the processors
from that runner whatever they ask; so the same is measured while as many processes only count.
"""

import multiprocessing
import sqlite3
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from threading import Thread

from benchmarks.figures import Figure, arguments, show
from benchmarks.served import Failed, Served
from supervisor.client.errors import ClientError

CLIENTS, REQUESTS, QUICK_REQUESTS = 100, 1000, 50
PROCESSES = 4
JOBS = 20
P99_LIMIT_MS, EXIT_LIMIT_MS = 250.0, 50.0
PATHS = ("/v1/jobs/{}", "/v1/jobs?limit=20", "/v1/daemon", "/v1/jobs/{}/explain")
EXITS = "SELECT at_s FROM events WHERE job_id = ? AND kind = 'WorkerExited' ORDER BY seq"
SAYS_WHEN = """
import os, time
with open("died", "a", buffering=1) as died:
    died.write(f"{time.time()}\\n")
    os._exit(1)
"""

Answers = tuple[list[float], list[str]]


def main() -> None:
    """Measure and tell."""
    given = arguments(__doc__)
    requests = QUICK_REQUESTS if given.quick else REQUESTS
    with (
        tempfile.TemporaryDirectory(prefix="daemon-load-") as folder,
        Served(Path(folder), "--cpus", str(JOBS + 1)) as served,
    ):
        ids = served.submit([sleeper(number) for number in range(JOBS)])
        dies = served.submit([dying()])[0]
        served.until((Path(folder) / "died").exists, 60)
        with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
            pool.map(count, [0.1] * PROCESSES)  # they are there
            began_s, began = time.time(), time.monotonic()
            share = CLIENTS // PROCESSES
            work = [(str(folder), ids, share, requests)] * PROCESSES
            parts = pool.starmap(clients, work)
            took_s, asked_s = time.monotonic() - began, time.time()
            pool.map(count, [took_s] * PROCESSES)
        late = exits_ms(served, Path(folder), dies)
        late_ms = sorted(ms for at_s, ms in late if began_s <= at_s < asked_s)
        busy_ms = sorted(ms for at_s, ms in late if asked_s <= at_s < asked_s + took_s)
    if not (late_ms and busy_ms):
        raise Failed(f"no exit was journaled meanwhile: {served.told()}")
    waits = sorted(one for part, _ in parts for one in part)
    errors = [one for _, wrong in parts for one in wrong]
    for one in errors[:3]:
        print(one, file=sys.stderr)
    show(
        f"daemon_load ({CLIENTS} clients, {requests} requests each)",
        [
            Figure("errors", len(errors), "", limit=0),
            Figure("answer, median", waits[len(waits) // 2], "ms"),
            Figure("answer, 99th percentile", waits[len(waits) * 99 // 100], "ms", P99_LIMIT_MS),
            Figure("answer, worst", waits[-1], "ms"),
            Figure("answers a second", len(waits) / took_s, ""),
            Figure("exit of a worker to its journal, median", statistics.median(late_ms), "ms"),
            Figure("the same, 99th percentile", late_ms[len(late_ms) * 99 // 100], "ms"),
            Figure("the same, worst", late_ms[-1], "ms", EXIT_LIMIT_MS),
            Figure(
                "99th percentile, nobody asking, host as busy",
                busy_ms[len(busy_ms) * 99 // 100],
                "ms",
            ),
            Figure("worst, nobody asking, host as busy", busy_ms[-1], "ms"),
            Figure("exits seen", len(late_ms), ""),
        ],
        as_json=given.json,
    )


def clients(folder: str, ids: list[str], count: int, requests: int) -> Answers:
    """So many clients in this process: how long each answer took, in ms, and what went wrong."""
    served = Served(Path(folder))
    waits: list[float] = []
    wrong: list[str] = []

    def one(number: int) -> None:
        with served.connection() as api:
            for turn in range(requests):
                path = PATHS[(turn + number) % len(PATHS)].format(ids[turn % len(ids)])
                began = time.perf_counter()
                try:
                    api.request("GET", path)
                except ClientError as error:
                    wrong.append(f"{path}: {error}")
                waits.append((time.perf_counter() - began) * 1000)

    threads = [Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return waits, wrong


def count(for_s: float) -> int:
    """Do nothing that anybody waits for, in this process."""
    counted, until = 0, time.monotonic() + for_s
    while time.monotonic() < until:
        counted += 1
    return counted


def sleeper(number: int) -> dict[str, object]:
    """A job that runs as long as it is let."""
    return {"name": f"job-{number}", "command": ["sleep", "86400"], "timeouts": {"stop": "2s"}}


def dying() -> dict[str, object]:
    """A job whose worker dies again and again, and says when."""
    again = {"budget": 100_000, "backoff": {"initial": "100ms", "max": "100ms", "jitter": 0}}
    command = [sys.executable, "-c", SAYS_WHEN]
    return {"name": "dying", "command": command, "restart": again, "timeouts": {"stop": "2s"}}


def exits_ms(served: Served, folder: Path, job: str) -> list[tuple[float, float]]:
    """When each worker died, and how long it was from there to its place in the journal."""
    died = [float(line) for line in (folder / "died").read_text().split()]
    with closing(sqlite3.connect(served.state_dir / "journal.sqlite")) as journal:
        rows = journal.execute(EXITS, (job,)).fetchall()
    return [(at, (row[0] - at) * 1000) for at, row in zip(died, rows, strict=False)]


if __name__ == "__main__":
    main()
