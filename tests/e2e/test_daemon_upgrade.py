"""A newer daemon takes over what an older version left: its journal, its jobs, its runners."""

import json
import os
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.conftest import READER
from tests.e2e.daemon_host import LIMIT_S, Host, training
from tests.e2e.earlier import FROZEN_FORMAT, PACKAGES, ROOT, Earlier, Unavailable, queued

NEWER = 99


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A folder for jobs, and a daemon that is not started yet."""
    made = Host(tmp_path, READER)
    yield made
    made.clean_up()


@pytest.fixture
def earlier(tmp_path: Path, host: Host) -> Iterator[Earlier]:
    """The version before this one; its runners end before the host is cleaned up."""
    del host
    try:
        made = Earlier.unpacked(tmp_path / "earlier")
    except Unavailable as why:
        pytest.skip(str(why))
    yield made
    made.clean_up()


def taken_over(host: Host, earlier: Earlier, steps: int = 400) -> str:
    """A training under a runner of the earlier version, with this version's daemon above it."""
    job = earlier.accept(host, training(host, steps=steps))
    queued(host, job)
    earlier.run(host, job)
    host.until(lambda: step_of(host, job) > 2)
    host.start()
    return job


def step_of(host: Host, job: str) -> int:
    """How far a job is."""
    return int(host.show(job)["step"] or 0)


def began(host: Host) -> list[int]:
    """The processes of all workers there were."""
    lines = (host.folder / "began.jsonl").read_text().splitlines()
    return [json.loads(line)["pid"] for line in lines]


def causes(host: Host, job: str) -> list[str]:
    """Why each attempt ended."""
    return [one["cause"] for one in host.show(job)["attempts"]]


def test_the_earlier_version_froze_the_job_its_own_way(host: Host, earlier: Earlier) -> None:
    """Else none of this would prove anything."""
    job = earlier.accept(host, training(host))
    with closing(sqlite3.connect(host.state_dir / "journal.sqlite")) as journal:
        (spec,) = journal.execute("SELECT spec FROM jobs WHERE id = ?", [job]).fetchone()
    assert json.loads(spec)["format"] == FROZEN_FORMAT


def test_the_runner_goes_on_and_is_seen_to_its_end(host: Host, earlier: Earlier) -> None:
    """The daemon finds it, lists its job as running, and sees it end: one worker all the time."""
    job = taken_over(host, earlier)
    runner = earlier.runners[0]
    assert host.runner(job) == runner.pid
    listed = json.loads(host.read("ps"))
    assert [(one["id"], one["state"]) for one in listed] == [(job, "running")]
    before = step_of(host, job)
    host.until(lambda: step_of(host, job) > before)
    assert host.code("wait", job) == 0
    assert causes(host, job) == ["completed"]
    assert began(host) == [host.show(job)["attempts"][0]["pid"]]
    assert runner.wait(LIMIT_S) == 0


def test_who_waits_for_its_end_starts_then(host: Host, earlier: Earlier) -> None:
    """What the earlier version runs takes its place in the queue like any other."""
    job = earlier.accept(host, training(host, steps=150))
    queued(host, job)
    earlier.run(host, job)
    host.until(lambda: step_of(host, job) > 2)
    host.start("--cpus", "1")
    host.go_on("next")
    follower = host.submit("next", "--after", job)
    assert host.ran() == []
    assert host.code("wait", follower) == 0
    assert causes(host, job) == ["completed"]


def test_it_is_stopped_and_resumed_by_the_new_version(host: Host, earlier: Earlier) -> None:
    """`stop` reaches the old runner; `resume` gives the job to a new one, which reads it all."""
    job = taken_over(host, earlier, steps=200)
    host.ok("stop", job)
    host.until_state(job, "stopped")
    assert host.code("wait", job) == 75
    assert earlier.runners[0].wait(LIMIT_S) == 75
    host.ok("resume", job)
    assert host.code("wait", job) == 0
    attempts = host.show(job)["attempts"]
    assert [one["cause"] for one in attempts] == ["stopped", "completed"]
    assert attempts[1]["resumed_step"] > 2


def test_it_is_cancelled_for_good(host: Host, earlier: Earlier) -> None:
    """The old runner knows only of stopping; the journal says cancelled all the same."""
    job = taken_over(host, earlier)
    host.ok("cancel", job)
    host.until_state(job, "cancelled")
    assert earlier.runners[0].wait(LIMIT_S) == 75
    assert host.code("resume", job) == 2


def test_its_worker_is_killed(
    host: Host, earlier: Earlier, alive: Callable[[int], bool], eventually: Callable[..., None]
) -> None:
    """`kill` does not wait for a worker that takes its time."""
    (host.folder / "deaf.py").write_text(
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('step 1', flush=True)\n"
        "time.sleep(1e6)\n"
    )
    file = host.job("deaf", command=["python", "deaf.py"], timeouts={"stop": "1h"})
    job = earlier.accept(host, file)
    queued(host, job, stop_s=3600.0)
    earlier.run(host, job)
    host.until(lambda: step_of(host, job) == 1)
    host.start()
    worker = host.show(job)["attempts"][0]["pid"]
    host.ok("kill", job)
    host.until_state(job, "stopped")
    eventually(lambda: not alive(worker))
    assert earlier.runners[0].wait(LIMIT_S) == 130


