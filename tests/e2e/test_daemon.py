"""A host's jobs in the hands of a real daemon: what it promises, and what survives its death."""

import json
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from supervisor.client.errors import Refused
from supervisor.client.find import find_daemon
from tests.e2e.conftest import READER
from tests.e2e.daemon_host import Host, lives, training

# Takes its time to save when it is asked to stop.
SAVES_SLOWLY = """
import pathlib, signal, sys, time
def save(*_):
    pathlib.Path("asked").touch()
    time.sleep(1.5)
    pathlib.Path("saved").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
pathlib.Path("ready").touch()
while True:
    time.sleep(0.1)
"""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A folder for jobs, and a daemon that is not started yet."""
    made = Host(tmp_path, READER)
    yield made
    made.clean_up()


def step_of(host: Host, job: str) -> int:
    """How far a job is."""
    return int(host.show(job)["step"] or 0)


def test_a_submitted_job_runs_to_its_end(host: Host) -> None:
    """Submit prints the id alone; wait has the job's exit code; the reading verbs know the job."""
    host.start()
    job = host.submit("hello")
    host.until(lambda: host.ran() == ["hello"])
    host.go_on("hello")
    assert host.code("wait", job) == 0
    shown = host.show(job)
    assert shown["state"] == "succeeded"
    assert [one["cause"] for one in shown["attempts"]] == ["completed"]


def test_exit_codes_of_wait_are_those_of_run(host: Host) -> None:
    """A job that fails for good makes `wait` fail."""
    host.start()
    job = host.submit("fails", restart={"budget": 0})
    host.go_on("fails", 5)
    assert host.code("wait", job) == 1
    assert host.state(job) == "failed"


def test_workers_do_not_notice_the_death_of_the_daemon(
    host: Host, alive: Callable[[int], bool]
) -> None:
    """SIGKILL, another daemon: the same process goes on, and its end is seen."""
    host.start()
    job = host.ok("submit", training(host)).strip()
    host.until(lambda: step_of(host, job) > 2)
    worker = host.show(job)["attempts"][0]["pid"]
    host.kill()
    before = step_of(host, job)
    host.until(lambda: step_of(host, job) > before)
    host.start()
    assert alive(worker)
    assert host.code("wait", job) == 0
    attempts = host.show(job)["attempts"]
    assert [(one["pid"], one["cause"]) for one in attempts] == [(worker, "completed")]


def test_a_job_that_ended_while_nobody_looked(host: Host) -> None:
    """The next daemon reads its end from the journal, and starts whoever waited for it."""
    host.start("--cpus", "1")
    first, second = host.submit("first"), host.submit("second")
    host.until(lambda: host.ran() == ["first"])
    host.kill()
    runner = os.pidfd_open(host.runner(first))
    host.go_on("first")
    host.until(lambda: not lives(runner))
    os.close(runner)
    host.go_on("second")
    host.start("--cpus", "1")
    assert host.code("wait", first, second) == 0
    assert host.ran() == ["first", "second"]


def test_a_runner_that_died_is_replaced(host: Host) -> None:
    """SIGKILL of a runner: another one takes the job over, from its newest checkpoint."""
    host.start()
    job = host.ok("submit", training(host, steps=150)).strip()
    host.until(lambda: step_of(host, job) > 5)
    os.kill(host.runner(job), signal.SIGKILL)
    assert host.code("wait", job) == 0
    attempts = host.show(job)["attempts"]
    assert [one["cause"] for one in attempts] == ["runner_lost", "completed"]
    assert attempts[1]["resumed_step"] > 5


def test_after_a_reboot_all_jobs_go_on_in_the_old_order(host: Host) -> None:
    """Runner and daemon are gone, and so is the boot that they were of."""
    host.start()
    jobs = [host.submit(name) for name in ("one", "two")]
    host.until(lambda: sorted(host.ran()) == ["one", "two"])
    host.kill()
    for job in jobs:
        _kill_and_see_gone(host.runner(job))
    _pretend_a_reboot(host.state_dir)
    host.start()
    host.until(lambda: len(host.ran()) == 4)
    for name in ("one", "two"):
        host.go_on(name)
    assert host.code("wait", *jobs) == 0
    causes = [[one["cause"] for one in host.show(job)["attempts"]] for job in jobs]
    assert causes == [["host_rebooted", "completed"]] * 2


