"""What a CUDA context costs each child: memory of the GPU, and time before its first line of work.

One child after the other makes a context and nothing else, on a GPU that nobody uses, and is killed
with SIGKILL. Needs a real GPU; without one it says so in a sentence and is no failure. Ends only
processes that it started.
"""

import json
import os
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cuda_card import Card, found
from benchmarks.figures import Figure, Spread, arguments, show

CHILD = Path(__file__).with_name("cuda.py")
ROUNDS, QUICK_ROUNDS = 20, 3
NEED_BYTES = 2 << 30
CONTEXT_LIMIT_S = 60.0
MEMORY_LIMIT_S = 30.0
BACK_SLACK_BYTES = 64 << 20
LOOK_S = 0.002
NS_PER_MS, MIB = 1e6, 1 << 20
TITLE = "CUDA context of a child"


class Failed(Exception):
    """A child made no context, or its memory did not come back; the message says which."""


@dataclass(frozen=True, slots=True)
class Round:
    """One child. `own_bytes` is what NVML says of the process; None where it does not."""

    start_ms: float
    device_bytes: int
    own_bytes: int | None
    back_ms: float


def main() -> int:
    """Measure and tell; 0 also where there is no GPU to measure."""
    given = arguments(__doc__)
    card = found(NEED_BYTES)
    if isinstance(card, str):
        skipped = {"benchmark": TITLE, "figures": [], "skipped": card}
        print(json.dumps(skipped) if given.json else f"{TITLE}: not measured: {card}")
        return 0
    try:
        rounds = [measured(card) for _ in range(QUICK_ROUNDS if given.quick else ROUNDS)]
    except Failed as error:
        print(f"cuda_context: {error}", file=sys.stderr)
        return 1
    title = f"{TITLE} ({len(rounds)} children on {card.gpu.name})"
    show(title, figures(rounds), as_json=given.json)
    return 0


def measured(card: Card) -> Round:
    """One child, from its start until its memory is back.

    Raises:
        Failed: it did not get that far.
    """
    before = card.used_bytes()
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": card.uuid}
    started_ns = time.monotonic_ns()
    child = subprocess.Popen(
        [sys.executable, str(CHILD)],
        stdin=subprocess.PIPE,  # it ends when this process does
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    with child:
        try:
            made_ns = _made_ns(child)
            device_bytes = _await_memory(card, lambda used: used > before + MIB) - before
            own_bytes = card.processes().get(child.pid)
        finally:
            killed_ns = time.monotonic_ns()
            child.kill()
        _await_memory(card, lambda used: used <= before + BACK_SLACK_BYTES)
        back_ns = time.monotonic_ns()
    return Round(
        (made_ns - started_ns) / NS_PER_MS,
        device_bytes,
        own_bytes,
        (back_ns - killed_ns) / NS_PER_MS,
    )


def _made_ns(child: subprocess.Popen[bytes]) -> int:
    """When its context was there, by its own word, on the clock that all processes share."""
    if child.stdout is None or child.stderr is None:
        raise Failed("a child without pipes")
    line = b""
    if select.select([child.stdout], [], [], CONTEXT_LIMIT_S)[0]:
        line = child.stdout.readline()
    if not line:
        child.kill()
        said = child.stderr.read().decode(errors="replace").strip()
        raise Failed(f"a child made no context: {said or f'silent for {CONTEXT_LIMIT_S:.0f} s'}")
    return int(json.loads(line)["made_ns"])


def _await_memory(card: Card, enough: Callable[[int], bool]) -> int:
    """Look at the memory in use until it is as wanted, and return it."""
    deadline = time.monotonic() + MEMORY_LIMIT_S
    while not enough(used := card.used_bytes()):
        if time.monotonic() > deadline:
            raise Failed(
                f"after {MEMORY_LIMIT_S:.0f} s the GPU still has {used / MIB:.0f} MiB in use"
            )
        time.sleep(LOOK_S)
    return used


def figures(rounds: list[Round]) -> list[Figure]:
    """Medians; the first child is told apart, for it may find a driver that sleeps."""
    start = Spread.of([one.start_ms for one in rounds])
    back = Spread.of([one.back_ms for one in rounds])
    device = statistics.median(one.device_bytes for one in rounds)
    told = [one.own_bytes for one in rounds if one.own_bytes is not None]
    own = "NVML does not say it of the process"
    with suppress(statistics.StatisticsError):
        own = f"of the process by NVML: {statistics.median(told) / MIB:.0f} MiB"
    first = f"p95 {start.high:.0f}, the first {rounds[0].start_ms:.0f}"
    return [
        Figure("process start -> context", start.median, "ms", note=first),
        Figure("memory of the device", device / MIB, "MiB", note=own),
        Figure("SIGKILL -> memory is back", back.median, "ms", note=f"p95 {back.high:.0f}"),
    ]


if __name__ == "__main__":
    sys.exit(main())