def test_a_runner_that_was_killed_is_replaced_by_a_new_one(host: Host, earlier: Earlier) -> None:
    """The new version goes on from the checkpoint that the old one had seen."""
    job = taken_over(host, earlier, steps=200)
    earlier.runners[0].send_signal(signal.SIGKILL)
    assert host.code("wait", job) == 0
    attempts = host.show(job)["attempts"]
    assert [one["cause"] for one in attempts] == ["runner_lost", "completed"]
    assert attempts[1]["resumed_step"] > 2
    assert len(began(host)) == 2


def test_a_runner_that_ended_before_the_new_daemon_came(host: Host, earlier: Earlier) -> None:
    """Its job is where the journal has it."""
    job = earlier.accept(host, training(host, steps=5))
    queued(host, job)
    earlier.run(host, job)
    assert earlier.runners[0].wait(LIMIT_S) == 0
    host.start()
    assert host.code("wait", job) == 0
    assert causes(host, job) == ["completed"]


def test_a_job_that_waited_for_the_old_daemon_is_run_by_the_new_one(
    host: Host, earlier: Earlier
) -> None:
    """Placed, and never launched: an entry of which no runner was ever seen."""
    job = earlier.accept(host, training(host, steps=5))
    queued(host, job)
    host.start()
    assert host.code("wait", job) == 0
    assert causes(host, job) == ["completed"]


def test_the_files_of_the_program_are_replaced_under_a_runner(host: Host, earlier: Earlier) -> None:
    """As `pip install --upgrade` does: its worker fails, and what starts the next one is newer."""
    job = taken_over(host, earlier, steps=200)
    for package in PACKAGES:
        place = earlier.folder / package
        shutil.copytree(ROOT / package, place.with_suffix(".new"))
        place.rename(place.with_suffix(".old"))  # without a moment in which there is nothing
        place.with_suffix(".new").rename(place)
        shutil.rmtree(place.with_suffix(".old"))
    os.kill(host.show(job)["attempts"][0]["pid"], signal.SIGKILL)
    assert host.code("wait", job) == 0
    attempts = host.show(job)["attempts"]
    assert [one["cause"] for one in attempts] == ["signal", "completed"]
    assert attempts[1]["resumed_step"] > 2
    assert earlier.runners[0].wait(LIMIT_S) == 0


@pytest.mark.parametrize("name", ["queue", "journal"])
def test_a_newer_file_is_refused_and_not_changed(
    host: Host, name: str, alive: Callable[[int], bool]
) -> None:
    """A downgrade: the daemon, and a runner, say so and leave everything as it is."""
    host.start()
    job = host.submit("done")
    host.until(lambda: host.ran() == ["done"])
    runner = host.runner(job)
    host.go_on("done")
    assert host.code("wait", job) == 0
    host.leave()
    host.until(lambda: not alive(runner))  # it writes to its end
    for one in ("queue", "journal"):  # whoever opens it next takes its log in
        with closing(sqlite3.connect(host.state_dir / f"{one}.sqlite")) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    file = host.state_dir / f"{name}.sqlite"
    known = versioned(file, NEWER)
    before = contents(host.state_dir)
    refused = host.give("daemon", "run", "--launcher", "session")
    assert refused.returncode != 0
    for word in (str(file), "newer supervise", str(NEWER), "Nothing was changed"):
        assert word in refused.stderr
    assert contents(host.state_dir) == before
    assert host.code("ps") == (3 if name == "journal" else 0)
    versioned(file, known)
    host.start()
    assert host.state(job) == "succeeded"


def test_a_runner_refuses_a_newer_journal(host: Host) -> None:
    """It leaves without having changed anything, and the job goes on once the journal is right."""
    host.start()
    first = host.submit("first")
    job = host.submit("waits", "--after", "first")
    host.until(lambda: host.ran() == ["first"])
    host.kill()
    kill_and_see_gone(host.runner(first))
    file = host.state_dir / "journal.sqlite"
    known = versioned(file, NEWER)
    before = contents(host.state_dir)
    command = [sys.executable, "-m", "supervisor.runner", "--state-dir", str(host.state_dir), job]
    refused = subprocess.run(
        command, cwd=host.folder, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert refused.returncode == 3
    assert "newer supervise" in refused.stderr
    assert contents(host.state_dir) == before
    versioned(file, known)
    host.start()
    for name in ("first", "waits"):
        host.go_on(name)
    assert host.code("wait", job) == 0


def kill_and_see_gone(pid: int) -> None:
    """SIGKILL a runner, whose worker dies with it."""
    pidfd = os.pidfd_open(pid)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    ended, _, _ = select.select([pidfd], [], [], LIMIT_S)
    os.close(pidfd)
    assert ended


def versioned(file: Path, version: int) -> int:
    """Have a database say that it is of this version; what it said before."""
    with closing(sqlite3.connect(file)) as database, database:
        (before,) = database.execute("PRAGMA user_version").fetchone()
        database.execute(f"PRAGMA user_version = {version}")
    return int(before)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a state folder, but for sockets, locks, and what SQLite keeps for readers."""
    passing = {"daemon.sock", "daemon.lock"}
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in passing and path.suffix != ".sqlite-shm"
    }
