"""The locks behind "never two at once", and what /proc says of who holds them."""

import asyncio
import os
import signal
import subprocess
import sys
import time

import pytest

from supervisor.host import identity
from supervisor.runner.locks import AlreadyRunning, Lock, hold_runner_lock, reclaim_worker_lock


@pytest.fixture
def hold(tmp_path):
    """Start a process that inherits the lock held, as a worker does, and ignores SIGTERM."""
    started = []

    def held(path):
        lock = Lock(path)
        assert lock.try_hold()
        code = "import signal; signal.signal(15, signal.SIG_IGN); print(flush=True); signal.pause()"
        child = subprocess.Popen(
            [sys.executable, "-c", code], pass_fds=[lock.fd], stdout=subprocess.PIPE
        )
        started.append(child)
        child.stdout.readline()
        lock.close()
        return child

    yield held
    for child in started:
        child.kill()
        child.wait()
        child.stdout.close()


def test_a_lock_is_held_once_and_by_whoever_inherited_it(tmp_path, hold):
    """The one who took it has let go; the child's copy keeps it."""
    path = tmp_path / "worker.lock"
    child = hold(path)
    lock = Lock(path)
    assert not lock.try_hold()
    assert identity.holders(path) == [child.pid]
    child.kill()
    child.wait()
    assert lock.try_hold()
    assert lock.held
    assert identity.holders(path) == []
    lock.close()


def test_a_second_runner_is_told_who_the_first_one_is(tmp_path, hold):
    """AlreadyRunning carries the process, and the file is let go."""
    child = hold(tmp_path / "runner.lock")
    with pytest.raises(AlreadyRunning, match=f"process {child.pid}") as told:
        hold_runner_lock(tmp_path / "runner.lock")
    assert told.value.pid == child.pid
    assert "unknown" in str(AlreadyRunning(None))


def test_a_lock_is_no_link_to_somewhere_else(tmp_path):
    """A link in its place is refused, or two jobs could share a lock, or none."""
    (tmp_path / "runner.lock").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic"):
        Lock(tmp_path / "runner.lock")


def test_what_is_left_of_a_tree_is_ended_and_nothing_else(tmp_path, hold, monkeypatch):
    """The holder is killed once its time to die by itself is over; a bystander lives."""
    path = tmp_path / "worker.lock"
    child, bystander = hold(path), hold(tmp_path / "other.lock")
    lock = Lock(path)
    monkeypatch.setattr("supervisor.runner.locks.DYING_S", 0.0)
    assert asyncio.run(reclaim_worker_lock(lock, time.monotonic)) == ()
    assert child.wait(5) == -signal.SIGKILL
    assert bystander.poll() is None
    lock.close()


def test_what_does_not_end_within_the_limit_is_named(tmp_path, hold):
    """The wait is bounded: the survivors are the answer, and the lock is not ours."""
    path = tmp_path / "worker.lock"
    child = hold(path)
    lock = Lock(path)
    assert asyncio.run(reclaim_worker_lock(lock, time.monotonic, limit_s=0.05)) == (child.pid,)
    assert not lock.held
    lock.close()


def test_a_process_is_told_from_its_successor_by_its_start():
    """Start ticks are those of /proc; a pid that nobody has gives None."""
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    assert identity.start_ticks(child.pid) >= identity.start_ticks(os.getpid())
    child.wait()
    assert identity.start_ticks(child.pid) is None


def test_the_hosts_own_words_are_readable():
    """A boot id of 36 characters, and a count of memory kills."""
    assert len(identity.boot_id()) == 36
    assert identity.oom_kills() >= 0


def test_a_lock_file_that_is_gone_has_no_holders(tmp_path):
    """Nothing to compare with: nobody is named, nobody is killed."""
    assert identity.holders(tmp_path / "none") == []
    identity.kill_holder(os.getpid(), tmp_path / "none")
