"""stop, kill, cancel, resume, retry and rm: through a daemon, and without one."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from supervisor.cli import direct
from supervisor.core.causes import Action, Cause
from supervisor.core.events import RunnerStarted, StopRequested
from supervisor.host import identity
from supervisor.runner.home import JobFolder
from supervisor.runner.locks import hold_runner_lock
from tests.unit.fake_daemon import FakeDaemon, refused, served

Supervise = Callable[..., Result]
NewJob = Callable[..., Any]
VERBS = ("stop", "kill", "cancel", "resume", "retry", "rm")


@pytest.fixture
def daemon(state_dir: Path) -> Iterator[FakeDaemon]:
    """The daemon of the state folder."""
    with served(FakeDaemon(state_dir / "daemon.sock", state_dir)) as one:
        yield one


@pytest.fixture
def runner() -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends at the first SIGTERM, as a runner does in the end."""
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def looked_after(story: Any, runner: subprocess.Popen[bytes]) -> Any:
    """The job has this process as its runner, and an attempt that runs."""
    ticks = identity.start_ticks(runner.pid) or 0
    return story.saw(RunnerStarted(runner.pid, ticks, identity.boot_id())).begins(4242)


@pytest.mark.parametrize("verb", VERBS)
def test_a_job_of_the_daemon_is_reached_through_it(
    verb: str, daemon: FakeDaemon, supervise: Supervise
) -> None:
    """By its id that is one request; what the daemon did is the line that is printed."""
    daemon.has("net-abcdef")

    result = supervise(verb, "net-abcdef")

    done = {"rm": "delete"}.get(verb, verb)
    assert (result.exit_code, result.stdout) == (0, f"net-abcdef: {done}\n")
    method, tail = ("DELETE", "") if verb == "rm" else ("POST", f"/{verb}")
    assert daemon.called() == [f"{method} /v1/jobs/net-abcdef{tail}"]


@pytest.mark.parametrize("verb", VERBS)
def test_a_name_is_looked_up_among_ones_own_jobs(
    verb: str, daemon: FakeDaemon, supervise: Supervise, new_job: NewJob, tmp_path: Path
) -> None:
    """Of two fresh starts the newest is meant, as everywhere; the daemon is told its id."""
    new_job("digits-3fa2c1", folder=tmp_path / "a")
    new_job("digits-3fa2c1-2", folder=tmp_path / "a")
    daemon.has("digits-3fa2c1")
    daemon.has("digits-3fa2c1-2")

    result = supervise(verb, "digits")

    assert result.exit_code == 0, result.output
    assert [one.split("/")[3] for one in daemon.called()] == ["digits-3fa2c1-2"]


def test_without_a_name_the_newest_job_of_this_folder_is_meant(
    daemon: FakeDaemon, supervise: Supervise, new_job: NewJob, tmp_path: Path
) -> None:
    """As with every other verb."""
    new_job("digits-3fa2c1", folder=tmp_path / "elsewhere")
    new_job("digits-000001", folder=tmp_path / "other")
    daemon.has("digits-3fa2c1")

    assert supervise("stop").stdout == "digits-3fa2c1: stop\n"


def test_a_job_of_somebody_else_is_refused_in_the_daemons_words(
    daemon: FakeDaemon, supervise: Supervise
) -> None:
    """The others are reached all the same; the exit code remembers."""
    words = "theirs-abcdef belongs to ada: only they, and admins, may stop it"
    daemon.routes["POST", "/v1/jobs/theirs-abcdef/stop"] = refused(403, "not_yours", words)
    daemon.has("mine-abcdef")

    result = supervise("stop", "theirs-abcdef", "mine-abcdef")

    assert (result.exit_code, result.stdout) == (2, "mine-abcdef: stop\n")
    assert result.stderr == f"supervise: {words}\n"


def test_anothers_job_of_the_same_name_is_never_meant(
    daemon: FakeDaemon, supervise: Supervise, new_job: NewJob
) -> None:
    """Only where none of one's own is meant, the daemon is asked whether it knows the name."""
    new_job("net-000001", name="net")
    daemon.has("net-000001")
    daemon.has("net")  # what the daemon takes the name for
    daemon.has("resnet")

    assert supervise("stop", "net").stdout == "net-000001: stop\n"
    assert supervise("stop", "resnet").stdout == "resnet: stop\n"


