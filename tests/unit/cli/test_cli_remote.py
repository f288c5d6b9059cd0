"""Jobs of other users: the same pages, out of what the daemon tells."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs

import pytest
from click.testing import CliRunner, Result

from supervisor.cli import following, remote_logs, remote_queue, text
from supervisor.cli.main import cli
from supervisor.cli.remote_queue import Served
from supervisor.core.causes import State
from supervisor.daemon import desk
from tests.unit.cli.batch_story import batch_job, poisoned
from tests.unit.fake_daemon import FakeDaemon, Request, refused, served

NewJob = Callable[..., Any]
WORDS = "digits-3fa2c1 belongs to ada: only they, and admins, may see what it prints"
QUEUE = {"user": "ada", "uid": 4242, "phase": "ended", "waits": None}


class Elsewhere:
    """A person who has no job of their own, and the daemon that has another's."""

    def __init__(self, state_dir: Path, daemon: FakeDaemon) -> None:
        self.state_dir = state_dir
        self.daemon = daemon

    def ask(self, *words: str) -> Result:
        """Give a verb."""
        return CliRunner().invoke(cli, ["--state-dir", str(self.state_dir), *words])

    def has(self, story: Any, *, private: bool = False, **fields: Any) -> str:
        """Let the daemon have the job of a story; its id. `private`: for its owner alone."""
        job = f"/v1/jobs/{story.id}"

        def asked(question: str, **arguments: Any) -> Any:
            return desk.answer(story.state_dir, question, {"id": story.id} | arguments)

        def events(request: Request) -> Any:
            after = int(parse_qs(request.query)["after"][0])
            return 200, {"events": asked("events", after=after, limit=3)}

        def log(request: Request) -> Any:
            query = {name: one for name, (one,) in parse_qs(request.query).items()}
            numbers = {name: int(one) for name, one in query.items() if one.isdigit()}
            return 200, asked("log", **query | numbers)

        routes = self.daemon.routes
        routes["GET", job] = lambda _: (200, asked("document") | QUEUE | fields)
        routes["GET", f"{job}/report"] = lambda _: (200, asked("report"))
        owners = {
            "explain": lambda _: (200, asked("explain")),
            "events": events,
            "log": log,
        }
        for name, answer in owners.items():
            routes["GET", f"{job}/{name}"] = refused(403, "not_yours", WORDS) if private else answer
        return str(story.id)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Elsewhere]:
    """Where the daemon's jobs are none of one's own."""
    place = tmp_path / "other"
    monkeypatch.setattr(text, "columns", lambda: None)
    with served(FakeDaemon(place / "daemon.sock", tmp_path / "served", system=True)) as daemon:
        yield Elsewhere(place, daemon)


def lines(result: Result) -> list[str]:
    """What was printed, of a verb that must not fail."""
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout.splitlines()


@pytest.mark.parametrize("verb", ["show", "report", "explain", "events"])
def test_an_admin_sees_the_pages_of_the_owner(
    verb: str, elsewhere: Elsewhere, three_faults: Any, supervise: Callable[..., Result]
) -> None:
    """Line by line; but for whose it is, and the stacks, whose file is named and not read."""
    own = lines(supervise(verb, three_faults.id))
    theirs = lines(elsewhere.ask(verb, elsewhere.has(three_faults)))

    told = [one for one in theirs if not one.startswith("  user  ")]
    stack = "Thread 4188", "wait (threading", "main (train"
    assert told == [one for one in own if not any(word in one for word in stack)]
    assert ("  user      ada" in theirs) == (verb == "show")


@pytest.mark.parametrize("verb", ["show", "report", "explain"])
def test_the_same_of_a_batch_job(
    verb: str, elsewhere: Elsewhere, new_job: NewJob, supervise: Callable[..., Result]
) -> None:
    """Counts, quarantined items and what became of them; what is called no document says."""
    story = poisoned(new_job)
    own = lines(supervise(verb, story.id))
    theirs = lines(elsewhere.ask(verb, elsewhere.has(story)))

    told = [one for one in theirs if not one.startswith("  user  ")]
    assert told == [one for one in own if not one.startswith("  calls  ")]


@pytest.mark.parametrize("verb", ["show", "report", "explain", "events"])
def test_json_is_the_daemons_document(
    verb: str, elsewhere: Elsewhere, three_faults: Any, supervise: Callable[..., Result]
) -> None:
    """With all that the own one has."""
    told = elsewhere.ask(verb, elsewhere.has(three_faults), "--json")
    own = supervise(verb, three_faults.id, "--json")
    assert (told.exit_code, own.exit_code) == (0, 0)
    if verb == "events":
        assert told.stdout == own.stdout
        return
    assert json.loads(told.stdout).items() >= json.loads(own.stdout).items()


