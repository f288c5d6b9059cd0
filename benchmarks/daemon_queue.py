"""Ten thousand queued jobs: what submitting, listing and remembering them costs.

A daemon that starts nothing (its one place is taken) is given jobs one by one over one connection;
then `ps` is timed as a person runs it, the daemon's memory is read, and it is started again.
"""

import os
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.figures import Figure, Spread, arguments, show
from benchmarks.served import SUPERVISE, Served
from supervisor.client.connection import Connection

JOBS, QUICK_JOBS = 10_000, 500
LISTINGS = 7
SUBMIT_LIMIT_MS, PS_LIMIT_MS, RSS_LIMIT_MB = 10.0, 300.0, 90.0
IDLE_S, QUICK_IDLE_S = 30.0, 5.0
MB = 1e6


def main() -> None:
    """Measure and tell."""
    given = arguments(__doc__)
    jobs = QUICK_JOBS if given.quick else JOBS
    with (
        tempfile.TemporaryDirectory(prefix="daemon-queue-") as folder,
        Served(Path(folder), "--cpus", "1") as served,
    ):
        empty_mb = rss_mb(served)
        served.submit([sleeper("holds-the-place")])
        with served.connection() as api:
            submit_ms = [submitted_ms(served, api, number) for number in range(jobs)]
        full_mb = rss_mb(served)
        listing_ms = [ps_ms(served) for _ in range(LISTINGS)]
        help_ms = [timed_ms([SUPERVISE, "--help"]) for _ in range(LISTINGS)]
        idle = idle_percent(served, QUICK_IDLE_S if given.quick else IDLE_S)
        served.kill()
        again_s = served.start()
        again_mb = rss_mb(served)
        with served.connection() as api:  # else each would be cancelled by itself
            for one in served.unfinished():
                api.request("POST", f"/v1/jobs/{one}/cancel", {})
    submits, listings = Spread.of(submit_ms), Spread.of(listing_ms)
    helps = Spread.of(help_ms)
    show(
        f"daemon_queue ({jobs} queued jobs)",
        [
            Figure("submit, one connection, median", submits.median, "ms", limit=SUBMIT_LIMIT_MS),
            Figure("submit, 95th percentile", submits.high, "ms"),
            Figure(
                "supervise ps",
                listings.median,
                "ms",
                limit=PS_LIMIT_MS,
                ratio=listings.median / helps.median,
                beside="supervise --help",
            ),
            Figure("daemon's memory, empty queue", empty_mb, "MB"),
            Figure("daemon's memory, full queue", full_mb, "MB", limit=RSS_LIMIT_MB),
            Figure("daemon's memory, full queue, started anew", again_mb, "MB", limit=RSS_LIMIT_MB),
            Figure("idle, of a core", idle, "%"),
            Figure("start with the full queue, to its answer", again_s, "s"),
        ],
        as_json=given.json,
    )


def sleeper(name: str) -> dict[str, object]:
    """A job that takes the place and does nothing."""
    return {"name": name, "command": ["sleep", "86400"], "timeouts": {"stop": "2s"}}


def submitted_ms(served: Served, api: Connection, number: int) -> float:
    """How long one submission took."""
    asked = {"job": sleeper(f"job-{number}"), "folder": str(served.folder)}
    body = {"jobs": [asked], "surroundings": {"env": dict(os.environ), "umask": 18, "limits": {}}}
    began = time.perf_counter()
    api.request("POST", "/v1/jobs", body)
    return (time.perf_counter() - began) * 1000


def ps_ms(served: Served) -> float:
    """How long a listing takes, as a person types it."""
    return timed_ms([SUPERVISE, "--state-dir", str(served.state_dir), "ps"])


def timed_ms(command: list[str]) -> float:
    """How long a command takes."""
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - began) * 1000


def rss_mb(served: Served) -> float:
    """The daemon's resident memory."""
    return float(psutil.Process(served.pid).memory_info().rss) / MB


def idle_percent(served: Served, for_s: float) -> float:
    """The daemon's share of a core while nobody asks anything."""
    process = psutil.Process(served.pid)
    before = process.cpu_times()
    time.sleep(for_s)
    after = process.cpu_times()
    used_s = after.user + after.system - before.user - before.system
    return float(100 * used_s / for_s)


if __name__ == "__main__":
    main()