def test_a_job_that_nobody_knows(daemon: FakeDaemon, supervise: Supervise, new_job: NewJob) -> None:
    """What there is is listed."""
    new_job("digits-3fa2c1")
    daemon.has("digits-3fa2c1")

    for text in ("digts", "digts-abcdef"):
        result = supervise("stop", text)
        assert result.exit_code == 2
        assert f"no such job: {text} (did you mean digits" in result.stderr


def test_all_means_what_has_not_ended_and_those_that_wait_first(
    daemon: FakeDaemon, supervise: Supervise, new_job: NewJob
) -> None:
    """Else a stopped job would make room for one that is about to be stopped."""
    daemon.has("run-abcdef")
    daemon.has("wait-abcdef", phase="waiting")
    daemon.has("done-abcdef", phase="ended")
    new_job("done-abcdef")
    new_job("fore-abcdef", name="fore")  # of `run`, and its runner is gone

    result = supervise("stop", "--all")

    verbs = [one for one in daemon.called() if one.startswith("POST")]
    assert [one.split("/")[3] for one in verbs] == ["wait-abcdef", "run-abcdef", "fore-abcdef"]
    assert "fore-abcdef has no runner" in result.stdout
    assert daemon.asked[0].query == f"user={os.getuid()}"


def test_a_job_of_run_is_reached_beside_the_daemon(
    daemon: FakeDaemon,
    supervise: Supervise,
    new_job: NewJob,
    runner: subprocess.Popen[bytes],
    tmp_path: Path,
) -> None:
    """The daemon of the same folder does not have it: its own runner is told."""
    looked_after(new_job("digits-3fa2c1"), runner)

    result = supervise("kill", "digits-3fa2c1")

    assert result.exit_code == 0, result.output
    assert runner.wait(10) == -signal.SIGTERM


def test_stop_without_a_daemon_signals_the_runner_once(
    supervise: Supervise, new_job: NewJob, runner: subprocess.Popen[bytes]
) -> None:
    """A runner that is asked twice kills its worker, so a second `stop` only says so."""
    story = looked_after(new_job(), runner)
    sent: list[int] = []

    def heard(record: Any) -> bool:
        sent.append(record.runner_pid)
        story.saw(StopRequested("SIGTERM"))
        return True

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(direct.control, "stop", heard)
        first, second = supervise("stop", "digits"), supervise("stop", "digits")

    assert first.stdout == "digits-3fa2c1 is being stopped\n"
    assert second.stdout == "digits-3fa2c1 is being stopped already\n"
    assert sent == [runner.pid]


@pytest.mark.parametrize(("verb", "code"), [("stop", 0), ("kill", 0), ("cancel", 0)])
def test_what_has_ended_is_left_alone(
    verb: str, code: int, supervise: Supervise, three_faults: Any
) -> None:
    """The commands may be given twice."""
    result = supervise(verb, three_faults.id)

    assert (result.exit_code, result.stdout) == (code, f"{three_faults.id} has already succeeded\n")


def test_a_stopped_job_is_cancelled_for_good(supervise: Supervise, stopped: Any) -> None:
    """Cancelling it again changes nothing."""
    assert supervise("cancel", stopped.id).stdout == f"{stopped.id} is cancelled\n"
    assert supervise("cancel", stopped.id).stdout == f"{stopped.id} has already been cancelled\n"
    assert stopped.journal.job(stopped.id).state == "cancelled"


def test_cancel_waits_until_the_runner_has_left(
    supervise: Supervise, new_job: NewJob, runner: subprocess.Popen[bytes]
) -> None:
    """Without a daemon nobody else would conclude it."""
    story = looked_after(new_job(), runner)
    gone = threading.Timer(0.2, runner.terminate)

    def stops(_: Any) -> bool:
        story.saw(StopRequested("SIGTERM")).exits(code=0)
        story.ends(Cause.STOPPED, "stopped on request", action=Action.FINISH, stop_requested=True)
        gone.start()
        return True

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(direct.control, "stop", stops)
        result = supervise("cancel", story.id)
    gone.join()

    assert result.stdout == f"{story.id} is cancelled\n"
    assert runner.wait(10) == -signal.SIGTERM
    assert story.journal.job(story.id).state == "cancelled"