def test_explain_of_one_attempt(elsewhere: Elsewhere, three_faults: Any) -> None:
    """As of one's own jobs; items are not served."""
    job = elsewhere.has(three_faults)
    one = json.loads(elsewhere.ask("explain", job, "--attempt", "2", "--json").stdout)
    none = elsewhere.ask("explain", job, "--attempt", "9")
    item = elsewhere.ask("explain", job, "--item", "3")

    assert [attempt["number"] for attempt in one["attempts"]] == [2]
    assert (none.exit_code, item.exit_code) == (2, 2)
    assert "has no attempt 9: it has had 4" in none.stderr
    assert "is a job of ada: items are in its owner's journal" in item.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("explain",),
        ("explain", "--json"),
        ("explain", "--item", "3"),
        ("events",),
        ("logs",),
        ("logs", "-f"),
        ("logs", "--runner"),
        ("logs", "--json"),
    ],
)
def test_what_is_the_owners_is_refused_in_the_daemons_words(
    words: tuple[str, ...], elsewhere: Elsewhere, three_faults: Any
) -> None:
    """Exit code 2, and nothing on stdout."""
    job = elsewhere.has(three_faults, private=True)
    elsewhere.daemon.routes["GET", f"/v1/jobs/{job}/log/stream"] = refused(403, "not_yours", WORDS)
    result = elsewhere.ask(words[0], job, *words[1:])

    assert result.exit_code == 2
    assert result.stderr == f"supervise: {WORDS}\n"


def test_show_and_report_are_for_everybody(elsewhere: Elsewhere, three_faults: Any) -> None:
    """Without the evidence, and with who may act on it."""
    job = elsewhere.has(three_faults, private=True)
    shown = lines(elsewhere.ask("show", job))

    assert "3fa2c1  succeeded" in shown[0]
    assert "  next      It is a job of ada: only they, and admins, may act on it." in shown
    assert "4 attempts, 3 faults" in "\n".join(lines(elsewhere.ask("report", job)))


def test_a_batch_job_without_its_evidence(elsewhere: Elsewhere, new_job: NewJob) -> None:
    """How many items an attempt finished is part of it; how many the job has is not."""
    job = elsewhere.has(poisoned(new_job), private=True)
    shown = "\n".join(lines(elsewhere.ask("show", job)))

    assert "8 of 10 done, 2 quarantined" in shown
    assert "photos/010.jpg" in shown


def test_a_job_that_waits_or_lost_its_runner_says_so(elsewhere: Elsewhere, new_job: NewJob) -> None:
    """What the queue knows goes before what the journal says."""
    story = batch_job(new_job)
    why = "waits for 2 GPUs: none is free"
    elsewhere.has(story, phase="waiting", state="queued", why=why)
    shown = lines(elsewhere.ask("show", story.id))
    assert "queued (it waits in the queue of the daemon)" in shown[0]
    assert "  why       waits for 2 GPUs: none is free" in shown

    elsewhere.has(story.begins(4), phase="started", runner_alive=False)
    assert (
        "(its runner is gone; the daemon starts another)" in elsewhere.ask("show", story.id).stdout
    )


def test_ones_own_job_is_never_asked_for(
    elsewhere: Elsewhere, three_faults: Any, supervise: Callable[..., Result]
) -> None:
    """Also where the daemon has one of that name."""
    elsewhere.has(three_faults)
    with served(FakeDaemon(three_faults.state_dir / "daemon.sock", three_faults.state_dir)) as own:
        assert supervise("show", "digits").exit_code == 0
        assert own.called() == []


@pytest.mark.parametrize("job", ["nobody-abcdef", "not/a/job", "-"])
def test_a_job_that_nobody_has(job: str, elsewhere: Elsewhere) -> None:
    """Told as it is where no daemon runs."""
    result = elsewhere.ask("show", job)

    assert result.exit_code == 2
    assert "no jobs yet in" in result.stderr


def test_a_name_that_may_mean_several(elsewhere: Elsewhere) -> None:
    """The daemon says which."""
    answer = refused(409, "conflict", "net may mean several jobs; say which is meant: net-1, net-2")
    elsewhere.daemon.routes["GET", "/v1/jobs/net"] = answer
    result = elsewhere.ask("show", "net")

    assert (result.exit_code, "net-1, net-2" in result.stderr) == (2, True)


def test_a_newer_daemon_may_say_more(elsewhere: Elsewhere, three_faults: Any) -> None:
    """Keys that this program does not know are no reason to fail."""
    job = elsewhere.has(three_faults, brand_new=1)
    document = elsewhere.daemon.routes["GET", f"/v1/jobs/{job}"](None)[1]
    document["attempts"][0]["brand_new"] = document["checkpoints"][0]["brand_new"] = 2
    elsewhere.daemon.routes["GET", f"/v1/jobs/{job}"] = (200, document)

    assert elsewhere.ask("show", job).exit_code == 0


