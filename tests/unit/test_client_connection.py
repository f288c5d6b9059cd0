"""Requests to a daemon, and every way in which they can go wrong."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from supervisor.client import connection as connection_module
from supervisor.client import sockets
from supervisor.client.calls import Daemon
from supervisor.client.connection import Connection
from supervisor.client.errors import (
    ClientError,
    DaemonGone,
    NoDaemon,
    NotAllowed,
    Refused,
    TooNew,
    TooOld,
    Untrusted,
)
from supervisor.client.sockets import ADDRESS_BYTES, dial
from tests.unit.fake_daemon import FakeDaemon, refused, served


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeDaemon]:
    """A daemon that listens."""
    with served(FakeDaemon(tmp_path / "d.sock", tmp_path)) as one:
        yield one


@pytest.fixture
def asking(fake: FakeDaemon) -> Iterator[Connection]:
    """A connection to it."""
    with Connection(lambda: dial(fake.socket), str(fake.socket)) as one:
        yield one


def test_one_connection_serves_many_requests(fake: FakeDaemon, asking: Connection) -> None:
    """Keep-alive: a thousand submissions do not connect a thousand times."""
    for _ in range(5):
        asking.request("POST", "/v1/jobs", {"jobs": []})

    assert (len(fake.asked), fake.connections) == (5, 1)


def test_a_daemon_that_hung_up_between_two_requests_is_dialled_again(
    fake: FakeDaemon, asking: Connection
) -> None:
    """It was restarted, or tired of waiting; nothing was sent meanwhile, so nothing is lost."""
    fake.routes["GET", "/last"] = 200, {}, {"Connection": "close"}
    asking.request("GET", "/last")

    assert asking.request("GET", "/v1/daemon")["system"] is False
    assert fake.connections == 2


def test_a_refusal_has_its_status_kind_and_words(fake: FakeDaemon, asking: Connection) -> None:
    """A verb prints the daemon's own sentence."""
    fake.routes["POST", "/v1/jobs"] = refused(409, "conflict", "digits writes there too")

    with pytest.raises(Refused, match="digits writes there too") as told:
        asking.request("POST", "/v1/jobs", {})
    assert (told.value.status, told.value.kind) == (409, "conflict")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
    ids=["nothing", "cut short", "cut in a chunk", "not http"],
)
@pytest.mark.parametrize(("method", "changes"), [("GET", False), ("POST", True)])
def test_a_daemon_that_dies_in_its_answer(
    raw: bytes, method: str, *, changes: bool, fake: FakeDaemon, asking: Connection
) -> None:
    """That is told; of a request that changes something also that it may have been done."""
    fake.routes[method, "/v1/jobs"] = raw

    with pytest.raises(DaemonGone) as told:
        asking.request(method, "/v1/jobs")
    assert told.value.changes is changes
    assert ("may have been done" in str(told.value)) is changes
    assert len(fake.asked) == 1  # never sent twice


def test_a_daemon_that_says_nothing(fake: FakeDaemon, asking: Connection) -> None:
    """It is given a time, and no longer."""
    stalled = threading.Event()
    fake.routes["GET", "/v1/daemon"] = lambda _: (stalled.wait(30), (200, {}))[1]

    with pytest.raises(DaemonGone, match=r"nothing came for 0\.05 s"):
        asking.request("GET", "/v1/daemon", limit_s=0.05)
    stalled.set()


