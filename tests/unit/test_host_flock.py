"""Who holds a lock is seen without taking it."""

import fcntl
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from supervisor.host import flock
from supervisor.host.flock import UNKNOWN, holder

HOLD = "import fcntl, os, sys\nfd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
HOLD += "fcntl.flock(fd, fcntl.LOCK_EX)\n"
WAIT = "print(os.getpid(), flush=True)\nsys.stdin.read()\n"
# Takes the lock, leaves it to a child, and ends.
BEQUEATH = HOLD + "if os.fork():\n    os._exit(0)\n" + WAIT


@pytest.fixture
def path(tmp_path):
    """Give the path of a lock file that is not there yet."""
    return tmp_path / "a.lock"


@pytest.fixture
def run():
    """Start a script that takes a path, and wait for the pid that it prints."""
    with ExitStack() as closing:

        def started(script, path):
            command = [sys.executable, "-c", script, str(path)]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            child = closing.enter_context(subprocess.Popen(command, **pipes))
            closing.callback(child.stdin.close)
            return int(child.stdout.readline())

        yield started


@pytest.fixture
def listed(monkeypatch, tmp_path):
    """Give a way to say what the kernel lists."""

    def say(*lines):
        file = tmp_path / "locks"
        file.write_text("".join(f"{line}\n" for line in lines))
        monkeypatch.setattr(flock, "_LOCKS", file)

    return say


def line(path, pid, kind="FLOCK", device=None):
    """A line of /proc/locks about this file."""
    seen = path.stat()
    device = device or f"{os.major(seen.st_dev):02x}:{os.minor(seen.st_dev):02x}"
    return f"1: {kind}  ADVISORY  WRITE {pid} {device}:{seen.st_ino} 0 EOF"


def test_nobody_holds_what_is_not_there_or_not_locked(path):
    """Neither a missing file nor one that somebody merely has open is held."""
    assert holder(path) is None
    with path.open("w"):
        assert holder(path) is None


def test_the_process_that_took_the_lock_is_named(path, run):
    """Another one, or this one; and when it is released, nobody."""
    pid = run(HOLD + WAIT, path)
    assert holder(path) == pid
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert holder(path) is None
    with path.open("w") as mine:
        fcntl.flock(mine, fcntl.LOCK_EX)
        assert holder(path) == os.getpid()
    assert holder(path) is None


def test_a_shared_lock_is_a_lock(path):
    """Whoever asks wants to know whether an exclusive one would be refused."""
    with path.open("w") as mine:
        fcntl.flock(mine, fcntl.LOCK_SH)
        assert holder(path) == os.getpid()


def test_asking_is_in_nobodys_way(path):
    """The lock is not taken for a moment: who tries to take it meanwhile gets it."""
    with path.open("w") as mine:
        for _ in range(50):
            assert holder(path) is None
            fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(mine, fcntl.LOCK_UN)


def test_a_lock_that_a_child_inherited_is_the_childs(path, run):
    """The kernel goes on naming the parent, which is dead; its pid may be anybody's."""
    child = run(BEQUEATH, path)
    inode = str(path.stat().st_ino)
    lines = [one for one in Path("/proc/locks").read_text().splitlines() if inode in one]
    assert [one for one in lines if f" {child} " in one] == []
    assert holder(path) == child


def test_a_pid_that_came_back_as_somebody_elses_holds_nothing(path, run, listed):
    """The kernel names a process that has nothing to do with the file: the heir is found."""
    child = run(BEQUEATH, path)
    listed(line(path, os.getpid()))
    assert holder(path) == child


@pytest.mark.parametrize("pid", [0, -1, 4_194_305])
def test_one_that_cannot_be_seen_from_here_is_unknown(path, listed, pid):
    """0 and -1 stand for processes of another namespace; and a dead one's heir may be hidden."""
    path.touch()
    listed(line(path, pid))
    assert holder(path) == UNKNOWN


def test_one_that_may_not_be_looked_into_is_named_all_the_same(path, listed, monkeypatch):
    """Another user's process: the kernel's word is all there is."""
    path.touch()
    listed(line(path, 1))
    monkeypatch.setattr(flock, "_has_open", lambda _pid, _wanted: None)
    assert holder(path) == 1


def test_only_flocks_of_this_very_file_count(path, listed, tmp_path):
    """Other kinds of locks, who waits for one, other files, other disks, and what is no line."""
    path.touch()
    other = tmp_path / "other"
    other.touch()
    waiting = line(path, 1).replace("1: FLOCK", "1: -> FLOCK")
    mine = os.getpid()
    strange = ["", "1:", "1: FLOCK ADVISORY WRITE x y:z 0 EOF", line(path, mine, kind="POSIX")]
    listed(*strange, line(other, mine), waiting, line(path, mine, device="fe:77"))
    assert holder(path) is None


def test_a_file_system_that_locks_by_another_device_is_understood(path, listed):
    """Btrfs and overlays do: then only a process that has the file open counts."""
    path.touch()
    listed(line(path, os.getpid(), device="00:77"))
    with path.open("w"):
        assert holder(path) == os.getpid()


def test_where_the_kernel_lists_nothing_who_has_it_open_holds_it(path, run, listed, monkeypatch):
    """In a pid namespace a lock whose taker is dead is not listed at all."""
    child = run(BEQUEATH, path)
    listed()
    monkeypatch.setattr(flock, "_FIRST_NAMESPACE", 1)
    assert holder(path) == child


def test_one_of_many_thousands_is_found(path, listed, tmp_path):
    """The list is read line by line."""
    path.touch()
    others = [f"{n}: FLOCK  ADVISORY  WRITE {n} 00:99:{n} 0 EOF" for n in range(1, 20_000)]
    listed(*others, line(path, os.getpid()))
    with path.open("w"):
        assert holder(path) == os.getpid()


def test_a_kernel_without_the_list_names_nobody(path, monkeypatch):
    """No list, and nobody has it open."""
    path.touch()
    monkeypatch.setattr(flock, "_LOCKS", path.with_name("missing"))
    assert holder(path) is None


def test_a_folder_that_may_not_be_read_is_said(tmp_path):
    """Not knowing is not the same as nobody."""
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        holder(tmp_path / "file" / "a.lock")
