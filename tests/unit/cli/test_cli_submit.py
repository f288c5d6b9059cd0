"""submit and wait: what is sent, what is printed, and with which exit code."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from supervisor.cli import submission, waiting
from supervisor.cli.wait import together
from supervisor.client.answers import Waited
from supervisor.core.causes import Action, Cause
from supervisor.core.events import RunnerStarted
from supervisor.host import identity
from supervisor.journal import Journal
from supervisor.runner.exits import Exit
from supervisor.runner.home import JobFolder
from tests.unit.fake_daemon import FakeDaemon, Request, refused, served

Supervise = Callable[..., Result]
NewJob = Callable[..., Any]


@pytest.fixture
def daemon(state_dir: Path) -> Iterator[FakeDaemon]:
    """A daemon that accepts every job."""
    fake = FakeDaemon(state_dir / "daemon.sock", state_dir)

    def accept(request: Request) -> tuple[int, Any]:
        rows = []
        for one in request.body["jobs"]:
            name = json.loads(one["spec"])["job"]["name"]
            job_id = f"{name}-{len(fake.jobs) + 1:06x}"
            fake.has(job_id, state="queued", phase="waiting", waits="waits for 1 GPU: 0 are free")
            rows.append({"id": job_id, "name": name, "state": "queued", "new": True})
        return 201, {"jobs": rows}

    fake.routes["POST", "/v1/jobs"] = accept
    with served(fake) as one:
        yield one


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    """A job with a param."""
    path = tmp_path / "job.yaml"
    fields = {
        "name": "net",
        "command": ["true"],
        "params": {"lr": 0.1, "seed": 1},
        "env": {"LR": "${lr}"},
    }
    path.write_text(json.dumps(fields))
    return path


def sent(daemon: FakeDaemon) -> list[dict[str, Any]]:
    """All jobs of all requests."""
    bodies = [one.body for one in daemon.asked if one.method == "POST"]
    return [job for body in bodies for job in body["jobs"]]


def test_the_id_alone_is_on_stdout(
    daemon: FakeDaemon, supervise: Supervise, job_file: Path
) -> None:
    """For `id=$(supervise submit job.yaml)`; why it waits is for the person, on stderr."""
    result = supervise("submit", str(job_file))

    assert (result.exit_code, result.stdout) == (0, "net-000001\n")
    assert "net-000001: waits for 1 GPU: 0 are free" in result.stderr
    (job,) = sent(daemon)
    assert list(job) == ["spec"]
    assert json.loads(job["spec"])["job"]["folder"] == str(job_file.parent)


def test_quiet_prints_the_id_and_nothing_else(
    daemon: FakeDaemon, supervise: Supervise, job_file: Path
) -> None:
    """Nor is anything asked beyond the submission."""
    result = supervise("submit", str(job_file), "--quiet")

    assert (result.stdout, result.stderr) == ("net-000001\n", "")
    assert daemon.called() == ["POST /v1/jobs"]


def test_options_go_with_the_job(daemon: FakeDaemon, supervise: Supervise, job_file: Path) -> None:
    """What was not said is left to the job file."""
    words = ["--priority", "-5", "--after", "prepare", "--after", "x-abcdef", "--key", "nightly"]
    supervise("submit", str(job_file), *words, "--group", "g", "--hold-after", "2", "--fresh")

    (job,) = sent(daemon)
    del job["spec"]
    assert job == {
        "priority": -5,
        "after": ["prepare", "x-abcdef"],
        "key": "nightly",
        "group": "g",
        "hold_after": 2,
        "fresh": True,
    }


def test_every_combination_is_a_job_with_a_key_of_its_own(
    daemon: FakeDaemon, supervise: Supervise, job_file: Path
) -> None:
    """In one request; the group that --hold-after is about is the array itself."""
    words = ["-p", "lr=0.1,0.01", "-p", "seed=1,2", "--key", "sweep", "--hold-after", "2"]
    result = supervise("submit", str(job_file), *words)

    assert result.stdout.split() == [f"net-{number:06x}" for number in (1, 2, 3, 4)]
    jobs = sent(daemon)
    assert [one["key"] for one in jobs] == [
        "sweep/lr=0.1/seed=1",
        "sweep/lr=0.1/seed=2",
        "sweep/lr=0.01/seed=1",
        "sweep/lr=0.01/seed=2",
    ]
    assert {one["group"] for one in jobs} == {"net"}
    assert [json.loads(one["spec"])["job"]["values"]["lr"] for one in jobs][::2] == ["0.1", "0.01"]
    assert len([one for one in daemon.asked if one.method == "POST"]) == 1


def test_many_jobs_are_sent_some_at_a_time(
    daemon: FakeDaemon, supervise: Supervise, job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon bounds a request; what was accepted before a refusal is told."""
    monkeypatch.setattr(submission, "JOBS_AT_ONCE", 2)
    seeds = ",".join(map(str, range(5)))
    assert len(supervise("submit", str(job_file), "-p", f"seed={seeds}").stdout.split()) == 5
    sizes = [len(one.body["jobs"]) for one in daemon.asked if one.method == "POST"]
    assert sizes == [2, 2, 1]

    accept = daemon.routes["POST", "/v1/jobs"]
    answers = [accept, lambda _: refused(503, "shelf_unavailable", "the disk is full")]

    def next_answer(request: Request) -> tuple[int, Any]:
        return answers.pop(0)(request)

    daemon.routes["POST", "/v1/jobs"] = next_answer
    result = supervise("submit", str(job_file), "-p", f"seed={seeds}", "--json")
    assert result.exit_code == 2
    assert len(json.loads(result.stdout)) == 2
    assert result.stderr.splitlines() == [
        "supervise: 2 jobs were accepted, and the others not:",
        "supervise: the disk is full",
    ]


