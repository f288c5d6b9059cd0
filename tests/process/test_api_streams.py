"""Streams over real connections: they come, they go on, and they hold nothing up."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from structlog.testing import capture_logs

from supervisor.client.streams import Said, events_of
from supervisor.daemon.api.limits import Limits
from supervisor.daemon.contracts import ShelfUnavailable
from tests.api_daemon import FakeJob
from tests.api_server import Served, served


@pytest.fixture
def one(tmp_path) -> Iterator[Served]:
    """Give a server with one job that has printed something."""
    with served(tmp_path, Limits(streams_per_user=3)) as server:
        server.daemon.add(FakeJob("net", logs=[b"hello\n"]))
        yield server


def _stream(one: Served, path: str, **headers: str) -> Iterator[Said]:
    connection = one.connect()
    try:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET", path, headers=given)
        response = connection.getresponse()
        assert response.status == 200, response.read()
        assert response.headers["Content-Type"].startswith("text/event-stream")
        yield from events_of(response)
    finally:
        connection.close()


def _finish(one: Served) -> None:
    job = one.daemon.kept["net"]
    job.logs[-1] += b"bye\n"
    job.over = len(job.logs)
    job.state = "succeeded"


def test_a_log_comes_as_it_is_printed(one):
    """What is there at once, the rest soon, then the end; and the answer ends."""
    events = _stream(one, "/v1/jobs/net/log/stream")
    assert next(events) == Said("attempt", {"attempt": 1}, "1:0")
    assert next(events).data["text"] == "hello\n"
    one.soon(_finish, one)
    assert next(events).data == {"attempt": 1, "offset": 6, "next": 10, "text": "bye\n"}
    assert [(said.event, said.data["state"]) for said in events] == [("end", "succeeded")]


def test_a_log_goes_on_behind_the_last_event(one):
    """Last-Event-ID, as browsers send it; before what the query says."""
    _finish(one)
    path = "/v1/jobs/net/log/stream?attempt=1&offset=1"
    asked = [list(_stream(one, path)), list(_stream(one, path, Last_Event_ID="1:6"))]
    texts = [[said.data["text"] for said in events if said.event == "log"] for events in asked]
    assert texts == [["ello\nbye\n"], ["bye\n"]]


def test_progress_and_happenings_come(one):
    """A change of the job, and of the queue, reaches those who listen."""
    progress = _stream(one, "/v1/jobs/net/progress")
    happenings = _stream(one, "/v1/events?after=0")
    assert next(progress).data["step"] == 0
    one.soon(setattr, one.daemon.kept["net"], "step", 7)
    assert next(progress).data["step"] == 7
    one.soon(one.daemon.happen, "net", "Ended")
    assert next(happenings) == Said("happening", one.daemon.happened[0], "1")
    progress.close()
    happenings.close()


def test_a_stream_that_cannot_begin_is_refused(one):
    """Before it has begun there is a status."""
    assert one.ask("GET", "/v1/jobs/other/progress").status == 404
    assert one.ask("GET", "/v1/jobs/net/log/stream?attempt=7").status == 404
    assert one.ask("GET", "/v1/jobs/net/log/stream?offset=-1").status == 422


@pytest.mark.parametrize(
    ("error", "kind", "logged"),
    [
        (ShelfUnavailable("the disk is full"), "shelf_unavailable", []),
        (ZeroDivisionError("secret"), "internal_error", ["ZeroDivisionError('secret')"]),
    ],
)
def test_a_stream_that_fails_says_so(one, monkeypatch, error, kind, logged):
    """A refusal in the middle is the last event; a mistake of ours has an id, and is logged."""

    async def fail(*_):
        raise error

    events = _stream(one, "/v1/jobs/net/progress")
    next(events)
    with capture_logs() as lines:
        monkeypatch.setattr(one.daemon, "ask", fail)
        left = list(events)
    assert [(said.event, said.data["kind"]) for said in left] == [("error", kind)]
    assert "secret" not in left[0].data["message"]
    assert [line["error"] for line in lines] == logged


def test_a_quiet_stream_shows_that_it_lives(one):
    """A comment now and then, which is no event."""
    one.app.state.streams.heartbeat_s = 0.05
    connection = one.connect()
    connection.request("GET", "/v1/events")
    response = connection.getresponse()
    lines = [response.readline() for _ in range(6)]
    connection.close()
    assert lines == [b"retry: 1000\n", b"\n", b": alive\n", b"\n", b": alive\n", b"\n"]


def test_too_many_streams_of_one_user(one, eventually):
    """The one too many is told; a client that leaves makes room."""
    streams = [_stream(one, "/v1/jobs/net/log/stream") for _ in range(3)]
    for events in streams:
        next(events)
    refused = one.ask("GET", "/v1/events")
    assert (refused.status, refused.kind) == (429, "too_many_requests")
    for events in streams:
        events.close()
    eventually(lambda: not one.app.state.streams)
    assert next(_stream(one, "/v1/jobs/net/log/stream")).event == "attempt"


def test_a_stream_that_nobody_listens_to_asks_nothing(one, eventually):
    """When its client is gone a shelf has rest, and a subscription ends."""
    events, happenings = _stream(one, "/v1/jobs/net/progress"), _stream(one, "/v1/events?after=0")
    next(events)
    one.soon(one.daemon.happen, "net", "Placed")
    next(happenings)
    events.close()
    happenings.close()
    eventually(lambda: not one.app.state.streams)
    eventually(lambda: one.daemon.listeners == 0)
    before = len(one.daemon.asked)
    assert one.ask("GET", "/v1/daemon").status == 200
    assert len(one.daemon.asked) == before


def _stopped_in(server: Served) -> float:
    began = time.monotonic()
    server.stop()
    return time.monotonic() - began


def test_stopping_waits_for_no_stream(tmp_path):
    """Streams end at once, and so does who waits for a job; their clients hear it."""
    with served(tmp_path, Limits(stop_s=10)) as one:
        one.daemon.add(FakeJob("net", logs=[b"hello\n"]))
        streams = [_stream(one, "/v1/jobs/net/log/stream") for _ in range(5)]
        for events in streams:
            next(events)
        waited = []
        waiting = threading.Thread(
            target=lambda: waited.append(one.ask("GET", "/v1/jobs/net/wait?timeout_s=60"))
        )
        waiting.start()
        _in_flight(one, 6)
        assert _stopped_in(one) < 5
        waiting.join()
        assert (waited[0].status, waited[0].kind) == (503, "stopping")
        for events in streams:
            assert "end" not in {said.event for said in events}


def _in_flight(one: Served, number: int) -> None:
    deadline = time.monotonic() + 20
    never = threading.Event()
    while len(one.server._state.tasks) < number:
        assert time.monotonic() < deadline
        never.wait(0.005)


def test_stopping_lets_a_request_finish(tmp_path, monkeypatch):
    """What was asked before is answered; nobody new is let in."""
    with served(tmp_path) as one:
        release = threading.Event()

        async def slow(_peer):
            import asyncio  # noqa: PLC0415 - this function alone

            await asyncio.to_thread(release.wait, 20)
            return [{"name": "late"}]

        monkeypatch.setattr(one.daemon, "groups", slow)
        answers = []
        asking = threading.Thread(target=lambda: answers.append(one.ask("GET", "/v1/groups")))
        asking.start()
        _in_flight(one, 1)
        stopping = threading.Thread(target=one.stop)
        stopping.start()
        while one.path.exists():
            threading.Event().wait(0.005)
        release.set()
        stopping.join()
        asking.join()
        assert answers[0].json == {"groups": [{"name": "late"}]}


def test_stopping_lets_a_large_answer_be_read(tmp_path):
    """One that is larger than the socket holds arrives whole, although its reader is slow."""
    with served(tmp_path) as one:
        for number in range(10_000):
            one.daemon.add(FakeJob(f"job-{number}"))
        connection = one.connect()
        connection.request("GET", "/v1/jobs")
        response = connection.getresponse()
        stopping = threading.Thread(target=one.stop)
        stopping.start()
        while one.path.exists():
            threading.Event().wait(0.005)
        assert len(json.loads(response.read())["jobs"]) == 10_000
        connection.close()
        stopping.join()


def test_stopping_is_bounded_whatever_clients_do(tmp_path, monkeypatch):
    """A request that never ends, one that is half there, one that reads nothing: cut off."""
    with served(tmp_path, Limits(stop_s=0.2)) as one:

        async def never(_peer):
            import asyncio  # noqa: PLC0415 - this function alone

            await asyncio.Event().wait()

        monkeypatch.setattr(one.daemon, "groups", never)
        one.daemon.add(FakeJob("net", logs=[b"x" * 20_000_000]))
        socks = [one.raw() for _ in range(4)]
        for sock, path in zip(socks, ("groups", "jobs/net/log/stream"), strict=False):
            sock.sendall(f"GET /v1/{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        socks[2].sendall(b"GET /v1/")
        _in_flight(one, 2)
        assert _stopped_in(one) < 5
        for sock in socks:
            with suppress(ConnectionResetError):
                while sock.recv(65536):
                    pass
            sock.close()
    assert not one.server._state.connections


def test_one_who_waits_and_leaves_is_waited_for_no_more(one, eventually):
    """The daemon's wait ends with its client."""
    with one.raw() as sock:
        sock.sendall(b"GET /v1/jobs/net/wait?timeout_s=60 HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: len(one.server._state.tasks) == 1)
    eventually(lambda: not one.server._state.tasks)


def test_waiting_ends_with_the_job(one):
    """The answer comes when the job has ended, not when the time is over."""
    one.soon(_finish, one)
    answer = one.ask("GET", "/v1/jobs/net/wait?timeout_s=60")
    assert answer.json == {"id": "net", "state": "succeeded", "exit_code": 0, "ended": True}
