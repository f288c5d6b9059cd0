"""What a tree of processes does, seen from outside: real processes, and the arithmetic."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import psutil
import pytest

from supervisor.host.activity import Counters, HostActivity, Moment, Sample, Sampler, between

WINDOW_S = 0.5

SCRIPTS = {
    "sleeper": "import threading; print(flush=True); threading.Event().wait()",
    "spinner": "print(flush=True)\nwhile True: pass",
    "writer": """
import time
print(flush=True)
with open("/dev/null", "wb", buffering=0) as file:
    while True:
        file.write(bytes(100_000))
        time.sleep(0.01)
""",
    "toucher": """
import mmap, time
print(flush=True)
while True:
    with mmap.mmap(-1, 1 << 20) as fresh:
        for page in range(0, 1 << 20, 4096):
            fresh[page] = 1
    time.sleep(0.05)
""",
    "forker": """
import os
print(flush=True)
while True:
    pid = os.fork()
    if pid == 0:
        sum(range(200_000))
        os._exit(0)
    os.waitpid(pid, 0)
""",
    "parent": """
import os, signal, time
pid = os.fork()
if pid:
    print(pid, flush=True)
signal.pause()
""",
    # Whoever spawns waits in the kernel, uninterruptibly, until its child has opened its files.
    "stuck": """
import os, sys
os.mkfifo(sys.argv[1])
print(flush=True)
opening = (os.POSIX_SPAWN_OPEN, 0, sys.argv[1], os.O_RDONLY, 0)
os.posix_spawn("/bin/true", ["true"], {}, file_actions=[opening])
""",
    "stuck-thread": """
import os, sys, threading
os.mkfifo(sys.argv[1])
opening = (os.POSIX_SPAWN_OPEN, 0, sys.argv[1], os.O_RDONLY, 0)
spawn = lambda: os.posix_spawn("/bin/true", ["true"], {}, file_actions=[opening])
print(flush=True)
threading.Thread(target=spawn).start()  # it keeps the interpreter's lock meanwhile
""",
}


@pytest.fixture
def started(tmp_path) -> Iterator[Callable[[str], subprocess.Popen]]:
    """Give a way to start one of the scripts; it has said that it is ready."""
    running: list[subprocess.Popen] = []

    def start(name: str) -> subprocess.Popen:
        argv = [sys.executable, "-c", SCRIPTS[name], str(tmp_path / name)]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        running.append(process)
        process.said = process.stdout.readline().decode().strip()
        return process

    yield start
    for process in running:
        tree = [process.pid, *(one.pid for one in psutil.Process(process.pid).children())]
        for pid in reversed(tree):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.stdout.close()
        process.wait()


@pytest.fixture
def watched(eventually) -> Callable[..., HostActivity]:
    """Give a look at processes for a while: `watched(pid, ..., threads=False)`."""

    def watch(*pids: int, threads: bool = False, main: int | None = None) -> HostActivity:
        sampler = Sampler(lambda: pids, main)
        before = sampler.take(threads=threads)
        eventually(lambda: time.monotonic() - before.at_s > WINDOW_S)
        return between(before, sampler.take(threads=threads))

    return watch


def test_a_sleeper_does_nothing(started, watched) -> None:
    """A Python that waits for an event uses no CPU, no disk, no new memory."""
    seen = watched(started("sleeper").pid)

    assert seen.cpu_share <= 0.03
    assert seen.io_bytes_per_s < 1000
    assert seen.faults_per_s < 50
    assert (seen.births, seen.runnable, seen.processes) == (0, (), 1)


def test_a_spinner_uses_a_cpu_or_waits_for_one(started, watched) -> None:
    """What it gets of a core and what it waits for make up a core, and it changes nothing."""
    process = started("spinner")
    seen = watched(process.pid)

    assert seen.cpu_share + seen.cpu_wait_share == pytest.approx(1.0, abs=0.15)
    assert seen.runnable == (process.pid,)
    assert seen.io_bytes_per_s < 1000


def test_a_writer_moves_bytes(started, watched) -> None:
    """I/O by system calls counts, whether it reaches a disk or not."""
    assert watched(started("writer").pid).io_bytes_per_s > 200_000


def test_a_toucher_gets_new_memory(started, watched) -> None:
    """Memory that is used for the first time shows as page faults."""
    assert watched(started("toucher").pid).faults_per_s > 200


def test_short_lived_children_count(started, eventually) -> None:
    """What children did that began and ended between two looks is in their parent's counters."""
    pid = started("forker").pid
    sampler = Sampler(lambda: [pid])
    before = sampler.take()

    def later() -> Sample | None:
        now = sampler.take()
        begun = before.moments[pid].counters.reaped_ticks
        return now if now.moments[pid].counters.reaped_ticks >= begun + 10 else None

    seen = between(before, eventually(later))
    assert seen.cpu_share * seen.window_s * os.sysconf("SC_CLK_TCK") >= 10


def test_a_new_process_is_a_birth(started, watched, eventually) -> None:
    """A process that was not there at the first look is counted once."""
    first = started("sleeper")
    pids = [first.pid]
    sampler = Sampler(lambda: pids)
    before = sampler.take()
    pids.append(started("sleeper").pid)

    assert between(before, sampler.take()).births == 1
    assert between(sampler.take(), sampler.take()).births == 0


