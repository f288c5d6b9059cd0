"""`supervise ps`: which of many jobs are shown, and what the daemon adds to the journal's word."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from click.testing import Result

from supervisor.cli import ps_rows
from supervisor.cli.ps_rows import NEWEST, RUNNING
from supervisor.core.causes import Cause
from supervisor.core.events import HoldRequired
from supervisor.host import identity
from supervisor.journal import Journal
from supervisor.runner.home import JobFolder
from tests.unit.fake_daemon import FakeDaemon, Request, refused, served

Supervise = Callable[..., Result]
NewJob = Callable[..., Any]
START = (
    "import sys; from pathlib import Path; from supervisor.cli.ps import command;"
    " command(['--watch'], obj=Path(sys.argv[1]))"
)


@pytest.fixture(name="daemon")
def _daemon(state_dir: Path) -> Iterator[FakeDaemon]:
    with served(FakeDaemon(state_dir / "daemon.sock", state_dir)) as one:
        yield one


def submitted(story: Any) -> Any:
    """The job is one that a daemon was given."""
    folder = JobFolder.of(story.state_dir, story.id)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.surroundings.write_text("{}")
    return story


def waiting(job_id: str, **fields: Any) -> dict[str, Any]:
    """A row of the daemon's listing."""
    row: dict[str, Any] = {
        "id": job_id,
        "name": "digits",
        "state": "queued",
        "why": "",
        "step": None,
        "total": None,
    }
    row |= {"folder": "/data", "created_at": "2026-03-01T11:00:00.000Z", "updated_at": None}
    row |= {"runner_alive": False, "attempt": None, "last_cause": None, "user": "ada", "uid": 7}
    return row | {"phase": "waiting", "priority": 0, "waits": None, "position": 1} | fields


def lines(result: Result) -> list[str]:
    """What is printed, every run of spaces as one."""
    assert result.exit_code == 0, result.output
    return [" ".join(line.split()) for line in result.stdout.splitlines()]


def test_of_many_jobs_the_newest_are_shown(new_job: NewJob, supervise: Supervise) -> None:
    """And one that needs a person, however old; the note says what else there is."""
    new_job("held-0a0a0a", name="held").runner().saw(HoldRequired(Cause.DISK_FULL, "no room"))
    for number in range(NEWEST + 5):
        story = new_job(f"done-{number:06x}", name="done")
        story.journal._connection.execute(
            "UPDATE jobs SET state = 'failed' WHERE id = ?", [story.id]
        )
        story.journal.close()
    head, *rows, empty, note = lines(supervise("ps"))

    assert head.startswith("JOB STATE")
    assert rows[0].startswith("held-0a0a0a holding")
    assert rows[1].startswith("done-000005 failed")
    assert len(rows) == 1 + NEWEST
    assert empty == ""
    assert note.startswith("and 5 other jobs (5 failed): supervise")
    assert len(lines(supervise("ps", "--all"))) == 1 + 1 + NEWEST + 5
    assert lines(supervise("ps", "-a")) == lines(supervise("ps", "--all"))
    assert len(json.loads(supervise("ps", "--json").stdout)) == 1 + NEWEST + 5


def test_what_jobs_wait_for(daemon: FakeDaemon, new_job: NewJob, supervise: Supervise) -> None:
    """The reason, the place in the queue and the priority come from the daemon."""
    one = submitted(new_job("one-0a0a0a", name="one"))
    submitted(new_job("two-0b0b0b", name="two"))
    daemon.jobs[one.id] = waiting(one.id, waits="waits for 2 GPUs", position=1, priority=5)
    daemon.jobs["two-0b0b0b"] = waiting("two-0b0b0b", waits="waits for one-0a0a0a", position=2)
    head, first, second, *notes = lines(supervise("ps"))

    assert "PRIORITY WAITS FOR FOLDER" in head
    assert " 5 #1: waits for 2 GPUs " in first
    assert " - #2: waits for one-0a0a0a " in second
    assert notes == []


