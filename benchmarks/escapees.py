"""Whether anybody outlives an attempt, and how long a large tree takes to be gone.

Runs workers whose children flee (fugitives.py) and kills them, with a cgroup and without, in a
process that adopts orphans, as a runner does. Who is left is counted by a process of its own, which
knows of no cgroup and no tree: only pids with their starts, and a mark in the environment. Ends
only what its own workers started.
"""

import asyncio
import os
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from benchmarks.figures import Figure, Spread, arguments, show
from supervisor.host.cgroup import Leaf, Offer, survey
from supervisor.process import Child, Command, isolated_child
from supervisor.process.orphans import PATIENCE_S, Orphans, become_subreaper

FUGITIVES = Path(__file__).with_name("fugitives.py")
ATTEMPTS, QUICK_ATTEMPTS = 1000, 20
TREES, QUICK_TREES = 10, 2
TWENTY = (
    *("loader", "loader", "loader", "session", "session", "daemon", "daemon", "daemon"),
    *("deaf", "deaf", "stopped", "stopped", "traced", "traced", "scrubbed", "bare", "bare"),
    *("lost", "lost", "hare"),
)
FIVE_HUNDRED = ("loader", "session", "daemon", "deaf", "stopped") * 100
GONE_MS = 250.0
MS, NS_PER_MS = 1000.0, 1e6

# The outside: reads lines `PID START`, and says who of them lives, who bears the mark, and, as long
# as their numbers cannot be others' yet, whose group has members: the only trace of a hare.
COUNT = """
import os, sys
def alive(pid, start):
    try:
        fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[19] == start and fields[0] not in "ZX"
def leads(pid):
    try:
        os.killpg(int(pid), 0)
        return True
    except OSError:
        return False
def marked(pid):
    try:
        return sys.argv[1].encode() in open(f"/proc/{pid}/environ", "rb").read()
    except OSError:
        return False
told = [line.split() for line in sys.stdin]
left = {int(pid) for pid, start in told if alive(pid, start) or sys.argv[2] == 'now' and leads(pid)}
left |= {int(name) for name in os.listdir("/proc") if name.isdigit() and marked(name)}
print(*left)
"""
# Waits until all of these have ended, and says when.
WATCH = """
import os, select, sys, time
poll, left = select.poll(), set()
for pid in sys.argv[1:]:
    try:
        left.add(os.pidfd_open(int(pid)))
    except ProcessLookupError:
        pass
for fd in left:
    poll.register(fd, select.POLLIN)
print("ready", flush=True)
while left:
    for fd, _ in poll.poll():
        poll.unregister(fd)
        left.discard(fd)
print(time.monotonic_ns())
"""


def main() -> int:
    """Measure and tell; 1 if anybody was left."""
    given = arguments(__doc__)
    become_subreaper()
    offer = survey()
    kinds = [offer, None] if offer.kill else [None]
    attempts, trees = (QUICK_ATTEMPTS, QUICK_TREES) if given.quick else (ATTEMPTS, TREES)
    figures = []
    for bounds in kinds:
        figures += asyncio.run(measure_attempts(bounds, attempts))
    for bounds in kinds:
        figures.append(asyncio.run(measure_trees(bounds, trees)))
    show("escapees", figures, as_json=given.json)
    if offer.kill is None:
        print("without cgroups: " + "; ".join(offer.reasons), file=sys.stderr)
    return int(any(one.measured for one in figures if one.name.endswith(": left")))


async def measure_attempts(offer: Offer | None, attempts: int) -> list[Figure]:
    """Run attempts with twenty fugitives each; who is left, and what an end takes."""
    mark = f"escapees-{uuid.uuid4().hex[:8]}"
    told: list[str] = []
    left: list[int] = []
    took_ms = []
    for number in range(attempts):
        async with fugitives(TWENTY, offer, f"{mark}-{number}") as (child, lines):
            started = time.monotonic()
            await child.kill()
            took_ms.append((time.monotonic() - started) * MS)
        reap()
        left += count(mark, lines, "now")
        told += lines
    left += count(mark, told, "later")
    spread = Spread.of(took_ms)
    what = f"{attempts} attempts x {len(TWENTY)} fugitives, {_kind(offer)}"
    note = f"of {len(told)} and their heirs"
    return [
        Figure(f"{what}: left", len(left), "", 0, note=note),
        Figure(f"{what}: kill", spread.median, "ms", note=f"p95 {spread.high:.1f}"),
    ]


async def measure_trees(offer: Offer | None, rounds: int) -> Figure:
    """Kill trees of five hundred, and ask the outside when the last was gone."""
    took_ms = []
    for _ in range(rounds):
        mark = f"escapees-{uuid.uuid4().hex[:8]}"
        async with fugitives(FIVE_HUNDRED, offer, mark) as (child, lines):
            with watching([line.split()[0] for line in lines]) as watch:
                started_ns = time.monotonic_ns()
                await child.kill()
                took_ms.append((int(watch.communicate()[0]) - started_ns) / NS_PER_MS)
        reap()
        assert not count(mark, lines, "now")
    spread = Spread.of(took_ms)
    note = f"{rounds} trees, the slowest {max(took_ms):.0f}"
    name = f"tree of {len(FIVE_HUNDRED)}, {_kind(offer)}: decision -> the last is gone"
    return Figure(name, spread.median, "ms", GONE_MS, note=note)


def reap() -> None:
    """Collect all that ended, at once: nobody here waits for a child of his own."""
    orphans = Orphans()
    orphans.reap(now=0.0)
    orphans.reap(now=PATIENCE_S)


@asynccontextmanager
async def fugitives(
    kinds: Sequence[str], offer: Offer | None, mark: str
) -> AsyncIterator[tuple[Child, list[str]]]:
    """A worker all of whose children have told who they are, and what they told."""
    read, write = os.pipe()
    leaf = None if offer is None else Leaf.make(offer, f"supervise-{mark}")
    argv = [sys.executable, "-IS", str(FUGITIVES), str(write), *kinds]
    try:
        command = Command(argv=argv, inherit_fds=[write], leaf=leaf, mark=mark)
        async with isolated_child(command) as child:
            text = ""
            while text.count("\n") <= len(kinds) + kinds.count("traced"):  # and the tracer
                text += (await asyncio.to_thread(os.read, read, 1 << 16)).decode()
            yield child, [line for line in text.splitlines() if line != "ready"]
    finally:
        os.close(read)
        os.close(write)
        if leaf is not None:
            leaf.remove()


@contextmanager
def watching(pids: list[str]) -> Iterator[subprocess.Popen[str]]:
    """The process that says when the last of these has ended."""
    argv = [sys.executable, "-IS", "-c", WATCH, *pids]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


def count(mark: str, told: list[str], when: str) -> list[int]:
    """Who lives of those who told who they are, or of those who bear the mark."""
    argv = [sys.executable, "-IS", "-c", COUNT, mark, when]
    done = subprocess.run(
        argv, input="\n".join(told), stdout=subprocess.PIPE, text=True, check=True
    )
    return [int(pid) for pid in done.stdout.split()]


def _kind(offer: Offer | None) -> str:
    return "sweep" if offer is None else "cgroup"


if __name__ == "__main__":
    sys.exit(main())
