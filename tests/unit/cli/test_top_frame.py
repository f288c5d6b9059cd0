"""What `supervise top` knows: real processes, real leases, a driver that may hang."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from supervisor.cli import top_gpus
from supervisor.cli.top_frame import Watcher
from supervisor.cli.top_gpus import NOTHING_YET, GpuFeed, GpuView
from supervisor.core.causes import Cause
from supervisor.core.events import AttemptSpawned, BackoffElapsed, CheckpointChosen
from supervisor.gpu.leases import Leases, Owner, Want
from supervisor.gpu.probe import look
from supervisor.gpu.shared_folder import ENVIRONMENT
from supervisor.host import identity
from supervisor.views import times

MIB = 1 << 20
# A worker whose child holds memory and spins, and says when it does.
WORKER = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", '''
import os, threading
held = bytearray(b"1") * (64 << 20)
print(os.getpid(), flush=True)
threading.Thread(target=lambda: (__import__("sys").stdin.read(), os._exit(0))).start()
while True: pass
'''], stdin=0)
child.wait()
"""


@contextmanager
def _worker(code=WORKER):
    """A worker that has said that it is ready; it ends with its stdin."""
    command = [sys.executable, "-c", code]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        try:
            assert process.stdout.readline()
            yield process
        finally:
            process.stdin.close()
            process.wait(10)


@pytest.fixture
def worker():
    """Start a worker with a busy child."""
    with _worker() as process:
        yield process


@pytest.fixture
def lease_dir(tmp_path, monkeypatch):
    """Keep leases in a folder of this test's own."""
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "leases"))
    return tmp_path / "leases"


pytestmark = pytest.mark.usefixtures("lease_dir")


def running(story, pid, ticks=None):
    """Let the job run with this worker."""
    story.runner().saw(CheckpointChosen(None, None))
    ticks = identity.start_ticks(pid) if ticks is None else ticks
    return story.saw(AttemptSpawned(story.state.attempt, pid, ticks))


def leased(story, inventory, readings, want):
    """Lease GPUs in the name of the job's runner, which is this process."""
    mine = os.getpid()
    owner = Owner(story.id, "x", mine, identity.start_ticks(mine), identity.boot_id())
    return Leases(story.folder.parent / "leases").acquire(want, inventory, readings, owner)


def seen_now():
    """The GPUs as the live view would see them."""
    inventory, readings = look()
    return GpuView(inventory, readings, time.monotonic(), inventory.problem or "")


def test_the_whole_tree_is_counted(new_job, state_dir, worker, eventually):
    """CPU and memory of a child that the worker started are the job's."""
    story = running(new_job(), worker.pid)
    story.journal.show_progress(story.id, 77, 900)
    watcher = Watcher(state_dir)
    (first,) = watcher.frame(NOTHING_YET).jobs
    assert (first.id, first.state, first.step, first.total) == (story.id, "running", 77, 900)
    assert (first.attempt, first.processes, first.cpu_share) == (1, 2, None)
    assert first.memory_bytes > 64 * MIB
    # The first one that is not nought: frames may follow each other within a tick of the clock.
    assert eventually(lambda: watcher.frame(NOTHING_YET).jobs[0].cpu_share, 60.0) > 0


def test_another_process_with_the_worker_s_pid_is_nobody(new_job, state_dir, worker):
    """A pid that came back with another start belongs to a stranger."""
    running(new_job(), worker.pid, ticks=1)
    (job,) = Watcher(state_dir).frame(NOTHING_YET).jobs
    assert (job.processes, job.memory_bytes, job.cpu_share) == (0, None, None)


def test_only_jobs_with_a_runner_are_shown(new_job, state_dir):
    """A job that is over is not there; one whose runner is gone is counted."""
    new_job("idle-0a0a0a", name="idle")
    new_job("lost-0b0b0b", name="lost").runner(pid=2**22 - 1)
    over = running(new_job("over-0c0c0c", name="over"), 7, ticks=7)
    over.exits(code=0).ends(Cause.COMPLETED, "done", action="finish", done=True)
    new_job("here-0d0d0d", name="here").runner()
    frame = Watcher(state_dir).frame(NOTHING_YET)
    assert ([one.id for one in frame.jobs], frame.lost) == (["here-0d0d0d"], 2)


def test_no_state_folder(state_dir):
    """Where no job ever ran there is none, and none is made."""
    frame = Watcher(state_dir).frame(NOTHING_YET)
    assert (frame.jobs, frame.lost, state_dir.exists()) == ((), 0, False)
    assert frame.host.memory_used_bytes < frame.host.memory_total_bytes