def test_a_daemon_that_is_asked_too_often_is_asked_later(
    fake: FakeDaemon, asking: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had not looked at the request, so nothing is done twice."""
    waits: list[float] = []
    monkeypatch.setattr(connection_module.time, "sleep", waits.append)
    answers = [
        (*refused(429, "too_many_requests", "slowly"), {"Retry-After": "2"}),
        (*refused(429, "too_many_requests", "slowly"), {"Retry-After": "3600"}),
        (200, {"jobs": []}),
    ]
    fake.routes["GET", "/v1/jobs"] = lambda _: answers.pop(0)

    assert asking.request("GET", "/v1/jobs") == {"jobs": []}
    assert waits == [2.0, connection_module.BUSY_LONGEST_S]


def test_patience_with_a_busy_daemon_ends(
    fake: FakeDaemon, asking: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then its refusal is told."""
    monkeypatch.setattr(connection_module.time, "sleep", lambda _: None)
    fake.routes["GET", "/v1/jobs"] = refused(429, "too_many_requests", "slowly")

    with pytest.raises(Refused, match="slowly"):
        asking.request("GET", "/v1/jobs")
    assert len(fake.asked) == connection_module.BUSY_TURNS


@pytest.mark.parametrize(("spoken", "error"), [("2", TooNew), ("0", TooOld), ("2, 3", TooNew)])
def test_another_version_of_the_api(
    spoken: str, error: type[ClientError], fake: FakeDaemon, asking: Connection
) -> None:
    """Who is to be upgraded is said, and not that a route is missing."""
    missing = refused(404, "no_such_version", "no /v1 here")
    fake.routes["GET", "/v1/daemon"] = *missing, {"Supervise-Api": spoken}

    with pytest.raises(error, match=f"speaks version {spoken} of the API, this program version 1"):
        asking.request("GET", "/v1/daemon")


def test_a_newer_daemon_that_still_speaks_our_version(fake: FakeDaemon, asking: Connection) -> None:
    """Its refusal is one like any other."""
    missing = refused(404, "no_such_job", "the queue has no job x")
    fake.routes["GET", "/v1/jobs/x"] = *missing, {"Supervise-Api": "1, 2"}

    with pytest.raises(Refused, match="the queue has no job x"):
        asking.request("GET", "/v1/jobs/x")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((500, ["what"]), "answered 500 without a reason"),
        ((404, {"error": "nothing"}), "answered 404 without a reason"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", "does not speak as a daemon does"),
    ],
)
def test_somebody_else_listens(
    answer: Any, error: str, fake: FakeDaemon, asking: Connection
) -> None:
    """What is said is no answer of ours; it ends in words, not in a traceback."""
    fake.routes["GET", "/v1/daemon"] = answer

    with pytest.raises(ClientError, match=error):
        asking.request("GET", "/v1/daemon")


def test_an_answer_that_lacks_a_field(fake: FakeDaemon, asking: Connection) -> None:
    """A daemon of another version: what it lacks is told."""
    fake.routes["POST", "/v1/jobs/x/stop"] = 200, {"id": "x"}
    fake.routes["GET", "/v1/groups"] = 200, {"held": []}

    for call in (lambda: Daemon(asking).stop("x"), Daemon(asking).groups):
        with pytest.raises(ClientError, match="lacks what this program expects"):
            call()


