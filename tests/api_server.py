"""The API on a Unix socket of a test's own, with a daemon that keeps its jobs in a dict.

Owns the server's thread and ends it. Clients are the test's: real connections, real HTTP.
"""

import asyncio
import http.client
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.client.sockets import dial
from supervisor.daemon.api.app import make_app
from supervisor.daemon.api.limits import Limits
from supervisor.daemon.serve import Doors, Server
from tests.api_daemon import FakeDaemon

PATIENCE_S = 20.0


class LocalConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = dial(self._path)
        self.sock.settimeout(PATIENCE_S)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    content: bytes

    @property
    def json(self) -> Any:
        """Its document."""
        return json.loads(self.content)

    @property
    def kind(self) -> str:
        """Its word for why not."""
        return self.json["error"]["kind"]


class Served:
    """A server in a thread."""

    def __init__(self, daemon: FakeDaemon, server: Server, path: Path, app: Any) -> None:
        self.daemon = daemon
        self.server = server
        self.path = path
        self.app = app
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self.errors: list[dict[str, Any]] = []

    def start(self) -> None:
        """Serve."""
        self.thread.start()
        assert self._ready.wait(PATIENCE_S)

    def stop(self) -> None:
        """Stop, and wait until it has."""
        if self.thread.is_alive():
            self.loop.call_soon_threadsafe(self._stop.set)
            self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()

    def soon(self, work: Callable[..., object], *arguments: object) -> None:
        """Do something in the server's loop."""
        self.loop.call_soon_threadsafe(work, *arguments)

    def connect(self) -> LocalConnection:
        """Give a connection."""
        return LocalConnection(self.path)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """One request on a connection of its own."""
        connection = self.connect()
        try:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            content = None
            if body is not None:
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                given = {"Content-Type": "application/json"} | given
            connection.request(method, path, content, given)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def raw(self) -> socket.socket:
        """Give a bare socket, connected."""
        sock = dial(self.path)
        sock.settimeout(PATIENCE_S)
        return sock

    def _run(self) -> None:
        self.loop.set_exception_handler(lambda _, context: self.errors.append(context))
        self.loop.run_until_complete(self._serve())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    async def _serve(self) -> None:
        await self.server.start()
        self._ready.set()
        await self._stop.wait()
        await self.server.stop()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


@contextmanager
def served(
    folder: Path, limits: Limits | None = None, daemon: FakeDaemon | None = None, **doors: Any
) -> Iterator[Served]:
    """Serve at `folder`/s; whatever the loop complains of fails the test."""
    limits = limits or Limits()
    daemon = daemon or FakeDaemon()
    app = make_app(daemon, limits=limits)
    doors = {"path": folder / "s", "only": os.geteuid(), "limits": limits} | doors
    server = Server(app, Doors(**doors))
    server.bind()
    one = Served(daemon, server, doors["path"], app)
    one.start()
    try:
        yield one
    finally:
        one.stop()
    assert one.errors == []


def answer_on(sock: socket.socket) -> Answer:
    """Read one answer from a bare socket; it must be whole."""
    response = http.client.HTTPResponse(sock)
    response.begin()
    return Answer(response.status, response.headers, response.read())
