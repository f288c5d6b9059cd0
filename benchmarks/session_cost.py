"""What a step of a training loop pays for `session.progress` and `session.stopping`.

A process of its own takes steps that do nothing else, one by one between two looks at the clock;
what two looks alone take is subtracted. It is measured without a runner, and with one that reads
in another process, so that the work of the session's own thread is in the figure. tqdm's `update`
is beside it: what loops pay for a progress bar today.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from time import perf_counter_ns

from benchmarks.figures import Figure, arguments, show
from workers import session
from workers.protocol import ENV_SESSION
from workers.reports import REPORT_LIMIT_BYTES

STEPS, QUICK_STEPS = 1_000_000, 200_000
LIMIT_NS, LIMIT_UNSUPERVISED_NS = 2000.0, 1000.0
LEAST_REPORTS = 2  # or it was not connected

Taken = dict[str, float]


def main() -> None:
    """Measure and tell."""
    if sys.argv[1:2] == ["--steps"]:
        print(json.dumps(measure(int(sys.argv[2]), sys.argv[3])))
        return
    given = arguments(__doc__)
    steps = QUICK_STEPS if given.quick else STEPS
    alone, reported, bar = run(steps, "session"), connected(steps), run(steps, "tqdm")
    figures = [
        figure("not supervised", alone, "median", LIMIT_UNSUPERVISED_NS, bar),
        figure("not supervised", alone, "p99", LIMIT_UNSUPERVISED_NS, bar),
        figure("connected", reported, "median", LIMIT_NS, bar),
        figure("connected", reported, "p99", LIMIT_NS, bar),
        figure("connected", reported, "mean", LIMIT_NS, bar),
        figure("tqdm update", bar, "median", None, bar),
        figure("tqdm update", bar, "mean", None, bar),
    ]
    show(f"session_cost ({steps:,} steps each)", figures, as_json=given.json)


def figure(name: str, taken: Taken, which: str, limit: float | None, bar: Taken) -> Figure:
    """One row, beside tqdm's."""
    ratio = taken[which] / bar[which] if bar[which] > 0 and taken is not bar else None
    beside = "tqdm update" if ratio is not None else ""
    return Figure(f"{name}, {which}", taken[which], "ns", limit, ratio, beside)


def measure(steps: int, what: str) -> Taken:
    """In a process of its own: nanoseconds of one step."""
    empty = percentiles(times(lambda _: None, steps // 4))["median"]
    if what == "tqdm":
        # The peer, where it is asked for; it has no types.
        from tqdm import tqdm  # type: ignore[import-untyped]  # noqa: PLC0415 - see above

        with tqdm(total=steps, file=sys.stderr) as bar:
            found = percentiles(times(lambda _: bar.update(), steps))
    else:
        found = percentiles(times(one_step, steps))
    return {name: value - empty for name, value in found.items()}


def one_step(step: int) -> None:
    """What a loop does once a step."""
    session.progress(step, 1_000_000, loss=0.5)
    if session.stopping:
        raise SystemExit(1)


def times(act: Callable[[int], object], steps: int) -> list[int]:
    """Nanoseconds of each, with what looking at the clock takes."""
    taken = [0] * steps
    for step in range(steps):
        began = perf_counter_ns()
        act(step)
        taken[step] = perf_counter_ns() - began
    return taken


def percentiles(taken: list[int]) -> Taken:
    """Median, 99th percentile and mean."""
    ordered = sorted(taken)
    last = len(ordered) - 1
    return {
        "median": float(ordered[last // 2]),
        "p99": float(ordered[round(last * 0.99)]),
        "mean": sum(ordered) / len(ordered),
    }


def run(steps: int, what: str, **env: str) -> Taken:
    """The figures of a process that was started for it."""
    command = [sys.executable, "-m", "benchmarks.session_cost", "--steps", str(steps), what]
    done = subprocess.run(
        command, env={**os.environ, **env}, capture_output=True, text=True, check=True
    )
    taken: Taken = json.loads(done.stdout)
    return taken


def connected(steps: int) -> Taken:
    """The same with a runner, whose part is played here."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="session-cost-"))
        path = str(Path(folder) / "session")
        runner = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        runner.bind(path)
        runner.listen()
        heard: list[bytes] = []
        thread = Thread(target=listen, args=(runner, heard))
        thread.start()
        taken = run(steps, "session", **{ENV_SESSION: path})
        thread.join()
    assert len(heard) > LEAST_REPORTS, "the loop was not connected"
    return taken


def listen(runner: socket.socket, heard: list[bytes]) -> None:
    """Read all that one line has to say."""
    line, _ = runner.accept()
    with line:
        while packet := line.recv(REPORT_LIMIT_BYTES):
            heard.append(packet)


if __name__ == "__main__":
    main()