def test_a_body_that_is_refused_before_it_was_sent_whole(tmp_path: Path) -> None:
    """The daemon answers and hangs up while we still send; its answer is what is told."""
    path = tmp_path / "d.sock"
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(str(path))
        listening.listen()

        def refuse() -> None:
            sock, _ = listening.accept()
            with sock:
                sock.recv(1000)
                body = b'{"error": {"kind": "too_large", "message": "the body is too large"}}'
                head = (
                    f"HTTP/1.1 413 No\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                )
                sock.sendall(head.encode() + body)

        thread = threading.Thread(target=refuse)
        thread.start()
        with Connection(lambda: dial(path), "it") as asking, pytest.raises(Refused) as told:
            asking.request("POST", "/v1/jobs", {"spec": "x" * 5_000_000})
        thread.join()
    assert (told.value.status, told.value.message) == (413, "the body is too large")


def test_nobody_listens(tmp_path: Path) -> None:
    """Where no daemon ever was, where one died, and where the folder is missing."""
    dead = tmp_path / "dead.sock"
    with closing(socket.socket(socket.AF_UNIX)) as gone:
        gone.bind(str(dead))
    (tmp_path / "file").touch()

    for path in (dead, tmp_path / "no.sock", tmp_path / "no/no.sock", tmp_path / "file/no.sock"):
        with pytest.raises(NoDaemon, match="supervise daemon run"):
            dial(path)


def test_a_path_longer_than_an_address(tmp_path: Path) -> None:
    """Unix sockets have names of 107 bytes; state folders do not."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    path = folder / "daemon.sock"
    assert len(os.fsencode(path)) > ADDRESS_BYTES
    opened = os.open(folder, os.O_PATH)
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(f"/proc/self/fd/{opened}/daemon.sock")
        listening.listen()
        os.close(opened)
        with closing(dial(path)) as dialled:
            assert dialled.getpeername().endswith("/daemon.sock")


def test_a_full_queue_is_waited_for_and_then_told(tmp_path: Path) -> None:
    """A daemon that accepts nobody is not one that is not there."""
    path = tmp_path / "d.sock"
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(str(path))
        listening.listen(0)
        with closing(dial(path)), pytest.raises(NoDaemon, match="accepted nobody within"):
            dial(path, limit_s=0.05)


def test_a_socket_of_somebody_else_is_told_nothing(
    fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who plants a socket where a daemon should be would be sent an environment."""
    monkeypatch.setattr(sockets.os, "getuid", lambda: 1234)
    monkeypatch.setattr(sockets, "_CREDENTIALS", _Credentials(4321))

    with pytest.raises(Untrusted, match="served by user 4321, who is neither you nor root"):
        dial(fake.socket)
    assert fake.asked == []


class _Credentials:
    """Stands in for the kernel's word about who listens."""

    size = 12

    def __init__(self, uid: int) -> None:
        self.uid = uid

    def unpack(self, _: bytes) -> tuple[int, int, int]:
        return 1, self.uid, 1


def test_a_socket_that_may_not_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the host's daemon it is said which group one must be in."""

    def refuse(sock: socket.socket, _: Path) -> None:
        del sock
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(sockets, "_connect", refuse)

    with pytest.raises(NotAllowed, match="members of the group `supervise`"):
        dial(Path("/run/supervise/supervise.sock"))
    with pytest.raises(NotAllowed, match="another user's daemon"):
        dial(tmp_path / "daemon.sock")


CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def chunk(text: bytes) -> bytes:
    """A piece of a body whose length nobody knows beforehand."""
    return b"%x\r\n%s\r\n" % (len(text), text)


def test_a_stream_is_read_as_it_comes(fake: FakeDaemon, asking: Connection) -> None:
    """On a connection of its own, so that verbs can be used meanwhile."""
    first = chunk(b": here\n\nevent: log\nid: 4\n") + chunk(b'data: {"text": "a"}\n\n')
    fake.routes["GET", "/v1/jobs/x/log/stream"] = (
        CHUNKED + first + chunk(b"event: end\n") + (chunk(b"data: {}\n\n") + b"0\r\n\r\n")
    )
    asking.request("GET", "/v1/daemon")

    said = list(Daemon(asking).log_stream("x", attempt=2, offset=None))

    assert [(one.event, one.data, one.id) for one in said] == [
        ("log", {"text": "a"}, "4"),
        ("end", {}, None),
    ]
    assert (fake.asked[-1].query, fake.connections) == ("attempt=2", 2)


def test_a_stream_that_breaks(fake: FakeDaemon, asking: Connection) -> None:
    """What came before is told; the end is not taken for the job's."""
    fake.routes["GET", "/v1/events"] = CHUNKED + chunk(b"data: 1\n\ndata: half")
    told = Daemon(asking).happenings()

    assert next(told).data == 1
    with pytest.raises(DaemonGone, match="it went away"):
        next(told)


def test_a_stream_that_is_refused(fake: FakeDaemon, asking: Connection) -> None:
    """As any other request."""
    fake.routes["GET", "/v1/jobs/x/progress"] = refused(404, "no_such_job", "no job x")
    with pytest.raises(Refused, match="no job x"):
        list(Daemon(asking).progress("x"))


def test_every_route_has_its_path(fake: FakeDaemon, asking: Connection) -> None:
    """Whatever a name holds, it stays one part of the path."""
    daemon = Daemon(asking)
    fake.has("a b/c")
    fake.routes["GET", "/v1/groups"] = 200, {"groups": [{"name": "g"}]}
    fake.routes["GET", "/v1/gpus"] = 200, {"gpus": []}
    fake.routes["POST", "/v1/gpus/GPU-1/release"] = 200, {"words": "free"}
    fake.routes["GET", "/v1/jobs/x/log"] = 200, {"next": 7}

    assert daemon.jobs(state="running", limit=5) == list(fake.jobs.values())
    assert daemon.document("x", "log", offset=3, attempt=None) == {"next": 7}
    assert daemon.groups() == [{"name": "g"}]
    assert daemon.gpus() == []
    assert daemon.release_gpu("GPU-1") == {"words": "free"}
    assert [one.query for one in fake.asked[:2]] == ["state=running&limit=5", "offset=3"]
    with pytest.raises(Refused):
        daemon.resume("..")
    assert fake.asked[-1].path == "/v1/jobs/../resume"
