"""The functions that the batch benchmarks call for each item, the same for us and for every peer.

Copied beside each job.yaml, so it imports nothing of this repository at its top. Every bad item is
one that happens to honest people; none attacks its supervisor. All that waits ends by itself.
"""

import os
import signal
import sys
import time
from typing import Any

FOREVER_S = 300.0  # a benchmark that is killed leaves nobody behind for longer
WORK_S = 0.05
BLOCK_BYTES = 16 << 20
BETWEEN_BLOCKS_S = 0.005
LEAK_ENDS_BYTES = 6 << 30  # a leak without end, but on a machine that others use
TOO_MUCH_BYTES = 2 << 30
CALL = b"%-12s %8d\n"  # all of one length, so that the size tells their number


def length(line: str) -> int:
    """The least that an item can be."""
    return len(line)


class Stamp:
    """Writes `who pid monotonic-ns` to a pipe when an item begins, then works for a moment."""

    def __init__(self, pipe: str, who: str, work_s: float) -> None:
        import torch  # noqa: F401, PLC0415 -- what every worker of the kind pays for

        self.fd = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        self.who, self.work_s = who, work_s

    def __call__(self, _item: object) -> int:
        """Say so, and work."""
        os.write(self.fd, f"{self.who} {os.getpid()} {time.monotonic_ns()}\n".encode())
        time.sleep(self.work_s)
        return os.getpid()


def poison(item: dict[str, Any]) -> int:
    """The item's number after a moment, unless it has a fault."""
    time.sleep(WORK_S)
    fault = item.get("fault")
    if fault is not None:
        FAULTS[fault]()
    return int(item["number"])


def segfault() -> None:
    """Read from address 0."""
    import ctypes  # noqa: PLC0415 -- only this one needs it

    ctypes.string_at(0)


def hang() -> None:
    """Wait for what does not come."""
    time.sleep(FOREVER_S)


def leave() -> None:
    """End as if all were well."""
    os._exit(0)


def killed() -> None:
    """Be killed by somebody."""
    os.kill(os.getpid(), signal.SIGKILL)


def leak() -> None:
    """Take memory bit by bit, and never give it back."""
    held: list[bytes] = []
    while len(held) * BLOCK_BYTES < LEAK_ENDS_BYTES:
        held.append(b"x" * BLOCK_BYTES)
        time.sleep(BETWEEN_BLOCKS_S)
    time.sleep(FOREVER_S)


def too_much() -> None:
    """Take more memory at once than is allowed, and use it."""
    held = b"x" * TOO_MUCH_BYTES
    time.sleep(FOREVER_S)
    print(len(held), file=sys.stderr)


FAULTS = {
    "segfault": segfault,
    "hangs": hang,
    "os._exit(0)": leave,
    "SIGKILL": killed,
    "leaks": leak,
    "out of memory": too_much,
}


class Written:
    """Writes one output file for each item, and before that who begins it to a list of calls."""

    def __init__(self, calls: str, work_s: float) -> None:
        self.fd = os.open(calls, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.work_s = work_s

    def __call__(self, item: str) -> str:
        """The first line of what stands in the output file."""
        from workers.outputs import output  # noqa: PLC0415 -- this one alone is ours only

        os.write(self.fd, CALL % (item.encode(), os.getpid()))
        time.sleep(self.work_s)
        output(f"{item}.txt").write_text(whole(item), encoding="ascii")
        return item


def whole(item: str) -> str:
    """What the output file of an item contains: long enough to be torn."""
    return f"{item}\n" * 1000
