"""How a daemon finds the runners of the one before: whatever journal, queue and locks may say."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from supervisor.host import identity
from tests.e2e.conftest import READER
from tests.e2e.daemon_host import Host, lives

pytestmark = pytest.mark.long

# Says that the disk is full until it is told otherwise.
NO_ROOM = """
import os, sys
if not os.path.exists("room"):
    raise OSError(28, "No space left on device")
"""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A folder for jobs, and a daemon that is not started yet."""
    made = Host(tmp_path, READER)
    yield made
    made.clean_up()


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with any job."""
    process = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    yield process
    process.kill()
    process.wait()


def running(host: Host, name: str = "hello", *options: str) -> str:
    """A job whose worker runs, under a daemon that was killed then; the id."""
    host.start(*options)
    job = host.submit(name)
    host.until(lambda: host.ran() == [name])
    host.kill()
    return job


def edited(file: Path, statement: str, *values: object) -> None:
    """Change what a database says, as no program of ours would."""
    with closing(sqlite3.connect(file)) as database, database:
        assert database.execute(statement, values).rowcount == 1


def kill_runner(host: Host, job: str) -> None:
    """SIGKILL a job's runner, and see it gone."""
    pidfd = os.pidfd_open(host.runner(job))
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    host.until(lambda: not lives(pidfd))
    os.close(pidfd)


def causes(host: Host, job: str) -> list[str]:
    """Why each attempt ended."""
    return [one["cause"] for one in host.show(job)["attempts"]]


@pytest.mark.parametrize("same_start", [False, True])
def test_a_stranger_with_the_pid_of_the_runner(
    host: Host, stranger: subprocess.Popen[bytes], *, same_start: bool
) -> None:
    """It is not taken for the runner, and no signal of ours reaches it; the job goes on."""
    job = running(host)
    kill_runner(host, job)
    journal = host.state_dir / "journal.sqlite"
    edited(journal, "UPDATE jobs SET runner_pid = ? WHERE id = ?", stranger.pid, job)
    if same_start:  # began in the same tick, of another boot
        ticks = identity.start_ticks(stranger.pid)
        edited(
            journal, "UPDATE jobs SET runner_ticks = ?, boot_id = 'other' WHERE id = ?", ticks, job
        )
    host.start()
    host.until(lambda: host.ran() == ["hello"] * 2)
    assert host.runner(job) != stranger.pid
    host.ok("stop", job)
    host.until_state(job, "stopped")
    assert stranger.poll() is None
    assert causes(host, job)[-1] == "stopped"


def test_a_runner_of_which_the_journal_says_another_pid(
    host: Host, stranger: subprocess.Popen[bytes]
) -> None:
    """Who holds the lock has the job: it is left alone, and its end is seen."""
    job = running(host)
    journal = host.state_dir / "journal.sqlite"
    edited(journal, "UPDATE jobs SET runner_pid = ? WHERE id = ?", stranger.pid, job)
    host.start()
    host.go_on("hello")
    assert host.code("wait", job) == 0
    assert host.ran() == ["hello"]
    assert stranger.poll() is None


def test_a_runner_whose_lock_file_was_deleted(host: Host) -> None:
    """The process that the journal names still has the job: no second one is started."""
    job = running(host)
    (host.state_dir / "jobs" / job / "runner.lock").unlink()
    before = host.runner(job)
    host.start()
    other = host.submit("other")
    host.go_on("other")
    assert host.code("wait", other) == 0
    assert host.runner(job) == before
    host.go_on("hello")
    assert host.code("wait", job) == 0
    assert host.ran() == ["hello", "other"]
    assert causes(host, job) == ["completed"]


def test_daemons_that_start_at_once(host: Host) -> None:
    """One of them serves, the others leave, and no job runs twice."""
    job = running(host)
    command = [*host.command(), "daemon", "run", "--launcher", "session"]
    with host.said.open("ab") as said:
        racing = [subprocess.Popen(command, stdout=said, stderr=said) for _ in range(4)]
    host.until(lambda: sum(one.poll() is None for one in racing) == 1)
    host.daemon = next(one for one in racing if one.poll() is None)
    host.until(host.answers)
    assert sorted(one.returncode for one in racing if one is not host.daemon) == [2, 2, 2]
    host.go_on("hello")
    assert host.code("wait", job) == 0
    assert host.ran() == ["hello"]


