"""A daemon for tests of those who ask one: HTTP over a Unix socket, with answers that a test sets.

Owns the server and what it was asked. It speaks as the real one: JSON, errors with a kind and a
message, connections that are kept.
"""

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

Json = Any
Answer = tuple[int, Json]


@dataclass(frozen=True)
class Request:
    """One request as it came."""

    method: str
    path: str
    query: str
    body: Json
    headers: dict[str, str]


@dataclass
class FakeDaemon:
    """Answers by `routes`: (method, path) -> (status, JSON), bytes to send raw, or a function.

    Jobs that it has are in `jobs`: id -> its row of the listing. Verbs on a job that it lacks are
    refused as the real one does.
    """

    socket: Path
    state_dir: Path
    jobs: dict[str, dict[str, Json]] = field(default_factory=dict)
    routes: dict[tuple[str, str], Any] = field(default_factory=dict)
    asked: list[Request] = field(default_factory=list)
    connections: int = 0
    system: bool = False

    def called(self) -> list[str]:
        """`METHOD path` of each request."""
        return [f"{one.method} {one.path}" for one in self.asked]

    def has(self, job_id: str, **fields: Json) -> None:
        """Let it have a job."""
        row = {"id": job_id, "name": job_id.rsplit("-", 1)[0], "state": "running", "uid": 0}
        self.jobs[job_id] = row | {"phase": "started"} | fields

    def answer(self, request: Request) -> Any:
        """What is said to a request."""
        known = self.routes.get((request.method, request.path))
        if known is not None:
            return known(request) if callable(known) else known
        parts = request.path.strip("/").split("/")
        if parts[:2] == ["v1", "jobs"] and len(parts) > 2:
            return self._of_job(request, parts[2], parts[3:])
        if request.path == "/v1/jobs":
            return 200, {"jobs": list(self.jobs.values())}
        if request.path == "/v1/daemon":
            return 200, {"state_dir": str(self.state_dir), "system": self.system}
        return refused(404, "no_such_route", f"there is nothing at {request.path}")

    def _of_job(self, request: Request, job_id: str, verb: list[str]) -> Answer:
        if job_id not in self.jobs:
            return refused(404, "no_such_job", f"the queue has no job {job_id}")
        row = self.jobs[job_id]
        if not verb and request.method == "GET":
            return 200, row
        if verb == ["wait"]:
            ended = row["phase"] == "ended"
            code = row.get("exit_code", 0) if ended else None
            return 200, {
                "id": job_id,
                "state": row["state"],
                "exit_code": code,
                "ended": ended,
            }
        words = " ".join(verb) or "delete"
        return 200, {"id": job_id, "state": row["state"], "words": f"{job_id}: {words}"}


def refused(status: int, kind: str, message: str) -> Answer:
    """An answer that says no."""
    return status, {"error": {"kind": kind, "message": message}}


@contextmanager
def served(daemon: FakeDaemon) -> Iterator[FakeDaemon]:
    """Let it listen for as long as a block lasts."""
    daemon.socket.parent.mkdir(parents=True, exist_ok=True)
    with _Server(daemon) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield daemon
        finally:
            server.shutdown()
            thread.join()
            server.hang_up()
    daemon.socket.unlink(missing_ok=True)


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, daemon: FakeDaemon) -> None:
        self.daemon = daemon
        self._open: list[Any] = []
        super().__init__(str(daemon.socket), _Conversation)

    def get_request(self) -> tuple[Any, Any]:
        sock, _ = super().get_request()
        self.daemon.connections += 1
        self._open.append(sock)
        return sock, ("", 0)

    def handle_error(self, *_: object) -> None:
        """Say nothing of a client that has left: tests make some that do."""

    def hang_up(self) -> None:
        """Close what clients keep open, so that no thread is left."""
        for sock in self._open:
            try:
                sock.shutdown(2)
            except OSError:
                continue


class _Conversation(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _do(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        content = self.rfile.read(length)
        parts = urlsplit(self.path)
        request = Request(
            self.command,
            unquote(parts.path),
            parts.query,
            json.loads(content) if content else None,
            {name.lower(): value for name, value in self.headers.items()},
        )
        self.server.daemon.asked.append(request)
        answer = self.server.daemon.answer(request)
        if isinstance(answer, bytes):  # raw, and then it hangs up
            self.wfile.write(answer)
            self.close_connection = True
            return
        status, body, *extra = answer
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (extra[0] if extra else {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = _do  # noqa: N815 - the base class's names

    def log_message(self, *_: object) -> None:
        """Stay silent."""