def test_a_large_job_does_not_make_a_request_too_large(
    daemon: FakeDaemon, supervise: Supervise, job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes count too."""
    monkeypatch.setattr(submission, "BYTES_AT_ONCE", 10)
    supervise("submit", str(job_file), "-p", "seed=1,2,3")
    assert [len(one.body["jobs"]) for one in daemon.asked if one.method == "POST"] == [1, 1, 1]


def test_secrets_stay_here_unless_they_are_named(
    daemon: FakeDaemon, supervise: Supervise, job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that stay are named, and how to pass one on; ours never go."""
    monkeypatch.setenv("HF_TOKEN", "hf_1")
    monkeypatch.setenv("WANDB_API_KEY", "wandb-5ecret")
    monkeypatch.setenv("PLAIN", "text")
    monkeypatch.setitem(os.environ, "ODD", os.fsdecode(b"caf\xe9"))

    result = supervise("submit", str(job_file), "--env-keep", "HF_TOKEN")

    around = next(one.body for one in daemon.asked if one.method == "POST")["surroundings"]
    env = around["env"]
    assert (env["PLAIN"], env["HF_TOKEN"]) == ("text", "hf_1")
    assert {"WANDB_API_KEY", "ODD", "SUPERVISE_LEASE_DIR"}.isdisjoint(env)
    assert sorted(around) == ["env", "env_keep", "limits", "umask"]
    assert around["env_keep"] == ["HF_TOKEN"]  # the daemon would not store it either
    assert "not stored, as they look like secrets: " in result.stderr
    assert "WANDB_API_KEY" in result.stderr
    assert "5ecret" not in result.stderr
    assert "not passed on, as they are no UTF-8: ODD" in result.stderr


def test_what_the_daemon_does_not_store_is_told(
    daemon: FakeDaemon, supervise: Supervise, job_file: Path
) -> None:
    """It may know of more secrets than this program does."""
    row = {"id": "net-abcdef", "name": "net", "state": "queued", "new": True}
    daemon.routes["POST", "/v1/jobs"] = 201, {"jobs": [row], "left_out": ["ENTRY_CODE"]}
    result = supervise("submit", str(job_file))
    assert "ENTRY_CODE" in result.stderr.partition("not stored")[2]


@pytest.mark.parametrize("name", ["HF_TOKEN=hf_5ecret", ""])
def test_only_names_are_kept(
    daemon: FakeDaemon, supervise: Supervise, job_file: Path, name: str
) -> None:
    """A value on the command line is not repeated by us."""
    result = supervise("submit", str(job_file), "--env-keep", name)
    assert result.exit_code == 2
    assert "--env-keep takes the name of a variable" in result.stderr
    assert "5ecret" not in result.stderr
    assert daemon.asked == []


def test_a_known_key_is_no_new_job(
    daemon: FakeDaemon, supervise: Supervise, job_file: Path
) -> None:
    """Its id is printed all the same, so a script may submit twice."""
    row = {"id": "net-abcdef", "name": "net", "state": "succeeded", "new": False}
    daemon.routes["POST", "/v1/jobs"] = 201, {"jobs": [row]}

    result = supervise("submit", str(job_file), "--key", "k")

    assert (result.exit_code, result.stdout) == (0, "net-abcdef\n")
    assert "has this key already: it is succeeded, and nothing was submitted" in result.stderr


def test_a_wrong_file_is_told_by_line_and_column(
    daemon: FakeDaemon, supervise: Supervise, job_file: Path
) -> None:
    """As by `run`; nothing is sent. So is what the file names and is not there."""
    job_file.write_text("name: net\ncommnd: [true]\n")
    result = supervise("submit", str(job_file))
    assert (result.exit_code, f"{job_file}:2:1" in result.stderr) == (2, True)

    job_file.write_text("name: net\ncommand: [no-such-program-here]\n")
    assert "no-such-program-here" in supervise("submit", str(job_file)).stderr
    assert daemon.asked == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--hold-after", "2"), "is about a group of jobs: name it with --group"),
        (("-p", "lr"), "write it as NAME=VALUE"),
        (("-p", "lr=0.1,0.1"), "is the same as"),
        (("--priority", "101"), "101 is not in the range"),
    ],
)
def test_what_makes_no_sense_is_not_sent(
    words: tuple[str, ...], message: str, daemon: FakeDaemon, supervise: Supervise, job_file: Path
) -> None:
    """A slip is told before the daemon hears of it."""
    result = supervise("submit", str(job_file), *words)
    assert (result.exit_code, message in result.stderr) == (2, True), result.stderr
    assert sent(daemon) == []