def test_a_daemon_that_was_killed_between_placing_and_launching(host: Host) -> None:
    """The job is started by the next one, once."""
    first = running(host, "first", "--cpus", "1")
    host.start("--cpus", "1")
    second = host.submit("second")
    host.kill()
    placed = "UPDATE entries SET phase = 'started', launches = 1, boot_id = ? WHERE id = ?"
    edited(host.state_dir / "queue.sqlite", placed, identity.boot_id(), second)
    host.start("--cpus", "1")
    host.until(lambda: sorted(host.ran()) == ["first", "second"])
    for name in ("first", "second"):
        host.go_on(name)
    assert host.code("wait", first, second) == 0
    assert sorted(host.ran()) == ["first", "second"]
    assert causes(host, second) == ["completed"]


def test_a_daemon_that_was_killed_between_launching_and_hearing_of_it(host: Host) -> None:
    """SIGKILL the moment the worker is there, again and again: it is always the same worker."""
    host.start()
    job = host.submit("hello")
    for _ in range(3):
        host.kill()
        host.start()
    host.until(lambda: "hello" in host.ran())
    host.go_on("hello")
    assert host.code("wait", job) == 0
    assert host.ran() == ["hello"]


@pytest.mark.parametrize(("wish", "state"), [("stop", "stopped"), ("cancel", "cancelled")])
def test_a_wish_that_was_stored_and_not_yet_passed_on(host: Host, wish: str, state: str) -> None:
    """The daemon died between its promise and the signal: the next one keeps the promise."""
    job = running(host)
    edited(host.state_dir / "queue.sqlite", "UPDATE entries SET wish = ? WHERE id = ?", wish, job)
    host.start()
    host.until_state(job, state)
    assert host.ran() == ["hello"]


def test_a_stop_that_was_passed_on_is_not_asked_for_again(host: Host) -> None:
    """A second signal would kill a worker that is saving."""
    host.start()
    (host.folder / "saves.py").write_text(
        "import pathlib, signal, sys, time\n"
        "def save(*_):\n"
        "    pathlib.Path('asked').touch()\n"
        "    while not pathlib.Path('save').exists():\n"
        "        time.sleep(0.02)\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "print('step 1', flush=True)\n"
        "signal.pause()\n"
    )
    job = host.submit("saves", command=["python", "saves.py"], timeouts={"stop": "1m"})
    host.until(lambda: host.show(job)["step"] == 1)
    host.ok("stop", job)
    host.until((host.folder / "asked").exists)
    host.kill()
    host.start()
    other = host.submit("other")
    host.go_on("other")
    assert host.code("wait", other) == 0
    assert host.state(job) == "stopping"
    (host.folder / "save").touch()
    assert host.code("wait", job) == 75
    assert [(one["cause"], one["exit_code"]) for one in host.show(job)["attempts"]] == [
        ("stopped", 0)
    ]


def test_a_job_that_waited_for_disk_space_when_its_runner_died(host: Host) -> None:
    """Its runner would have gone on by itself, so the next one does."""
    (host.folder / "no_room.py").write_text(NO_ROOM)
    host.start()
    job = host.submit("no_room", command=["python", "no_room.py"])
    # Each wait is twice as long as the one before; the fourth lasts longer than this test looks.
    host.until(lambda: (host.state(job), len(causes(host, job))) == ("holding", 4))
    os.kill(host.runner(job), signal.SIGKILL)
    (host.folder / "room").touch()
    assert host.code("wait", job) == 0
    assert causes(host, job) == ["disk_full"] * 4 + ["completed"]


def test_a_job_that_could_not_be_put_on_its_shelf_is_there_or_not(host: Host) -> None:
    """Refused means refused; accepted means that it runs. Never an entry without a job."""
    host.start()
    first = host.submit("first")
    host.go_on("first")
    assert host.code("wait", first) == 0
    with closing(sqlite3.connect(host.state_dir / "journal.sqlite", isolation_level=None)) as held:
        held.execute("BEGIN IMMEDIATE")
        done = host.give("submit", host.job("second"))
        held.execute("ROLLBACK")
    third = host.submit("third")
    for name in ("second", "third"):
        host.go_on(name)
    assert host.code("wait", third) == 0
    listed = [one["id"] for one in json.loads(host.read("ps"))]
    if done.returncode == 0:
        assert host.code("wait", done.stdout.strip()) == 0
    else:
        with closing(sqlite3.connect(host.state_dir / "queue.sqlite")) as queue:
            entries = [one for (one,) in queue.execute("SELECT id FROM entries ORDER BY seq")]
        assert (entries, "second" in host.ran()) == ([first, third], False), done.stderr
        assert len(listed) == 2
