"""What each route asks of the daemon, and how it answers."""

import asyncio
import json
import math

import pytest
from structlog.testing import capture_logs

from supervisor.daemon.api.answers import encoded
from supervisor.daemon.api.app import make_app
from supervisor.daemon.api.asking import PEER
from supervisor.daemon.contracts import Peer, ShelfUnavailable
from tests.api_daemon import FakeDaemon, FakeJob

ADA = Peer(4001, 4001, "ada")
GRACE = Peer(4002, 4002, "grace")


class Client:
    """Asks the application directly, as a peer."""

    def __init__(self, metrics=None) -> None:
        self.daemon = FakeDaemon()
        self.app = make_app(self.daemon, metrics)

    def ask(self, method, path, body=None, peer=ADA, **headers):
        """Status, headers and document of an answer."""
        path, _, query = path.partition("?")
        content = b"" if body is None else json.dumps(body).encode()
        found = {"content-type": "application/json"} | headers
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "http_version": "1.1",
            "scheme": "http",
            "server": None,
            "client": None,
            "headers": [(name.encode(), value.encode()) for name, value in found.items()],
            "state": {PEER: peer},
        }
        sent = []

        left = [{"type": "http.request", "body": content, "more_body": False}]

        async def receive():
            if not left:
                await asyncio.Event().wait()  # the client stays, and says no more
            return left.pop()

        async def send(message):
            sent.append(message)

        asyncio.run(self.app(scope, receive, send))
        content = b"".join(one.get("body", b"") for one in sent[1:])
        headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        document = json.loads(content) if "json" in headers["content-type"] else content
        return sent[0]["status"], headers, document


@pytest.fixture
def client():
    """Give an application with one job of ada's."""
    one = Client()
    one.daemon.add(FakeJob("net", ADA.uid, logs=[b"hello"]))
    return one


@pytest.mark.parametrize(
    ("method", "path", "key"),
    [
        ("GET", "/v1/daemon", "version"),
        ("GET", "/v1/jobs", "jobs"),
        ("GET", "/v1/jobs?state=running&limit=5&user=ada&group=g&after_seq=0", "jobs"),
        ("GET", "/v1/jobs/net", "attempts"),
        ("GET", "/v1/jobs/net/explain", "attempts"),
        ("GET", "/v1/jobs/net/report", "rows"),
        ("GET", "/v1/jobs/net/events?after=3&limit=7", "events"),
        ("GET", "/v1/jobs/net/log?attempt=1&offset=2&limit=3", "data"),
        ("GET", "/v1/jobs/net/wait?timeout_s=0", "ended"),
        ("POST", "/v1/jobs/net/stop", "words"),
        ("POST", "/v1/jobs/net/kill", "words"),
        ("POST", "/v1/jobs/net/cancel", "words"),
        ("POST", "/v1/jobs/net/resume", "words"),
        ("POST", "/v1/jobs/net/retry", "words"),
        ("GET", "/v1/groups", "groups"),
        ("POST", "/v1/groups/sweep/release", "words"),
        ("GET", "/v1/gpus", "gpus"),
        ("POST", "/v1/gpus/GPU-1/release", "words"),
        ("GET", "/openapi.json", "paths"),
    ],
)
def test_each_route_answers(client, method, path, key):
    """Every one of them with a document, and with the version of the API."""
    status, headers, document = client.ask(method, path)
    assert (status, headers["supervise-api"]) == (200, "1")
    assert key in document


def test_a_submission_reaches_the_daemon_as_it_was_sent(client):
    """Nothing is added to a job that was not said; the answer is 201."""
    job = {"job": {"name": "net"}, "folder": "/home/ada", "priority": 5, "after": ["net"]}
    surroundings = {"env": {"PATH": "/bin"}, "umask": 18, "limits": {"nofile": [1024, -1]}}
    surroundings["env_keep"] = ["HF_TOKEN"]
    body = {"jobs": [job, {"spec": "{}", "key": "k"}], "surroundings": surroundings}
    status, _, answer = client.ask("POST", "/v1/jobs", body)
    assert status == 201
    assert [one["new"] for one in answer["jobs"]] == [True, True]
    first, second = [client.daemon.kept[one["id"]].body for one in answer["jobs"]]
    assert (first, second) == (job | {"fresh": False}, {"spec": "{}", "key": "k", "fresh": False})
    assert client.daemon.surroundings == surroundings


@pytest.mark.parametrize("items", ["quarantined", ["a.jpg", 7]])
def test_items_are_passed_on(client, items):
    """Names, numbers, or all that were set aside."""
    assert client.ask("POST", "/v1/jobs/net/retry", {"items": items})[0] == 200
    assert client.daemon.retried == items


