"""What a tree of processes does: CPU, I/O, page faults, births, who is stopped.

Owns sampling /proc and the difference of two samples. Judges nothing, and looks at no GPU.
Invariant: what a process did counts once, also when it ends in between and its counters move into
those of its parent, as the kernel adds a reaped child's to "children's" counters (proc_pid_stat(5),
proc_pid_io(5)). So a script that runs one short program after the other is as busy as it looks.
"""

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

_PROC = "/proc"
_READ_BYTES = 4096  # both files are shorter
_MOST_THREADS = 512  # looked at in one sample: some 5 ms
_SHORTEST_S = 0.001
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_ENDED = frozenset("ZX")


class Counters(NamedTuple):
    """What one process has used since it began; `reaped_*` is what its reaped children had.

    `io_bytes` includes those children; it is 0 where this user may not read it.
    """

    ticks: int
    reaped_ticks: int
    faults: int
    reaped_faults: int
    io_bytes: int


NOTHING = Counters(0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Moment:
    """One process at one moment. `states` are the kernel's letters of the threads looked at.

    `wait_ns` is how long its main thread has waited for a CPU; known only of one that does now.
    """

    parent: int
    start_ticks: int
    states: frozenset[str]
    counters: Counters
    wait_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """A whole tree at one moment, by pid; `main` is its main process."""

    at_s: float
    main: int | None = None
    moments: Mapping[int, Moment] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HostActivity:
    """What the tree did between two samples; the fields are those of `core.activity.Activity`."""

    window_s: float
    cpu_share: float
    io_bytes_per_s: float
    faults_per_s: float
    births: int
    stopped: tuple[int, ...]
    traced: tuple[int, ...]
    hindered: tuple[int, ...]
    runnable: tuple[int, ...]
    uninterruptible: tuple[int, ...]
    processes: int
    cpu_wait_share: float


class Sampler:
    """Samples one tree. `pids_of` gives its pids; unless `main` is given, the first is the main."""

    def __init__(
        self,
        pids_of: Callable[[], Iterable[int]],
        main: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pids_of = pids_of
        self._main = main
        self._clock = clock

    def take(self, *, threads: bool = False) -> Sample:
        """Look at every process now; with `threads` also at the state of their threads.

        A process's own state is that of its main thread. One that waits for a disk in another
        thread is seen with `threads` alone, which costs as many reads as there are threads.
        """
        pids = list(dict.fromkeys(self._pids_of()))
        left = _MOST_THREADS if threads else 0
        moments = {}
        at_s = self._clock()
        for pid in pids:
            with suppress(OSError):  # gone meanwhile
                moments[pid], read = _moment(pid, left)
                left -= read
        first = pids[0] if pids else None
        return Sample(at_s, self._main or first, moments)


def _moment(pid: int, most_threads: int) -> tuple[Moment, int]:
    """One process now, and how many of its threads were looked at."""
    # proc_pid_stat(5), counted from the state on: the name before it may hold anything.
    line = _content(f"{_PROC}/{pid}/stat")
    fields = line[line.rindex(b")") + 2 :].split(None, 20)
    state, threads = fields[0].decode("ascii"), int(fields[17])
    # A main thread may have ended before its process does: then the others speak for it.
    states = set() if state in _ENDED and threads > 1 else {state}
    looked_at = list(_thread_states(pid, most_threads)) if threads > 1 and most_threads > 0 else []
    states.update(one for one in looked_at if one not in _ENDED)
    counters = Counters(
        ticks=int(fields[11]) + int(fields[12]),
        reaped_ticks=int(fields[13]) + int(fields[14]),
        faults=int(fields[7]) + int(fields[9]),
        reaped_faults=int(fields[8]) + int(fields[10]),
        io_bytes=_io_bytes(pid),
    )
    wait_ns = _wait_ns(pid) if state == "R" else None
    found = Moment(int(fields[1]), int(fields[19]), frozenset(states), counters, wait_ns)
    return found, len(looked_at)


def _thread_states(pid: int, most: int) -> Iterator[str]:
    with suppress(OSError):
        for thread in os.listdir(f"{_PROC}/{pid}/task")[:most]:  # noqa: PTH208 -- plain strings, fast
            with suppress(OSError):
                line = _content(f"{_PROC}/{pid}/task/{thread}/stat")
                yield line[line.rindex(b")") + 2 :][:1].decode("ascii")


def _io_bytes(pid: int) -> int:
    """Everything it read and wrote: by system calls (pipes too), and on disks through memory."""
    with suppress(OSError):  # another user's process, or a kernel without the file
        amounts = _content(f"{_PROC}/{pid}/io").split()[1::2]
        rchar, wchar, _, _, read_bytes, write_bytes = map(int, amounts[:6])
        return rchar + wchar + read_bytes + write_bytes
    return 0


def _wait_ns(pid: int) -> int | None:
    """How long its main thread could have run, had it been given a CPU; sched-stats.rst."""
    with suppress(OSError):  # a kernel that does not count it
        return int(_content(f"{_PROC}/{pid}/schedstat").split()[1])
    return None


def _content(path: str) -> bytes:
    # Plain descriptors: a sample opens a hundred of these, and Path and io cost more than /proc.
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(file, _READ_BYTES)
    finally:
        os.close(file)


def between(before: Sample, after: Sample) -> HostActivity:
    """What the tree did from one sample to the next."""
    window_s = max(after.at_s - before.at_s, _SHORTEST_S)
    used = _used(before.moments, after.moments)
    living = {pid: one for pid, one in after.moments.items() if not one.states & _ENDED}
    # Who was stopped at the beginning has not been seen running for the whole window either.
    stopped, traced = (_in(living, one, before.moments) for one in "Tt")
    all_stopped = _whole(stopped, living, after.main)
    all_traced = _whole(traced, living, after.main)
    return HostActivity(
        window_s=window_s,
        cpu_share=used.ticks / _TICKS_PER_S / window_s,
        io_bytes_per_s=used.io_bytes / window_s,
        faults_per_s=used.faults / window_s,
        births=sum(not _same(before.moments.get(pid), one) for pid, one in living.items()),
        stopped=stopped if all_stopped else (),
        traced=traced if all_traced else (),
        hindered=() if all_stopped or all_traced else stopped + traced,
        runnable=_in(living, "R"),
        uninterruptible=_in(living, "D"),
        processes=len(living),
        cpu_wait_share=_waited_ns(before.moments, living) / 1e9 / window_s,
    )


def _in(
    living: Mapping[int, Moment], letter: str, before: Mapping[int, Moment] = MappingProxyType({})
) -> tuple[int, ...]:
    return tuple(
        pid
        for pid, one in living.items()
        if letter in one.states or (pid in before and letter in before[pid].states)
    )


def _waited_ns(before: Mapping[int, Moment], living: Mapping[int, Moment]) -> int:
    pairs = ((before[pid], one) for pid, one in living.items() if _same(before.get(pid), one))
    return sum(
        one.wait_ns - old.wait_ns
        for old, one in pairs
        if old.wait_ns is not None and one.wait_ns is not None
    )


def _whole(some: tuple[int, ...], living: Mapping[int, Moment], main: int | None) -> bool:
    """Whether keeping these from running keeps the whole tree from it."""
    return bool(some) and (main in some or len(some) == len(living))


def _same(before: Moment | None, after: Moment | None) -> bool:
    return before is not None and after is not None and before.start_ticks == after.start_ticks


def _used(before: Mapping[int, Moment], after: Mapping[int, Moment]) -> Counters:
    """What the tree used in between."""
    owed = _handed_on(before, after)
    ticks = faults = io_bytes = 0
    for pid, one in after.items():
        old, now, debt = before.get(pid), one.counters, owed[pid]
        then = old.counters if old is not None and _same(old, one) else NOTHING
        ticks += now.ticks - then.ticks
        ticks += max(0, now.reaped_ticks - then.reaped_ticks - debt.ticks)
        faults += now.faults - then.faults
        faults += max(0, now.reaped_faults - then.reaped_faults - debt.faults)
        io_bytes += max(0, now.io_bytes - then.io_bytes - debt.io_bytes)
    return Counters(ticks, 0, faults, 0, io_bytes)


def _handed_on(
    before: Mapping[int, Moment], after: Mapping[int, Moment]
) -> defaultdict[int, Counters]:
    """What ended processes had used before, by the living ancestor whose counters hold it now."""
    owed: defaultdict[int, Counters] = defaultdict(lambda: NOTHING)
    gone = {pid for pid, one in before.items() if not _same(one, after.get(pid))}
    for pid in gone:
        heir = before[pid].parent
        while heir in gone:
            heir = before[heir].parent
        used, debt = before[pid].counters, owed[heir]
        owed[heir] = Counters(
            ticks=debt.ticks + used.ticks + used.reaped_ticks,
            reaped_ticks=0,
            faults=debt.faults + used.faults + used.reaped_faults,
            reaped_faults=0,
            io_bytes=debt.io_bytes + used.io_bytes,
        )
    return owed
