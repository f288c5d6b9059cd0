"""What /proc is made to say, about real processes."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from supervisor.host import cgroup_kill, identity, processes
from supervisor.host.processes import ProcessId, Stat

NAMED = "import ctypes; ctypes.CDLL(None).prctl(15, b') R 1 (x', 0, 0, 0); "
LEADERLESS = (
    "import ctypes, os, threading, time;"
    " threading.Thread(target=lambda: (os.write(1, b'ready\\n'), os.read(0, 1))).start();"
    " ctypes.CDLL(None).pthread_exit(None)"
)


@pytest.fixture
def child() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Give a way to start Python code; it has spoken when it is given, and is ended after."""
    started = []

    def start(code: str, **settings: object) -> subprocess.Popen[bytes]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = subprocess.Popen([sys.executable, "-S", "-c", code], **pipes, **settings)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            process.kill()
        process.communicate(timeout=20)


WAITS = "import os; os.write(1, b'ready\\n'); os.read(0, 1)"


def fork_below() -> str:
    """Code of a parent with one child; each waits."""
    return f"import os; os.fork() or (os.setsid(), os.read(0, 1), os._exit(0)); {WAITS}"


def test_a_process_is_read_whatever_its_name(child, eventually):
    """A name that looks like fields of its own does not shift the real ones."""
    process = child(NAMED + WAITS, start_new_session=True)
    eventually(lambda: processes.stat(process.pid).state == "S")
    seen = processes.stat(process.pid)
    assert (seen.pid, seen.ppid, seen.group) == (process.pid, os.getpid(), process.pid)
    assert (seen.session, seen.threads) == (process.pid, 1)
    assert seen.minor_faults > 0
    assert not seen.ended
    assert processes.snapshot()[process.pid].start_ticks == seen.start_ticks


def test_who_is_gone_raises_and_does_not_live(child):
    """A zombie has ended; once it is reaped there is no such process."""
    process = child(WAITS)
    was = processes.living(process.pid)
    assert was == ProcessId(process.pid, processes.stat(process.pid).start_ticks)
    assert processes.still_living(was)
    assert not processes.still_living(ProcessId(process.pid, was.start_ticks - 1))
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert processes.stat(process.pid).state == "Z"
    assert processes.children(os.getpid()).count(process.pid) == 1
    assert (processes.living(process.pid), processes.still_living(was)) == (None, False)
    process.wait(20)
    assert processes.living(process.pid) is None
    with pytest.raises(ProcessLookupError):
        processes.stat(process.pid)


def test_a_process_outlives_its_main_thread(child, eventually):
    """A leader that is a zombie with other threads left still lives."""
    process = child(LEADERLESS)
    eventually(lambda: processes.stat(process.pid).state == "Z")
    assert processes.stat(process.pid).threads == 1 + 1
    assert processes.living(process.pid) is not None


def test_children_and_descendants(child):
    """Direct children are told, and whoever descends from a root, of whatever session."""
    process = child(fork_below())
    [below] = processes.children(process.pid)
    everybody = processes.snapshot()
    assert processes.descendants(everybody, [process.pid]) == {below}
    assert {process.pid, below} <= processes.descendants(everybody, [os.getpid()])
    assert os.getpid() not in processes.descendants(everybody, [os.getpid()])
    os.kill(below, signal.SIGKILL)


def test_children_of_a_thread_are_children(child):
    """A child that another thread than the main one started is found as well."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(child(WAITS).pid))
    thread.start()
    thread.join(20)
    assert found[0] in processes.children(os.getpid())


def test_a_kernel_without_lists_of_children(child, monkeypatch, tmp_path):
    """Where the kernel lists no children they are found by their parent."""
    process = child(WAITS)
    picture = tmp_path / "7" / "task" / "7"
    picture.mkdir(parents=True)
    everybody = {one: a_stat(one, parent) for one, parent in ((7, 1), (8, 7), (9, 8))}
    with monkeypatch.context() as patch:
        patch.setattr(processes, "_PROC", str(tmp_path))
        patch.setattr(processes, "snapshot", lambda: everybody)
        assert processes.children(7) == [8]
        assert processes.children(process.pid) == []


def a_stat(pid: int, ppid: int) -> Stat:
    """Return a process of which only its parent matters."""
    return Stat(pid, ppid, pid, pid, "S", 1, 1, 0, 0, 0)


def test_a_circle_of_parents_ends():
    """A snapshot that is not of one moment may have a circle in it, and is walked once."""
    everybody = {one: a_stat(one, parent) for one, parent in ((2, 4), (3, 2), (4, 3), (5, 1))}
    assert processes.descendants(everybody, [2]) == {3, 4}
    assert processes.descendants(everybody, [9]) == set()


def test_a_variable_is_read_whole(child):
    """A variable is found by its whole name, also when it is empty; another's is not its."""
    process = child(WAITS, env={"XY": "no", "X": "a=b", "EMPTY": "", "PATH": os.environ["PATH"]})
    assert processes.variable(process.pid, b"X") == b"a=b"
    assert processes.variable(process.pid, b"EMPTY") == b""
    assert processes.variable(process.pid, b"Y") is None
    process.kill()
    process.wait(20)
    assert processes.variable(process.pid, b"X") is None


def test_hidden_processes_live(monkeypatch):
    """Where the kernel hides a process from this user, that it is there is what is known."""

    def hidden(pid: int) -> Stat:
        raise PermissionError(pid)

    monkeypatch.setattr(processes, "stat", hidden)
    assert processes.living(1) == ProcessId(1, 0)
    assert processes.still_living(ProcessId(1, 0))


def test_only_the_very_process_is_killed(child):
    """A kill is for a process with its start: another one with its pid is left alone."""
    process, other = child(WAITS), child(WAITS)
    was = processes.living(process.pid)
    identity.kill(was)
    assert process.wait(20) == -signal.SIGKILL
    identity.kill(was)
    assert identity.start_ticks(process.pid) is None
    identity.kill(processes.living(other.pid)._replace(start_ticks=1))
    other.communicate(b"x", timeout=20)
    assert other.returncode == 0


def test_those_born_during_a_kill_are_killed(child):
    """A tree that grows while it is killed member by member is killed to its last member."""
    first, second, stranger = child(WAITS), child(WAITS), child(WAITS)
    seen: list[set[int]] = []

    def listed() -> set[int]:
        seen.append({first.pid} if len(seen) < 2 else {first.pid, second.pid})
        return seen[-1]

    cgroup_kill.one_by_one(listed)
    assert (first.wait(20), second.wait(20)) == (-signal.SIGKILL, -signal.SIGKILL)
    left = [{stranger.pid}, set()]  # it was listed, and was a member no more once it was pinned
    cgroup_kill.one_by_one(lambda: left.pop(0) if left else set())
    stranger.communicate(b"x", timeout=20)
    assert stranger.returncode == 0