@pytest.mark.parametrize("part", ["name", "attempts"])
def test_an_answer_that_lacks_something_is_told_in_words(
    part: str, elsewhere: Elsewhere, three_faults: Any
) -> None:
    """As where a daemon of another kind answers; never a traceback."""
    job = elsewhere.has(three_faults)
    document = elsewhere.daemon.routes["GET", f"/v1/jobs/{job}"](None)[1]
    if part == "name":
        del document["name"]
    else:
        del document["attempts"][1]["number"]
    elsewhere.daemon.routes["GET", f"/v1/jobs/{job}"] = (200, document)
    result = elsewhere.ask("show", job)

    assert result.exit_code == 2
    assert "the daemon's answer lacks what this program expects" in result.stderr


WROTE = b"".join(b"line %d \xff\r\n" % number for number in range(40)) + b"open"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), WROTE),
        (("-n", "0"), b""),
        (("-n", "1"), b"open"),
        (("-n", "3"), b"line 38 \xff\r\nline 39 \xff\r\nopen"),
        (("-n", "99"), WROTE),
    ],
)
def test_a_log_comes_byte_for_byte(
    words: tuple[str, ...],
    expected: bytes,
    elsewhere: Elsewhere,
    new_job: NewJob,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In parts, and its last lines without the rest."""
    monkeypatch.setattr(remote_logs, "PART", 7)
    story = new_job().runner().begins(31)
    story.attempt(1).log.write_bytes(WROTE)

    assert elsewhere.ask("logs", elsewhere.has(story), *words).stdout_bytes == expected


def test_logs_of_all_attempts_as_text_and_as_json(elsewhere: Elsewhere, three_faults: Any) -> None:
    """Each under its title; paths of another's files are not told."""
    job = elsewhere.has(three_faults)
    told = elsewhere.ask("logs", job, "--all").stdout
    as_json = json.loads(elsewhere.ask("logs", job, "--all", "--json").stdout)

    assert told.count("==> attempt") == 4
    assert [one["attempt"] for one in as_json] == [1, 2, 3, 4]
    assert as_json[3]["lines"] == ["step 2700/2700", "Training finished: test accuracy 98.1 %"]


def test_the_runners_log_and_its_last_words(elsewhere: Elsewhere, three_faults: Any) -> None:
    """What a runner printed is all there is of one that died without a word."""
    folder = three_faults.attempt(1).path.parents[1]
    (folder / "runner.out").write_text("Traceback\nMemoryError\n")
    job = elsewhere.has(three_faults)

    assert lines(elsewhere.ask("logs", job, "--runner"))[-2:] == ["Traceback", "MemoryError"]
    told = json.loads(elsewhere.ask("logs", job, "--runner", "--json").stdout)
    assert (told["lines"], told["printed"]) == ([], ["Traceback", "MemoryError"])


def stream(*events: tuple[str, Any]) -> bytes:
    """An answer of server-sent events, which then is cut off."""
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    told = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events)
    return (head + told).encode()


def piece(attempt: int, offset: int, data: bytes) -> tuple[str, Any]:
    """A `log` event."""
    told = {"attempt": attempt, "offset": offset, "next": offset + len(data)}
    try:
        return "log", told | {"text": data.decode()}
    except UnicodeDecodeError:
        return "log", told | {"text": "?", "data": base64.b64encode(data).decode()}