def test_a_log_is_asked_for_as_the_query_says(client):
    """Attempt, offset, limit and file reach the shelf."""
    client.ask("GET", "/v1/jobs/net/log?attempt=1&offset=2&limit=3&file=runner")
    expected = {"attempt": 1, "offset": 2, "limit": 3, "file": "runner"}
    assert client.daemon.asked == [("log", expected)]


JOB = {"job": {"name": "net"}, "folder": "/home/ada"}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "body: jobs: is required"),
        ({"jobs": []}, "body: jobs: list should have at least 1 item"),
        ({"jobs": [JOB] * 1001}, "body: jobs: list should have at most 1000 items"),
        ({"jobs": [{}]}, "body: jobs[0].job: is required"),
        ({"jobs": [{"spec": 5}]}, "body: jobs[0].spec: input should be a valid string (given: 5)"),
        ({"jobs": [JOB | {"spec": "{}"}]}, "body: jobs[0].job: there is no such field"),
        ({"jobs": [JOB | {"prio": 5}]}, "body: jobs[0].prio: there is no such field"),
        ({"jobs": [JOB], "surrounding": {}}, "body: surrounding: there is no such field"),
        ({"jobs": [JOB | {"folder": "here"}]}, "jobs[0].folder: is not an absolute path"),
        ({"jobs": [JOB | {"priority": 101}]}, "priority: input should be less than 101"),
        ({"jobs": [JOB | {"key": "a\nb"}]}, "jobs[0].key: string should match"),
        ({"jobs": [{"job": {"a": "\ud800"}, "folder": "/"}]}, "half a character"),
        ({"jobs": [{"job": {"a": math.nan}, "folder": "/"}]}, "a number is not finite"),
        ({"jobs": [{"job": {"a": 2**70}, "folder": "/"}]}, "a number is beyond 10^18"),
        ({"jobs": [JOB | {"params": {"lr": math.inf}}]}, "not finite"),
        (
            {"jobs": [JOB], "surroundings": {"env": {"A=B": "c"}}},
            "env.A=B.[key]: string should match",
        ),
        ({"jobs": [JOB], "surroundings": {"env": {"A": "\0"}}}, "env.A: string should match"),
        ({"jobs": [JOB], "surroundings": {"umask": 512}}, "surroundings.umask: input should be"),
        (
            {"jobs": [JOB], "surroundings": {"limits": {"nofile": [1]}}},
            "limits.nofile: list should",
        ),
        ([], "body: input should be"),
    ],
)
def test_a_wrong_submission_is_refused_in_words(client, body, words):
    """The place and what is wrong with it; nothing is submitted."""
    status, _, answer = client.ask("POST", "/v1/jobs", body)
    assert (status, answer["error"]["kind"]) == (422, "invalid_request")
    assert words in answer["error"]["message"]
    assert list(client.daemon.kept) == ["net"]


def test_a_deep_job_is_refused(client):
    """Deeper than any job.yaml is, and not as deep as a parser can bear."""
    deep = {}
    for _ in range(40):
        deep = {"a": deep}
    status, _, answer = client.ask("POST", "/v1/jobs", {"jobs": [{"job": deep, "folder": "/"}]})
    assert status == 422
    assert "nested more than 32 levels deep" in answer["error"]["message"]


def test_many_mistakes_are_not_all_told(client):
    """The first few, and how many more there are."""
    _, _, answer = client.ask("POST", "/v1/jobs", {"jobs": [{"spec": 1}] * 50})
    assert answer["error"]["message"].endswith("; and 45 more")


@pytest.mark.parametrize(
    ("asked", "expected", "words"),
    [
        (("GET", "/v1/jobs/other"), (404, "no_such_job"), "the queue has no job other"),
        (("GET", "/v1/jobs/-x"), (422, "invalid_request"), "path: job: string should match"),
        (("GET", "/v1/jobs/" + "a" * 129), (422, "invalid_request"), "at most 128 characters"),
        (("GET", "/v1/jobs?limt=5"), (422, "invalid_request"), "'limt' is not known here"),
        (("GET", "/v1/jobs/net?x=1"), (422, "invalid_request"), "may be said: nothing"),
        (("GET", "/v1/jobs?limit=5&limit=6"), (422, "invalid_request"), "limit is said twice"),
        (("GET", "/v1/jobs?limit=0"), (422, "invalid_request"), "query: limit"),
        (("GET", "/v1/jobs?state=fine"), (422, "invalid_request"), "query: state"),
        (("GET", "/v1/jobs/net/wait?timeout_s=nan"), (422, "invalid_request"), "timeout_s"),
        (("GET", "/v1/jobs/net/log?offset=-1"), (422, "invalid_request"), "offset"),
        (("GET", "/v1/nothing"), (404, "no_such_route"), "/openapi.json lists all there is"),
        (
            ("GET", "/v2/jobs"),
            (404, "no_such_version"),
            "version '2' of the API is not spoken here",
        ),
        (("GET", "/v0/jobs"), (404, "no_such_version"), "a daemon that is older"),
        (("GET", "/v1/jobs/"), (404, "no_such_route"), "there is nothing at"),
        (("PUT", "/v1/jobs"), (405, "method_not_allowed"), "use GET, POST"),
        (("GET", "/v1/jobs/net/stop"), (405, "method_not_allowed"), "use POST"),
        (("GET", "/metrics"), (404, "no_such_route"), "keeps no metrics"),
        (("DELETE", "/v1/jobs/net"), (409, "conflict"), "net has not ended"),
        (("POST", "/v1/groups/none/release"), (404, "no_such_job"), "no group"),
        (("POST", "/v1/gpus/GPU-2/release"), (409, "conflict"), "GPU-2 is not set aside"),
    ],
)
def test_a_refusal_says_why(client, asked, expected, words):
    """Its status, its kind and its words."""
    found, headers, answer = client.ask(*asked)
    assert (found, answer["error"]["kind"]) == expected
    assert words in answer["error"]["message"]
    assert headers["supervise-api"] == "1"