def _kill_and_see_gone(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    while lives(pidfd):
        os.sched_yield()
    os.close(pidfd)


def _pretend_a_reboot(state_dir: Path) -> None:
    with closing(sqlite3.connect(state_dir / "journal.sqlite")) as journal, journal:
        journal.execute("UPDATE jobs SET boot_id = 'an earlier boot'")
    with closing(sqlite3.connect(state_dir / "queue.sqlite")) as queue, queue:
        queue.execute("UPDATE entries SET boot_id = 'an earlier boot'")


def test_stop_resume_cancel(host: Host) -> None:
    """A stopped job goes on where it was; a cancelled one never again."""
    host.start()
    job = host.ok("submit", training(host)).strip()
    host.until(lambda: step_of(host, job) > 3)
    host.ok("stop", job)
    host.until_state(job, "stopped")
    assert host.code("wait", job) == 75
    host.ok("resume", job)
    host.until(lambda: len(host.show(job)["attempts"]) == 2)
    assert host.show(job)["attempts"][1]["resumed_step"] > 3
    host.ok("cancel", job)
    host.until_state(job, "cancelled")
    assert host.code("resume", job) == 2


def test_who_asks_twice_to_stop_does_not_kill(host: Host) -> None:
    """The worker is still saving; only `kill` is by force, and `cancel` is no reason for it."""
    host.start()
    (host.folder / "slow.py").write_text(SAVES_SLOWLY)
    job = host.submit("slow", command=["python", "slow.py"])
    host.until((host.folder / "ready").exists)
    host.ok("stop", job)
    host.until((host.folder / "asked").exists)
    host.ok("stop", job)
    host.ok("cancel", job)
    host.until_state(job, "cancelled")
    assert (host.folder / "saved").exists()
    assert [one["cause"] for one in host.show(job)["attempts"]] == ["stopped"]


def test_a_stopped_job_is_not_started_by_the_next_daemon(host: Host) -> None:
    """Its owner stopped it, and nobody else may undo that."""
    host.start()
    job = host.submit("hello")
    host.until(lambda: host.ran() == ["hello"])
    host.ok("stop", job)
    host.until_state(job, "stopped")
    host.leave()
    host.start()
    other = host.submit("other")
    host.go_on("other")
    host.code("wait", other)
    assert host.ran() == ["hello", "other"]


def test_the_order_of_the_queue(host: Host) -> None:
    """One place: priorities first, then first come, first served; a job waits for another."""
    host.start("--cpus", "1")
    first = host.submit("first")
    host.until(lambda: host.ran() == ["first"])
    late = host.submit("late")
    urgent = host.submit("urgent", "--priority", "5")
    last = host.submit("last", "--after", "late.yaml")  # a path means the job of that file
    for name in ("first", "late", "urgent", "last"):
        host.go_on(name)
    assert host.code("wait", first, late, urgent, last) == 0
    assert host.ran() == ["first", "urgent", "late", "last"]


def test_who_waits_is_told_for_what(host: Host) -> None:
    """`ps` has the reason: no place, or a job that failed."""
    host.start("--cpus", "1")
    host.submit("first", restart={"budget": 0})
    host.until(lambda: host.ran() == ["first"])
    second = host.submit("second", "--after", "first")
    assert "first" in waits(host, second)
    third = host.submit("third")
    assert "CPU" in waits(host, third)
    host.go_on("first", 1)
    host.until(lambda: "failed" in waits(host, second))


# Says what it inherited, as a file so that its mode tells of the umask.
INHERITS = """
import json, os, pathlib
told = {name: os.environ.get(name) for name in ("HOME", "GREETING")}
pathlib.Path("told.new").write_text(json.dumps(told))
os.rename("told.new", "told.json")
"""


def test_a_client_of_the_api_need_say_nothing_but_the_job(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It inherits what the daemon did, but not the umask of the daemon's own files."""
    monkeypatch.setenv("GREETING", "hello")
    host.start()
    (host.folder / "inherits.py").write_text(INHERITS)
    job = {"name": "inherits", "command": ["python", "inherits.py"]}
    with find_daemon(host.state_dir).connection as api:
        asked = {"jobs": [{"job": job, "folder": str(host.folder)}]}
        (accepted,) = api.request("POST", "/v1/jobs", asked)["jobs"]
        sweep = job | {"name": "sweep", "params": {"lr": 1}, "array": {"lr": [1, 2]}}
        asked = {"jobs": [{"job": sweep, "folder": str(host.folder)}]}
        with pytest.raises(Refused, match="`supervise submit"):
            api.request("POST", "/v1/jobs", asked)
    assert host.code("wait", accepted["id"]) == 0
    told = host.folder / "told.json"
    names = ("HOME", "GREETING")
    assert json.loads(told.read_text()) == {name: os.environ.get(name) for name in names}
    assert told.stat().st_mode & 0o777 == 0o644


def waits(host: Host, job: str) -> str:
    """What a job waits for, as `ps` says it."""
    listed = json.loads(host.read("ps"))
    return next(one.get("waits") or "" for one in listed if one["id"] == job)


def test_a_key_makes_submitting_twice_the_same(host: Host) -> None:
    """Also after the job has ended, and after another daemon has begun."""
    host.start()
    job = host.submit("nightly", "--key", "2026-11-21")
    host.go_on("nightly")
    assert host.code("wait", job) == 0
    host.leave()
    host.start()
    assert host.submit("nightly", "--key", "2026-11-21") == job
    assert host.ran() == ["nightly"]


def test_an_array_is_one_job_for_each_combination(host: Host) -> None:
    """Each has its values; all ids are printed."""
    host.start()
    job = host.job(
        "sweep",
        params={"lr": 0.1, "seed": 1},
        command=["python", "-c", "open('sweep.txt', 'a').write('${lr} ${seed}\\n')"],
    )
    ids = host.ok("submit", job, "-p", "lr=0.1,0.01", "-p", "seed=1,2").split()
    assert len(set(ids)) == 4
    assert host.code("wait", *ids) == 0
    lines = (host.folder / "sweep.txt").read_text().splitlines()
    assert sorted(lines) == ["0.01 1", "0.01 2", "0.1 1", "0.1 2"]


def test_two_jobs_never_share_a_checkpoint_folder(host: Host) -> None:
    """Neither at once nor after each other, unless a person says what is meant."""
    host.start()
    file = training(host)
    job = host.ok("submit", file).strip()
    refused = host.give("submit", file)
    assert refused.returncode == 2
    assert job in refused.stderr
    host.ok("cancel", job)
    host.until_state(job, "cancelled")
    assert host.code("submit", file) == 2
    fresh = host.ok("submit", file, "--fresh").strip()
    assert fresh != job
    host.until(lambda: step_of(host, fresh) > 0)
    assert host.show(fresh)["attempts"][0]["resumed_step"] is None


def test_a_group_is_held_after_failures_in_a_row(host: Host) -> None:
    """Until a person releases it."""
    host.start("--cpus", "1")
    options = ("--group", "sweep", "--hold-after", "2")
    jobs = [host.submit(name, *options, restart={"budget": 0}) for name in ("a", "b", "c")]
    host.go_on("a", 1)
    host.go_on("b", 1)
    host.go_on("c")
    host.until(lambda: "held" in waits(host, jobs[2]))
    assert host.ran() == ["a", "b"]
    host.ok("resume", "--group", "sweep")
    assert host.code("wait", jobs[2]) == 0


def test_one_daemon_for_one_folder(host: Host) -> None:
    """The second says so and leaves the first alone."""
    host.start()
    second = host.give("daemon", "run")
    assert second.returncode == 2
    assert "another daemon" in second.stderr
    assert host.code("daemon", "status") == 0


@pytest.mark.parametrize(
    ("owner", "mode", "why"),
    [
        pytest.param(0, 0o770, "others may write into the state folder", id="group"),
        pytest.param(0, 0o707, "others may write into the state folder", id="all"),
        pytest.param(65534, 0o700, "belongs to nobody", id="owner"),
    ],
)
def test_a_state_folder_of_others_is_refused(host: Host, owner: int, mode: int, why: str) -> None:
    """Before anything is made there: what lies in it is run in the daemon's name."""
    host.state_dir.mkdir()
    if owner:
        if os.geteuid():
            pytest.skip("only root may give a folder away")
        os.chown(host.state_dir, owner, -1)
    host.state_dir.chmod(mode)
    refused = host.give("daemon", "run", "--launcher", "session")
    assert refused.returncode != 0
    assert str(host.state_dir) in refused.stderr
    assert why in refused.stderr
    assert "--state-dir" in refused.stderr
    assert list(host.state_dir.iterdir()) == []


def test_run_refuses_a_job_of_the_queue(host: Host) -> None:
    """The daemon has it; nobody takes it over by accident."""
    host.start()
    job = host.submit("mine")
    refused = host.give("run", "mine.yaml")
    assert refused.returncode == 2
    assert job in refused.stderr
    host.go_on("mine")
    assert host.code("wait", job) == 0


def test_what_can_never_run_is_refused_at_once(host: Host) -> None:
    """With the reason; nothing is left in the queue."""
    host.start("--cpus", "2")
    refused = host.give("submit", host.job("huge", resources={"cpus": 64}))
    assert refused.returncode == 2
    assert "64" in refused.stderr
    assert json.loads(host.read("ps")) == []