def test_following_goes_on_where_a_daemon_was_cut_off(
    elsewhere: Elsewhere, three_faults: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing twice, nothing missed; the end of the job ends it."""
    monkeypatch.setattr(remote_logs, "KNOCK_S", 0.0)
    three_faults.attempt(4).log.write_bytes(b"four\n")
    job = elsewhere.has(three_faults)
    ended = {"id": job, "state": "succeeded", "exit_code": 0, "ended": True}
    answers = [
        stream(("attempt", {"attempt": 4}), piece(4, 5, b"fi\xffve")),
        stream(("attempt", {"attempt": 4}), piece(4, 10, b"\nsix"), ("end", ended)),
    ]
    asked: list[str] = []

    def answer(request: Request) -> bytes:
        asked.append(request.query)
        return answers[len(asked) - 1]

    elsewhere.daemon.routes["GET", f"/v1/jobs/{job}/log/stream"] = answer
    result = elsewhere.ask("logs", "-f", job)

    assert result.stdout_bytes == b"four\nfi\xffve\nsix\n"
    assert asked == ["attempt=4&offset=5", "attempt=4&offset=10"]
    assert result.stderr.startswith(f"==> {job} is succeeded: completed")


def test_following_across_attempts_and_an_error_of_the_daemon(
    elsewhere: Elsewhere, three_faults: Any
) -> None:
    """A new attempt is told on stderr; what the daemon cannot do, in its words."""
    job = elsewhere.has(three_faults)
    elsewhere.daemon.routes["GET", f"/v1/jobs/{job}/log/stream"] = stream(
        ("attempt", {"attempt": 4}),
        piece(4, 0, b"x"),
        ("error", {"kind": "shelf_unavailable", "message": "the disk is gone"}),
    )
    result = elsewhere.ask("logs", "-f", "--attempt", "3", job)

    assert result.stdout.endswith("\nx")
    assert "==> attempt 4" in result.stderr
    assert "the disk is gone" in result.stderr
    assert result.exit_code == 2


def test_a_daemon_that_does_not_come_back(
    elsewhere: Elsewhere, three_faults: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Following ends in the words of the connection, after a while."""
    monkeypatch.setattr(remote_logs, "RETURN_S", 0.0)
    job = elsewhere.has(three_faults)
    elsewhere.daemon.routes["GET", f"/v1/jobs/{job}/log/stream"] = stream()
    result = elsewhere.ask("logs", "-f", job)

    assert result.exit_code == 1
    assert "the daemon did not answer" in result.stderr


def record_in(state: str) -> Any:
    """As much of a job as is judged."""
    return SimpleNamespace(state=state, why="")


def test_a_stopped_job_is_waited_for_while_its_daemon_is_away(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that leaves stops its jobs to go on with them; one that never ran keeps nobody."""
    now = [100.0]
    monkeypatch.setattr(remote_queue, "time", SimpleNamespace(monotonic=lambda: now[0]))
    fresh, watched = Served(state_dir, "net-abcdef"), Served(state_dir, "net-abcdef")
    watched.has_runner()
    stopped = record_in(State.STOPPED)

    assert fresh.over(stopped, submitted=True) == stopped
    assert watched.over(stopped, submitted=True) is None
    assert watched.over(record_in(State.FAILED), submitted=True) is not None
    now[0] += remote_queue.RETURN_S + 1
    assert watched.over(stopped, submitted=True) == stopped


def test_the_queue_says_whether_a_job_is_over(new_job: NewJob) -> None:
    """Its journal may say `running` of a job that is held, and `stopped` of one that waits."""
    story = new_job().runner().begins(31)
    (found,) = story.journal.jobs()
    with served(FakeDaemon(story.state_dir / "daemon.sock", story.state_dir)) as daemon:
        daemon.has(story.id, phase="waiting", waits=None)
        queued = Served(story.state_dir, story.id)
        assert queued.over(record_in(State.STOPPED), submitted=True) is None
        assert queued.over(record_in(State.STOPPED), submitted=False) is not None  # a job of `run`
        assert queued.waits(began=True) == "waits for its turn"
        assert len(daemon.asked) == 1  # one question for both

        daemon.has(story.id, phase="ended", state="holding", why="5 runners in a row")
        held = Served(story.state_dir, story.id).over(found, submitted=True)
        assert held is not None
        assert (held.state, held.why) == ("holding", "5 runners in a row")

        daemon.has(story.id, phase="started")
        started = Served(story.state_dir, story.id)
        assert started.waits(began=False) == "its runner starts"
        assert started.waits(began=True) == "its runner is gone; the daemon starts another"


def test_ones_own_runner_that_died_without_a_word(
    new_job: NewJob, supervise: Callable[..., Result]
) -> None:
    """Its log has nothing; what it printed has the reason. Nothing printed, nothing said."""
    story = new_job().runner().begins(31)
    folder = story.attempt(1).path.parents[1]
    silent = supervise("logs", story.id, "--runner")
    (folder / "runner.out").write_bytes(b"".join(b"%d\n" % one for one in range(99)) + b"\x1b[2Jx")

    assert "its runner has logged nothing" in silent.stderr
    told = supervise("logs", story.id, "--runner").stdout.splitlines()
    assert told[0] == "==> and printed last, beside its log <=="
    assert told[1:] == [*map(str, range(80, 99)), "x"]


def test_a_job_that_is_removed_while_it_is_followed(
    new_job: NewJob, supervise: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing left to wait for."""
    story = new_job().runner().begins(31)
    naps: list[float] = []

    def sleep(duration_s: float) -> None:
        naps.append(duration_s)
        story.journal.remove_job(story.id)

    monkeypatch.setattr(following, "time", SimpleNamespace(sleep=sleep))
    result = supervise("logs", "-f", story.id)

    assert (result.exit_code, len(naps)) == (0, 1)
    assert f"==> {story.id} was removed <==" in result.stderr
