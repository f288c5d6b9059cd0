"""A picture of a worker's processes, as `ps` would draw it, for the evidence of a hang.

Owns reading /proc for it, in a thread of its own: the command line of a process that waits for a
dead disk can keep its reader waiting too. Invariant: what is known by then is told when time is up.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from supervisor.host.processes import stat
from supervisor.runner.disk import DiskThread

LIMIT_S = 3.0
MOST_PROCESSES = 500
MOST_THREADS = 256  # of one process
COMMAND_LENGTH = 300

_PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MIB = 1 << 20
_HEADING = f"{'PID':>8} {'PPID':>8} S {'CPU':>10} {'RSS':>9}  WAITS IN, COMMAND"


@dataclass(frozen=True, slots=True)
class Entry:
    """One process. `waits_in` is the kernel function it sleeps in, by number of threads."""

    pid: int
    ppid: int
    state: str
    cpu_s: float
    rss_bytes: int
    waits_in: Mapping[str, int] = field(default_factory=dict)
    command: str = "[its command line cannot be read]"
    kernel_stack: tuple[str, ...] = ()


async def process_table(pids: Iterable[int]) -> list[str]:
    """The tree of these processes in lines, children indented below their parents."""
    found: dict[int, Entry] = {}
    thread = DiskThread()
    with suppress(TimeoutError):
        async with asyncio.timeout(LIMIT_S):
            await thread.run(_collect, list(pids)[:MOST_PROCESSES], found)
    thread.close()
    return [_HEADING, *_drawn(dict(found))]


def _collect(pids: Iterable[int], found: dict[int, Entry]) -> None:
    """Fill `found`: first what never blocks, last what belongs to processes that wait for a disk.

    Another thread reads `found` when time is up, so that every step leaves it whole.
    """
    for pid in pids:
        with suppress(OSError):  # gone meanwhile
            found[pid] = _entry(pid)
    for pid, entry in sorted(found.items(), key=lambda item: item[1].state == "D"):
        with suppress(OSError):  # gone meanwhile, or another user's
            found[pid] = replace(entry, command=_command(pid))
    for pid, entry in found.items():
        if entry.state == "D":
            with suppress(OSError):  # for root alone
                lines = (_PROC / str(pid) / "stack").read_text().splitlines()
                found[pid] = replace(entry, kernel_stack=tuple(lines))


def _entry(pid: int) -> Entry:
    one = stat(pid)
    resident = (_PROC / str(pid) / "statm").read_text(encoding="ascii").split()[1]
    return Entry(
        pid=pid,
        ppid=one.ppid,
        state=one.state,
        cpu_s=one.cpu_ticks / _TICKS_PER_S,
        rss_bytes=int(resident) * _PAGE_BYTES,
        waits_in=Counter(_waits(pid)),
    )


def _waits(pid: int) -> Iterator[str]:
    """The kernel function of each thread; "0" where it runs, or this user may not know."""
    threads = sorted((_PROC / str(pid) / "task").iterdir())
    for thread in threads[:MOST_THREADS]:
        with suppress(OSError):
            yield (thread / "wchan").read_text(encoding="ascii") or "0"


def _command(pid: int) -> str:
    """Its command line in one line, or its name in brackets where it has none, as of a zombie."""
    raw = (_PROC / str(pid) / "cmdline").read_bytes()
    text = raw.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    if not text:
        text = f"[{(_PROC / str(pid) / 'comm').read_text(errors='replace').strip()}]"
    return "".join(one if one.isprintable() else "?" for one in text)[:COMMAND_LENGTH]


def _drawn(entries: Mapping[int, Entry]) -> Iterator[str]:
    waiting = [(one.pid, 0) for one in entries.values() if one.ppid not in entries]
    waiting.sort(reverse=True)
    while waiting:
        pid, depth = waiting.pop()
        yield from _lines(entries[pid], depth)
        children = sorted((one.pid for one in entries.values() if one.ppid == pid), reverse=True)
        waiting.extend((child, depth + 1) for child in children)


def _lines(one: Entry, depth: int) -> Iterator[str]:
    waits = ", ".join(
        f"{name} x{count}" if count > 1 else name
        for name, count in sorted(one.waits_in.items(), key=lambda item: -item[1])
    )
    indent = "  " * depth
    yield (
        f"{one.pid:>8} {one.ppid:>8} {one.state} {one.cpu_s:>8.2f} s "
        f"{one.rss_bytes / _MIB:>5.0f} MiB  {indent}{{{waits}}} {one.command}"
    )
    for line in one.kernel_stack:
        yield f"{'':>30}{indent}{line}"