def test_few_are_asked_for(daemon: FakeDaemon, new_job: NewJob, supervise: Supervise) -> None:
    """The newest, and those that run; all only with --all."""
    new_job()
    supervise("ps")
    asked = [parse_qs(one.query) for one in daemon.asked]
    supervise("ps", "--all")

    assert asked == [
        {"limit": [str(NEWEST)]},
        {"state": ["running"], "limit": [str(RUNNING)]},
    ]
    assert daemon.asked[-1].query == ""


def test_jobs_of_every_folder_that_one_may_have_some_in(
    new_job: NewJob, supervise: Supervise, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Those of the system's daemon lie on a shelf; they are there also while it is not."""
    here = new_job("here-0a0a0a", name="here").runner()
    gone = {"runner_pid": 2**22 - 1, "runner_ticks": 1, "boot_id": identity.boot_id()}
    record = replace(here.journal.job(here.id), id="there-0b0b0b", created_s=0.0, **gone)
    with closing(Journal.open(tmp_path / "shelf")) as journal:
        journal.create_job(replace(record, state="running"))
    monkeypatch.setattr(ps_rows, "own_shelves", lambda one: [one, tmp_path / "shelf"])
    _, there, first, *notes = lines(supervise("ps"))

    assert there.startswith("there-0b0b0b running !")
    assert first.startswith("here-0a0a0a ")
    assert "! there-0b0b0b: its runner is gone; run the same command to resume:" in notes


def test_a_queue_that_nobody_serves(new_job: NewJob, supervise: Supervise) -> None:
    """Jobs that wait for a daemon are not called lost: it is the daemon that is not there."""
    submitted(new_job("one-0a0a0a", name="one"))
    _, row, empty, note = lines(supervise("ps"))

    assert row.startswith("one-0a0a0a queued -")
    assert empty == ""
    assert note.startswith("no daemon is running, so nobody starts the jobs that wait: supervise")
    assert note.endswith("daemon run")


def test_a_job_of_the_daemon_s_is_never_lost(
    daemon: FakeDaemon, new_job: NewJob, supervise: Supervise
) -> None:
    """Its runner died, and another is on its way; a job of `run` is lost as ever."""
    died = submitted(new_job("died-0a0a0a", name="died")).runner(pid=2**22 - 1).begins(11)
    new_job("lost-0b0b0b", name="lost").runner(pid=2**22 - 1).begins(12)
    daemon.jobs[died.id] = waiting(died.id, state="running", phase="started", attempt=1)
    _, first, second, *notes = lines(supervise("ps"))

    assert first.startswith("died-0a0a0a running 1")
    assert second.startswith("lost-0b0b0b running ! 1")
    assert [note for note in notes if "runner is gone" in note] == [
        "! lost-0b0b0b: its runner is gone; run the same command to resume:"
    ]


def test_jobs_of_other_users(daemon: FakeDaemon, new_job: NewJob, supervise: Supervise) -> None:
    """Whoever may ask the daemon sees them, older ones first; a column says whose they are."""
    mine = new_job("mine-0a0a0a", name="mine")
    daemon.jobs[mine.id] = waiting(mine.id, user="bob")
    daemon.jobs["hers-0b0b0b"] = waiting("hers-0b0b0b", why="\x1b]0;evil\x07", user="ada\x1b[2J")
    head, first, second = lines(supervise("ps"))

    assert head.startswith("JOB USER STATE")
    assert first.startswith("hers-0b0b0b ada queued")
    assert second.startswith("mine-0a0a0a bob queued")
    assert "\x1b[2J" not in supervise("ps", color=True).output


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--state holding", "held-0a0a0a"),
        ("--state queued --state holding", "held-0a0a0a new-0b0b0b"),
        ("--user nobody-of-this-name", "no"),
        (f"--user {os.getuid()}", "held-0a0a0a new-0b0b0b"),
        ("--group sweep", "new-0b0b0b"),
    ],
)
def test_some_jobs_alone(
    words: str, expected: str, daemon: FakeDaemon, new_job: NewJob, supervise: Supervise
) -> None:
    """Each filter counts for the journal, and the daemon is told of it."""
    new_job("held-0a0a0a", name="held").runner().saw(HoldRequired(Cause.DISK_FULL, "no room"))
    new = submitted(new_job("new-0b0b0b", name="new"))

    def jobs(request: Request) -> Any:
        sweep = "group=sweep" in request.query
        return 200, {"jobs": [waiting(new.id, group="sweep")] if sweep else []}

    daemon.routes["GET", "/v1/jobs"] = jobs
    found = [line.split()[0] for line in lines(supervise("ps", *words.split()))]
    name, value = words.removeprefix("--").split()[:2]

    assert [one for one in found if one != "JOB"] == expected.split()
    assert parse_qs(daemon.asked[0].query)[name] == [value]