def test_stopped(started, watched, eventually) -> None:
    """A stopped main process stops the whole tree; a stopped child only hinders it."""
    parent = started("parent")
    child = int(parent.said)

    def stop(pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        eventually(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)

    stop(child)
    seen = watched(parent.pid, child)
    assert (seen.stopped, seen.hindered) == ((), (child,))
    assert watched(child, parent.pid, main=parent.pid).hindered == (child,)
    stop(parent.pid)
    seen = watched(parent.pid, child)
    assert (seen.stopped, seen.hindered) == ((parent.pid, child), ())


def test_stopped_for_part_of_the_window(started, eventually) -> None:
    """Who goes on between two looks has not been seen running for all of the time."""
    process = started("sleeper")
    sampler = Sampler(lambda: [process.pid])
    os.kill(process.pid, signal.SIGSTOP)
    eventually(lambda: "T" in sampler.take().moments[process.pid].states)
    before = sampler.take()
    os.kill(process.pid, signal.SIGCONT)
    eventually(lambda: "T" not in sampler.take().moments[process.pid].states)

    assert between(before, sampler.take()).stopped == (process.pid,)


@pytest.mark.parametrize(("name", "threads"), [("stuck", False), ("stuck-thread", True)])
def test_waiting_in_the_kernel(started, eventually, name: str, *, threads: bool) -> None:
    """A process that waits uninterruptibly is seen; with `threads`, if a thread of it does, too."""
    process = started(name)
    sampler = Sampler(lambda: [process.pid])

    def stuck() -> bool:
        now = sampler.take(threads=threads)
        return between(now, now).uninterruptible == (process.pid,)

    assert eventually(stuck)


def test_nobody_is_there() -> None:
    """A tree that has gone does nothing, and is no error."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    sample = Sampler(lambda: [gone.pid]).take()

    assert sample.moments == {}
    assert between(sample, sample).processes == 0
    assert Sampler(list).take().main is None


def test_a_zombie_is_not_there(started) -> None:
    """A process that has ended is not counted among those that live."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    sample = Sampler(lambda: [process.pid]).take()
    process.wait()

    assert between(Sample(0.0), sample).births == 0
    assert between(sample, sample).processes == 0


def test_io_of_others_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this user may not read counts as nothing, and the rest is told."""
    real = os.open

    def refusing(path: str, flags: int) -> int:
        if str(path).endswith(("/io", "/schedstat")):
            raise PermissionError(path)
        return real(path, flags)

    monkeypatch.setattr("supervisor.host.activity.os.open", refusing)
    mine = Sampler(lambda: [os.getpid()]).take().moments[os.getpid()]

    assert (mine.counters.io_bytes, mine.wait_ns) == (0, None)
    assert mine.counters.ticks > 0


NONE = Counters(0, 0, 0, 0, 0)


def moment(parent: int, *counters: int, start: int = 1) -> Moment:
    """A sleeping process."""
    return Moment(parent, start, frozenset("S"), Counters(*counters))


def test_what_moves_into_the_parent_is_not_work() -> None:
    """A child and its child end and are reaped: only what they did since then counts."""
    before = {
        1: moment(0, 10, 0, 5, 0, 1_000),
        2: moment(1, 500, 0, 50, 0, 7_000),
        3: moment(2, 200, 0, 20, 0, 3_000),
    }
    after = {1: moment(0, 11, 706, 5, 75, 11_500)}
    seen = between(Sample(0.0, 1, before), Sample(10.0, 1, after))

    ticks_per_s = os.sysconf("SC_CLK_TCK")
    assert seen.cpu_share == pytest.approx((1 + 6) / ticks_per_s / 10)
    assert seen.faults_per_s == pytest.approx(0.5)
    assert seen.io_bytes_per_s == pytest.approx(50.0)


def test_an_end_that_nobody_in_the_tree_reaped() -> None:
    """An orphan's counters go elsewhere; what the others did is not hidden by that."""
    before = {1: moment(0, 10, 0, 0, 0, 0), 2: moment(77, 9_999, 0, 9_999, 0, 9_999)}
    after = {1: moment(0, 60, 0, 0, 0, 800)}
    seen = between(Sample(0.0, 1, before), Sample(1.0, 1, after))

    assert seen.cpu_share == pytest.approx(50 / os.sysconf("SC_CLK_TCK"))
    assert seen.io_bytes_per_s == pytest.approx(800)


def test_a_pid_that_came_back_is_another_process() -> None:
    """Its counters begin at zero, and it is a birth."""
    before = {1: moment(0, 900, 0, 900, 0, 900)}
    after = {1: moment(0, 100, 0, 10, 0, 10, start=2)}
    seen = between(Sample(0.0, 1, before), Sample(1.0, 1, after))

    assert (seen.births, seen.faults_per_s, seen.io_bytes_per_s) == (1, 10, 10)


def test_waiting_for_a_cpu() -> None:
    """Only what was waited within the window counts, of processes that want one at both ends."""
    early = replace(moment(0, *NONE), states=frozenset("R"), wait_ns=1_000_000_000)
    late = replace(early, wait_ns=2_500_000_000)
    unknown = replace(early, wait_ns=None)

    def share(before: Moment, after: Moment) -> float:
        return between(Sample(0.0, 1, {1: before}), Sample(3.0, 1, {1: after})).cpu_wait_share

    assert share(early, late) == pytest.approx(0.5)
    assert share(unknown, late) == share(early, unknown) == 0.0