def test_restarts_and_silence(new_job, state_dir, monkeypatch):
    """Attempts that ended by a fault count; the age is that of the running attempt's log."""
    story = running(new_job(), 7, ticks=7).progressed().exits(code=1)
    story.ends(Cause.EXIT_CODE, "exit code 1").saw(BackoffElapsed())
    story.saw(CheckpointChosen(None, None))
    log = story.attempt(2).log
    log.write_bytes(b"step 1\n")
    os.utime(log, (1000.0, 1000.0))
    monkeypatch.setattr(times, "now", lambda: 1042.0)
    monkeypatch.setattr("supervisor.cli.top_frame.now", lambda: 1042.0)
    (job,) = Watcher(state_dir).frame(NOTHING_YET).jobs
    assert (job.attempt, job.restarts, job.silent_s) == (2, 1, 42.0)


def test_gpus_of_a_job(new_job, state_dir, worker, fake_gpus):
    """A lease joins job and GPU; of its memory, what the job's tree uses is the job's."""
    story = running(new_job(), worker.pid)
    first, second = (one.uuid for one in fake_gpus.gpus)
    before = seen_now()
    lease = leased(story, before.inventory, before.readings, Want(1, None, share=False))
    fake_gpus.add_process(first, worker.pid, used=3 << 30)
    fake_gpus.add_process(first, 1, used=1 << 30)
    fake_gpus.add_process(second, os.getpid(), used=2 << 30)
    fake_gpus.set(first, utilization=97, power_mw=512_000)
    frame = Watcher(state_dir).frame(seen_now())
    lease.release()
    (job,) = frame.jobs
    assert (job.gpu.names, job.gpu.utilization, job.gpu.memory_bytes) == (("0",), 97.0, 3 << 30)
    held, used = frame.gpus
    assert (held.jobs, held.note, held.reading.power_w) == ((story.id,), "", 512.0)
    assert used.jobs == ()
    assert used.note.startswith(f"process {os.getpid()} (")


def test_a_gpu_set_aside(new_job, state_dir, lease_dir, fake_gpus):
    """Its row says so, and why."""
    new_job()
    owner = Owner("net-1", "x", 1, 1, identity.boot_id())
    Leases(lease_dir).set_aside(fake_gpus.gpus[1].uuid, "Xid 79", owner)
    assert [one.note for one in Watcher(state_dir).frame(seen_now()).gpus] == [
        "",
        "set aside: Xid 79",
    ]


def test_leases_that_cannot_be_read(state_dir, lease_dir):
    """A lease folder that cannot be trusted is a problem that is told, and the view goes on."""
    lease_dir.mkdir()
    lease_dir.chmod(0o777)
    assert "chmod +t" in Watcher(state_dir).frame(NOTHING_YET).gpu_problem


def test_the_feed_goes_on_while_the_driver_hangs(fake_gpus, eventually, monkeypatch):
    """The last answer stays, with what came of the new question; at the end no probe is left."""
    monkeypatch.setattr(top_gpus, "TIMEOUT_S", 2.0)
    with GpuFeed(every_s=0.01) as feed:
        eventually(lambda: feed.latest.readings)
        fake_gpus.block("nvmlDeviceGetUtilizationRates")
        eventually(lambda: feed.latest.problem)
        stale = feed.latest
        assert "nvmlDeviceGetUtilizationRates" in stale.problem
        assert len(stale.readings) == 2
        fake_gpus.mend()
        eventually(lambda: not feed.latest.problem)
        assert feed.latest.at_s > stale.at_s
    assert not feed._thread.is_alive()


def test_the_feed_ends_in_the_middle_of_a_question(fake_gpus, eventually):
    """Leaving does not wait for a driver that does not answer."""
    with GpuFeed(every_s=0.01) as feed:
        eventually(lambda: feed.latest.readings)
        fake_gpus.block("nvmlDeviceGetUtilizationRates")
        asked_s = time.monotonic()
        eventually(lambda: time.monotonic() > asked_s + 0.2)
    assert not feed._thread.is_alive()


def test_the_feed_asks_once_where_there_is_no_gpu(fake_driver, eventually):
    """A host without GPUs is not asked again and again."""
    with GpuFeed(every_s=60.0) as feed:
        eventually(lambda: not feed._thread.is_alive())
    assert feed.latest.inventory.gpus == ()