def test_without_a_daemon_it_is_said_what_needs_none(supervise: Supervise, job_file: Path) -> None:
    """All three ways on."""
    result = supervise("submit", str(job_file))
    assert result.exit_code == 2
    for way in ("supervise daemon run", "supervise daemon install", f"supervise run {job_file}"):
        assert way in result.stderr


@pytest.mark.parametrize(("state", "code"), [("succeeded", 0), ("failed", 1), ("holding", 3)])
def test_wait_leaves_with_the_code_of_the_job(
    state: str, code: int, daemon: FakeDaemon, supervise: Supervise
) -> None:
    """As `run` would have."""
    daemon.has("net-abcdef", state=state, phase="ended", exit_code=code)

    result = supervise("wait", "net-abcdef")

    assert (result.exit_code, result.stdout) == (code, f"net-abcdef: {state}\n")


def test_wait_asks_again_until_the_job_has_ended(
    daemon: FakeDaemon, supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the daemon says that it stops, or goes away meanwhile: its jobs go on."""
    monkeypatch.setattr(waiting, "KNOCK_S", 0.001)
    daemon.has("net-abcdef", phase="ended", state="stopped", exit_code=75)
    there = {"id": "net-abcdef", "state": "running", "exit_code": None, "ended": False}
    answers: list[Any] = [(200, there), refused(503, "stopping", "about to stop"), b""]
    path = "/v1/jobs/net-abcdef/wait"
    done = {"id": "net-abcdef", "state": "stopped", "exit_code": 75, "ended": True}
    daemon.routes["GET", path] = lambda _: answers.pop(0) if answers else (200, done)

    result = supervise("wait", "net-abcdef")

    assert (result.exit_code, len(daemon.asked)) == (75, 4)


def test_wait_has_an_end(daemon: FakeDaemon, supervise: Supervise) -> None:
    """124, as timeout(1) has it; the job goes on."""
    daemon.has("net-abcdef")

    result = supervise("wait", "net-abcdef", "--timeout", "20ms", "--json")

    assert result.exit_code == 124
    assert json.loads(result.stdout) == [
        {"id": "net-abcdef", "state": "running", "exit_code": None, "ended": False}
    ]
    assert "'soon' is not a duration" in supervise("wait", "--timeout", "soon").stderr


def test_any_is_the_first_that_ends(daemon: FakeDaemon, state_dir: Path) -> None:
    """The others are waited for no longer."""
    over = threading.Event()
    slow = {"id": "a-abcdef", "state": "running", "exit_code": None, "ended": False}
    daemon.routes["GET", "/v1/jobs/a-abcdef/wait"] = lambda _: (over.wait(20), (200, slow))[1]
    daemon.has("a-abcdef")
    daemon.has("b-abcdef", phase="ended", state="failed", exit_code=1)

    words = ["--state-dir", str(state_dir), "wait", "--any", "a-abcdef", "b-abcdef"]
    # A process of its own: with it end the threads that still wait.
    result = subprocess.run(
        [sys.executable, "-m", "supervisor", *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=10,
    )
    over.set()

    assert (result.returncode, result.stdout) == (1, "b-abcdef: failed\n")


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ((0, 0), 0),
        ((0, 75), 75),
        ((75, 3), 3),
        ((3, 1), 1),
        ((0, None), 124),
        ((75, None), 124),
        ((1, None), 1),
        ((3, None), 3),
        ((0, 130), 130),
    ],
)
def test_the_worst_of_several_codes(codes: tuple[int | None, ...], expected: int) -> None:
    """A failure is never hidden by a job that is only not done yet."""
    told = [Waited("x", "running", code, ended=code is not None) for code in codes]
    assert together(told) == expected
    assert together(told[::-1]) == expected


def test_wait_without_a_daemon_is_for_the_runners_process(
    supervise: Supervise, new_job: NewJob, state_dir: Path
) -> None:
    """The journal then tells how the job ended."""
    story = new_job()
    with subprocess.Popen(["sleep", "60"]) as process:
        ticks = identity.start_ticks(process.pid) or 0
        story.saw(RunnerStarted(process.pid, ticks, identity.boot_id())).begins(4242)

        def end() -> None:
            story.journal = Journal.open(state_dir)  # a connection is of one thread
            story.exits(code=1).ends(
                Cause.EXIT_CODE, "exit code 1", action=Action.GIVE_UP, exit_code=1
            )
            story.journal.close()
            process.kill()

        assert supervise("wait", story.id, "--timeout", "10ms").exit_code == 124
        later = threading.Timer(0.2, end)
        later.start()
        result = supervise("wait", story.id)
        later.join()

    assert (result.exit_code, result.stdout) == (1, f"{story.id}: failed\n")


def test_wait_finds_a_runner_that_the_journal_does_not_name_yet(
    supervise: Supervise, new_job: NewJob, state_dir: Path
) -> None:
    """It holds the job's lock; that is enough to wait for it."""
    story = new_job()
    folder = JobFolder.of(state_dir, story.id)
    folder.path.mkdir(parents=True)
    with subprocess.Popen(["flock", str(folder.runner_lock), "sleep", "60"]) as process:
        found = wait_until(lambda: identity.holders(folder.runner_lock))
        assert found
        result = supervise("wait", story.id, "--timeout", "10ms")
        process.kill()
        for pid in found:
            identity.kill_holder(pid, folder.runner_lock)

    assert (result.exit_code, result.stdout) == (124, f"{story.id}: has not ended, queued\n")


def wait_until(look: Callable[[], Any], limit_s: float = 20) -> Any:
    """What `look` sees in the end."""
    deadline = time.monotonic() + limit_s
    while not (seen := look()) and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    return seen


def test_a_job_that_nobody_brings_on(
    supervise: Supervise, new_job: NewJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be waited for in vain: a person is needed."""
    monkeypatch.setattr(waiting, "GONE_LOOK_S", 0.001)
    story = new_job().runner(pid=999_999_999)

    result = supervise("wait", story.id)

    assert result.exit_code == Exit.HOLDING
    assert "its runner is gone: nobody brings it on" in result.stderr