def test_a_daemon_that_fails(daemon: FakeDaemon, new_job: NewJob, supervise: Supervise) -> None:
    """The journal is listed all the same, the reason is told, and JSON stays JSON."""
    submitted(new_job("one-0a0a0a", name="one"))
    daemon.routes["GET", "/v1/jobs"] = refused(503, "shelf_unavailable", "the disk is full")
    shown, as_json = supervise("ps"), supervise("ps", "--json")

    assert "one-0a0a0a  queued" in shown.stdout
    assert "what waits in the queue is not known: the disk is full" in shown.stdout
    assert "no daemon is running" not in shown.stdout
    assert [one["id"] for one in json.loads(as_json.stdout)] == ["one-0a0a0a"]
    assert "the disk is full" in as_json.stderr


def test_the_json_has_what_the_queue_knows(
    daemon: FakeDaemon, new_job: NewJob, supervise: Supervise
) -> None:
    """Beside all that the journal says; a job of `run` has none of it."""
    one = submitted(new_job("one-0a0a0a", name="one"))
    new_job("run-0b0b0b", name="run")
    daemon.jobs[one.id] = {"id": one.id, "waits": "for room", "position": 3, "priority": 1}
    first, second = json.loads(supervise("ps", "--json").stdout)

    assert (first["state"], first["waits"], first["position"]) == ("queued", "for room", 3)
    assert "waits" not in second


def test_what_an_old_journal_s_jobs_are_asked(
    new_job: NewJob, supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No attempts are read one job at a time, however many jobs there are."""
    for number in range(3):
        new_job(f"j-{number:06x}", name="j").runner().begins(11)
    monkeypatch.setattr("supervisor.journal.Journal.attempts", pytest.fail)

    assert len(lines(supervise("ps"))) == 4


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--watch"], "--watch needs a terminal"),
        (["--watch", "--json"], "do not go together"),
        (["--state", "lost"], "is not one of"),
    ],
)
def test_what_cannot_be_asked(words: list[str], told: str, supervise: Supervise) -> None:
    """It is said before anything is looked at."""
    result = supervise("ps", *words)

    assert result.exit_code == 2
    assert told in result.stderr


def test_needed_states() -> None:
    """What is shown however old it is: all that run or need a person."""
    assert {"running", "stopping", "backing_off", "holding"} == ps_rows.NEEDED


@pytest.mark.parametrize("how", [b"q", signal.SIGINT, signal.SIGTERM])
def test_watching(
    how: bytes | signal.Signals, new_job: NewJob, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is drawn again when something changed, and leaves the terminal as it was."""
    monkeypatch.setenv("TERM", "xterm")
    story = new_job("digits-3fa2c1")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    before = termios.tcgetattr(theirs)
    command = [sys.executable, "-c", START, str(state_dir)]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, start_new_session=True) as view:
        try:
            until(ours, b"\x1b[?1049h", b"digits-3fa2c1", b"queued", b"q leaves")
            story.runner().begins(11)
            until(ours, b"running")
            if isinstance(how, bytes):
                os.write(ours, how)
            else:
                view.send_signal(how)
            until(ours, b"\x1b[?1049l", b"\x1b[?25h")
            assert view.wait(20) == 0
        finally:
            view.kill()  # or a view that does not leave would be waited for
    after = termios.tcgetattr(theirs)
    for fd in (ours, theirs):
        os.close(fd)
    assert after == before


def until(fd: int, *markers: bytes) -> None:
    """Read what comes out of the terminal, up to the last of the markers."""
    seen = b""
    while not all(one in seen for one in markers):
        ready, _, _ = select.select([fd], [], [], 20.0)
        assert ready, f"only {seen!r} came"
        seen += os.read(fd, 65_536)
