"""From the death of a worker to the next item that begins, torch imported: ours and the pools'.

Every contestant works on items of 50 ms, all at once and nearly idle; each item says on a pipe when
it begins, and in which process. That process is killed in the middle of an item, round after round,
contestant after contestant; the first item that another process begins is the end of the interval.
Starting a process by hand is killed and started in the same rounds.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.figures import Spread, arguments
from benchmarks.peers.next_item import ITEMS, PEERS
from benchmarks.peers.stamping import WORK_S, word
from benchmarks.restart import NS_PER_MS, Reports, Silent
from benchmarks.sessions import session
from benchmarks.supervised import Job
from benchmarks.table import Cell, Promise, Table, show

ROUNDS, QUICK_ROUNDS = 30, 6
SETTLE_S = 0.3  # five of them make a round: what is started ahead is ready by then
INTO_ITEM_S = 0.01
LIMIT_MS = 60.0
BY_HAND = "one process by hand"
OURS = "supervise, recycle, hot standby"


JOB = {
    "warm": ["torch"],
    "chunks": {"size": 16},
    "restart": {"budget": 1_000_000},
}
HAND_CODE = """
import sys
from benchmarks.batch_items import Stamp
Stamp(sys.argv[1], sys.argv[2], 0.0)(1)
"""


def main() -> None:
    """Measure and tell."""
    given = arguments(__doc__)
    rounds = QUICK_ROUNDS if given.quick else ROUNDS
    with tempfile.TemporaryDirectory(prefix="next-item-") as folder:
        measured = measure(Path(folder), rounds)
    hand = Spread.of(measured[BY_HAND]).median
    rows: list[tuple[Cell, ...]] = []
    for name, took in measured.items():
        spread = Spread.of(took) if took else None
        times = (spread.median, spread.high, spread.median / hand) if spread else (None,) * 3
        rows.append((name, *times))
    heads = ("death of the worker -> next item begins", "p50 ms", "p95 ms", "x by hand")
    ours = Spread.of(measured[OURS]).median if measured[OURS] else None
    promise = Promise("supervise: p50", ours, "ms", most=LIMIT_MS)
    table = Table("", heads, rows)
    show(f"next_item ({rounds} kills each)", [table], [promise], as_json=given.json)


def measure(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each contestant; none where it never began."""
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    with ExitStack() as stack:
        fd = os.open(pipe, os.O_RDWR)  # a writer too: the pipe never ends
        stack.callback(os.close, fd)
        reports = Reports(fd)
        measured: dict[str, list[float]] = {BY_HAND: []}
        for name in (*PEERS, OURS):
            stack.enter_context(running(name, folder, pipe))
            if began(name, reports):
                measured[name] = []
        racing = [name for name in measured if name != BY_HAND]
        for number in range(rounds):
            measured[BY_HAND].append(by_hand(pipe, reports))
            for name in racing[number % len(racing) :] + racing[: number % len(racing)]:
                time.sleep(SETTLE_S)
                measured[name].append(after_death(name, reports))
    return measured | {name: [] for name in (*PEERS, OURS) if name not in measured}


@contextmanager
def running(name: str, folder: Path, pipe: Path) -> Iterator[None]:
    """The contestant at work; it is gone when the block ends."""
    if name != OURS:
        command = [sys.executable, "-m", "benchmarks.peers.next_item", name, str(pipe)]
        with session(command, subprocess.DEVNULL):
            yield
        return
    args = {"pipe": str(pipe), "who": word(OURS), "work_s": WORK_S}
    items = folder / "items.txt"
    items.write_text("".join(f"{number}\n" for number in range(ITEMS)), encoding="ascii")
    entry = {"entry": "batch_items:Stamp", "args": args, "items": str(items), "out": "out"}
    with Job(folder / "job", {"map": entry, **JOB}) as job:
        process = job.start()
        yield
        if process.poll() is not None:
            print(f"next_item: supervise ended early:\n{job.said()}", file=sys.stderr)


def began(name: str, reports: Reports) -> bool:
    """Whether it began an item within a minute."""
    try:
        reports.next_of(word(name))
    except Silent:
        print(f"next_item: '{name}' never began an item", file=sys.stderr)
        return False
    return True


def by_hand(pipe: Path, reports: Reports) -> float:
    """Milliseconds from asking for a process that imports torch to its first item."""
    time.sleep(SETTLE_S)
    asked_ns = time.monotonic_ns()
    command = [sys.executable, "-c", HAND_CODE, str(pipe), word(BY_HAND)]
    with session(command, subprocess.DEVNULL):
        _, begun_ns = reports.next_of(word(BY_HAND))
    return (begun_ns - asked_ns) / NS_PER_MS


def after_death(name: str, reports: Reports) -> float:
    """Milliseconds from killing the contestant's worker in an item to an item of the next."""
    asked_ns, begun_ns = time.monotonic_ns(), 0
    while begun_ns < asked_ns:  # what was begun before has been waiting in the pipe
        victim, begun_ns = reports.next_of(word(name))
    time.sleep(INTO_ITEM_S)
    killed_ns = time.monotonic_ns()
    os.kill(victim, signal.SIGKILL)
    pid = victim
    while pid == victim:
        pid, begun_ns = reports.next_of(word(name))
    return (begun_ns - killed_ns) / NS_PER_MS


if __name__ == "__main__":
    main()