def test_a_wrong_method_is_told_the_right_ones(client):
    """All of those that the path has, over all routes."""
    assert client.ask("PUT", "/v1/jobs/net")[1]["allow"] == "DELETE, GET"


def test_somebody_elses_log_is_not_shown(client):
    """Its document is, and an admin sees both."""
    assert client.ask("GET", "/v1/jobs/net", peer=GRACE)[0] == 200
    for path in ("log", "log/stream"):
        with capture_logs() as logged:
            status, _, answer = client.ask("GET", f"/v1/jobs/net/{path}", peer=GRACE)
        assert (status, answer["error"]["kind"]) == (403, "not_yours")
        seen = {key: logged[0][key] for key in ("event", "kind", "uid", "path")}
        expected = {"kind": "not_yours", "uid": GRACE.uid, "path": f"/v1/jobs/net/{path}"}
        assert seen == {"event": "refused"} | expected
    assert client.ask("GET", "/v1/jobs/net/log", peer=Peer(1, 1, "root", admin=True))[0] == 200


def test_nobody_is_served_without_a_name(client):
    """An application that no gate stands before serves nobody."""
    assert client.ask("GET", "/v1/daemon", peer=None)[0] == 401


@pytest.mark.parametrize("content_type", ["text/plain", "", "application/jsonx"])
def test_a_body_must_be_json(client, content_type):
    """A form that a browser sends without asking is none."""
    found = client.ask("POST", "/v1/jobs", {"jobs": [JOB]}, **{"content-type": content_type})
    assert (found[0], found[2]["error"]["kind"]) == (415, "not_json")


def test_what_the_daemon_refuses_keeps_its_words(client, monkeypatch):
    """Status, kind and message of a refusal are the daemon's own."""

    async def refuse(*_):
        raise ShelfUnavailable("the disk is full: free some space")

    monkeypatch.setattr(client.daemon, "stop", refuse)
    status, _, answer = client.ask("POST", "/v1/jobs/net/stop")
    assert status == 503
    expected = {"kind": "shelf_unavailable", "message": "the disk is full: free some space"}
    assert answer["error"] == expected


def test_a_mistake_of_ours_is_logged_and_not_shown(client, monkeypatch):
    """The client gets an id, and the log has it beside the error."""

    async def fail():
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(client.daemon, "status", fail)
    with capture_logs() as logged:
        status, _, answer = client.ask("GET", "/v1/daemon")
    assert (status, answer["error"]["kind"]) == (500, "internal_error")
    assert "secret" not in json.dumps(answer)
    assert logged[0]["id"] in answer["error"]["message"]
    assert "secret detail" in logged[0]["error"]


def test_metrics_are_prometheus_text():
    """As their source gives them."""

    async def metrics():
        return b"supervise_jobs 3\n"

    status, headers, content = Client(metrics).ask("GET", "/metrics")
    assert (status, content) == (200, b"supervise_jobs 3\n")
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_a_long_listing_is_whole(client):
    """However many pieces it was encoded in."""
    for number in range(1100):
        client.daemon.add(FakeJob(f"job-{number}"))
    _, _, answer = client.ask("GET", "/v1/jobs")
    names = [one["id"] for one in answer["jobs"]]
    assert names == ["net", *(f"job-{number}" for number in range(1100))]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"loss": math.nan, "all": [math.inf, 1.5]}, {"loss": None, "all": [None, 1.5]}),
        ({"path": "/a/\udcff"}, {"path": "/a/\udcff"}),
        ({"é": "\u2028"}, {"é": "\u2028"}),
    ],
)
def test_what_json_cannot_say_does_not_break_an_answer(content, expected):
    """A number that is none is null; a path that is no UTF-8 arrives as it is."""
    assert json.loads(encoded(content)) == expected
    assert encoded(content).isascii()
