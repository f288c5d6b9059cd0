"""A place becomes free: how long until the next job of the queue has it.

Jobs that hold the one place for a moment follow each other. Measured from outside: the runner of
one is seen to be gone by its pidfd, the next one began when the kernel says so; and from the last
line of one worker to the first of the next, which has the start of Python in it twice.
"""

import os
import select
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import psutil

from benchmarks.figures import Figure, arguments, show
from benchmarks.served import Failed, Served
from supervisor.host.identity import start_ticks

JOBS, QUICK_JOBS = 30, 6
LIMIT_MS = 50.0
TICKS = os.sysconf("SC_CLK_TCK")  # the kernel counts a process's start in these, since boot
RUN_LIMIT_S = 30.0
HOLDS = """
import sys, time
with open("times", "a", buffering=1) as times:
    times.write(f"{time.time()} ")
    time.sleep(0.5)
    times.write(f"{time.time()}\\n")
"""


def main() -> None:
    """Measure and tell."""
    given = arguments(__doc__)
    count = QUICK_JOBS if given.quick else JOBS
    with (
        tempfile.TemporaryDirectory(prefix="next-job-") as name,
        Served(Path(name), "--cpus", "1") as served,
    ):
        (Path(name) / "holds.py").write_text(HOLDS)
        ids = served.submit([job(number) for number in range(count)])
        gaps_ms = handed_over_ms(served, ids)
        spans = [line.split() for line in (Path(name) / "times").read_text().splitlines()]
    whole_ms = [(float(after[0]) - float(before[1])) * 1000 for before, after in pairwise(spans)]
    gap, whole = statistics.median(gaps_ms), statistics.median(whole_ms)
    show(
        f"next_job ({count} jobs)",
        [
            Figure("runner gone, next runner begun, median", gap, "ms", LIMIT_MS),
            Figure("the same, worst", max(gaps_ms), "ms"),
            Figure("last line of a worker to the first of the next, median", whole, "ms"),
        ],
        as_json=given.json,
    )


def job(number: int) -> dict[str, object]:
    """One job that holds the place."""
    return {"name": f"job-{number}", "command": [sys.executable, "holds.py"]}


def handed_over_ms(served: Served, ids: list[str]) -> list[float]:
    """From the end of each runner to the beginning of the next, in milliseconds."""
    gone_s: list[float] = []
    began_s: list[float] = []
    for one in ids:
        pid = runner_of(served, one)
        began_s.append((start_ticks(pid) or 0) / TICKS)
        pidfd = os.pidfd_open(pid)
        select.select([pidfd], [], [], RUN_LIMIT_S)
        gone_s.append(time.clock_gettime(time.CLOCK_BOOTTIME))
        os.close(pidfd)
    return [(after - before) * 1000 for before, after in zip(gone_s, began_s[1:], strict=False)]


def runner_of(served: Served, job_id: str) -> int:
    """The process of a job's runner, as soon as it has one."""
    give_up_at = time.monotonic() + RUN_LIMIT_S
    with served.connection() as api:
        while time.monotonic() < give_up_at:
            pid = api.request("GET", f"/v1/jobs/{job_id}")["runner_pid"]
            if pid is not None and psutil.pid_exists(pid):
                return int(pid)
            time.sleep(0.01)
    raise Failed(f"{job_id} was not started")


if __name__ == "__main__":
    main()