def test_resume_needs_a_queue(supervise: Supervise, stopped: Any) -> None:
    """Without a daemon it is said what resumes the job."""
    result = supervise("resume", stopped.id)
    assert result.exit_code == 2
    assert "is in no queue" in result.stderr
    assert f"retry {stopped.id}" in result.stderr
    assert "no daemon is running" in supervise("resume", "--group", "sweep").stderr


def test_a_held_group_is_released(daemon: FakeDaemon, supervise: Supervise) -> None:
    """No job need be named."""
    daemon.routes["POST", "/v1/groups/sweep 1/release"] = 200, {"words": "sweep 1 may go on"}

    assert supervise("resume", "--group", "sweep 1").stdout == "sweep 1 may go on\n"
    assert len(daemon.asked) == 1


def test_retry_of_several_jobs_and_of_items(daemon: FakeDaemon, supervise: Supervise) -> None:
    """Each waits for its turn; items go to the daemon as they were named."""
    daemon.has("a-abcdef")
    daemon.has("b-abcdef")

    both = supervise("retry", "a-abcdef", "b-abcdef")
    assert both.stdout == "a-abcdef: retry\nb-abcdef: retry\n"
    supervise("retry", "a-abcdef", "--items", "photos/1.jpg", "7")
    supervise("retry", "a-abcdef", "--items", "quarantined", "7")

    bodies = [one.body for one in daemon.asked]
    assert bodies == [{}, {}, {"items": ["photos/1.jpg", "7"]}, {"items": ["quarantined"]}]


def test_rm_without_a_daemon(supervise: Supervise, stopped: Any, state_dir: Path) -> None:
    """The job is gone from journal and disk; a second time there is nothing of that name."""
    folder = JobFolder.of(state_dir, stopped.id).path
    stopped.attempt(1).log.write_text("step 1\n")

    assert supervise("rm", stopped.id).stdout == f"{stopped.id} is removed\n"
    assert not folder.exists()
    assert supervise("rm", stopped.id).exit_code == 2


def test_rm_leaves_a_job_that_runs(
    supervise: Supervise, new_job: NewJob, runner: subprocess.Popen[bytes], state_dir: Path
) -> None:
    """By what the journal says, and by the lock of a runner that the journal does not know."""
    story = looked_after(new_job(), runner)
    result = supervise("rm", story.id)
    assert (result.exit_code, "has not ended: cancel it first" in result.stderr) == (2, True)

    other = new_job("other-abcdef", name="other")
    other.journal._connection.execute("UPDATE jobs SET state = 'failed' WHERE id = ?", [other.id])
    folder = JobFolder.of(state_dir, other.id)
    folder.path.mkdir(parents=True)
    lock = hold_runner_lock(folder.runner_lock)
    try:
        result = supervise("rm", other.id)
    finally:
        lock.close()
    assert (result.exit_code, "already running" in result.stderr) == (2, True)
    assert other.journal.job(other.id) is not None


def test_rm_leaves_a_job_whose_runner_is_lost(supervise: Supervise, new_job: NewJob) -> None:
    """It can go on; and one that a daemon was given is the daemon's, which does not run now."""
    lost = new_job("lost-0a0a0a", name="lost").runner(pid=2**22 - 1).begins(11)
    result = supervise("rm", lost.id)
    assert (result.exit_code, "has not ended: cancel it first" in result.stderr) == (2, True)
    assert lost.journal.job(lost.id) is not None


@pytest.mark.parametrize("verb", ["stop", "kill", "cancel", "resume", "rm", "retry", "wait"])
def test_what_waits_for_a_daemon_is_left_to_it(
    supervise: Supervise, new_job: NewJob, state_dir: Path, verb: str
) -> None:
    """Whatever was done here, the daemon would not know; the way on is told."""
    story = new_job("net-0a0a0a", name="net")
    folder = JobFolder.of(state_dir, story.id)
    folder.path.mkdir(parents=True)
    folder.surroundings.write_text("{}")
    result = supervise(verb, story.id)
    assert result.exit_code == (3 if verb in {"wait", "retry"} else 2)
    assert "is in the queue of a daemon that does not run" in result.stderr
    assert "supervise daemon run" in result.stderr
    assert story.journal.job(story.id).state == "queued"


@pytest.mark.parametrize("verb", ["stop", "cancel"])
def test_all_is_said_alone(supervise: Supervise, new_job: NewJob, verb: str) -> None:
    """With jobs beside it, it is not clear what is meant; where there is none, that is said."""
    assert supervise(verb, "--all").stdout == "no job of yours runs or waits\n"
    new_job("net-0a0a0a", name="net")
    result = supervise(verb, "--all", "net")
    assert (result.exit_code, "either --all, or the jobs" in result.stderr) == (2, True)


def test_resume_of_a_job_that_needs_none(
    supervise: Supervise, new_job: NewJob, runner: subprocess.Popen[bytes]
) -> None:
    """A job of `run` that runs, or has succeeded, is left alone; it is no mistake to ask."""
    story = looked_after(new_job(), runner)
    assert supervise("resume", story.id).stdout == f"{story.id} is running already\n"
    story.journal._connection.execute("UPDATE jobs SET state = 'succeeded'")
    assert supervise("resume", story.id).stdout == f"{story.id} has already succeeded\n"


def test_retention_by_age_and_size(
    supervise: Supervise, new_job: NewJob, three_faults: Any
) -> None:
    """A dry run tells which and how large; only ended jobs are chosen."""
    new_job("young-abcdef", name="young")

    told = supervise("rm", "--older", "1d", "--dry-run")
    assert told.stdout.startswith(f"{three_faults.id} would be removed: succeeded, 0.")
    assert supervise("rm", "--older", "1d").stdout == f"{three_faults.id} is removed\n"
    assert supervise("rm", "--keep-size", "0B").stdout == "no ended job is older or too much\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "say which: either JOB"),
        (("x", "--older", "1d"), "say which: either JOB"),
        (("--older", "soon"), "'soon' is not a duration"),
        (("--keep-size", "much"), "is not a size"),
    ],
)
def test_rm_says_what_is_missing(
    words: tuple[str, ...], message: str, supervise: Supervise
) -> None:
    """Nothing is removed by a slip."""
    result = supervise("rm", *words)
    assert (result.exit_code, message in result.stderr) == (2, True), result.stderr


def test_a_daemon_that_goes_away(daemon: FakeDaemon, supervise: Supervise) -> None:
    """The person is told that it may have been done; nothing is tried twice."""
    daemon.routes["POST", "/v1/jobs/net-abcdef/stop"] = b""

    result = supervise("stop", "net-abcdef")

    assert result.exit_code == 1
    assert "did not answer: it went away" in result.stderr
    assert len(daemon.asked) == 1


def test_verbs_that_act_are_quick(daemon: FakeDaemon, state_dir: Path) -> None:
    """None of them loads what takes long to import."""
    daemon.has("net-abcdef", phase="ended", exit_code=0)
    # Coverage itself loads some of it.
    plain = {name: text for name, text in os.environ.items() if "COVERAGE" not in name}
    for words in (["stop", "net-abcdef"], ["wait", "net-abcdef"], ["daemon", "status"]):
        script = (
            "import json, sys, supervisor.cli.main as main\n"
            f"sys.argv = ['supervise', '--state-dir', {str(state_dir)!r}, *{words!r}]\n"
            "try: main.main()\n"
            "finally: print(json.dumps(list(sys.modules)), file=sys.stderr)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=plain
        )
        heavy = {"pydantic", "ruamel", "fastapi", "asyncio", "rich", "structlog", "sqlite3"}
        assert heavy.isdisjoint(json.loads(done.stderr)), words
