"""Serves the API: on which sockets, to whom, and until when.

Owns the life of the server within the daemon's event loop: uvicorn's protocol on sockets that are
bound here, without its signal handlers and without its clock, so an idle daemon sleeps. Invariant:
stopping takes a bounded time, whatever clients do.
"""

import asyncio
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import FastAPI
from uvicorn import Config
from uvicorn.server import ServerState

from supervisor.daemon.api.bearer import token_of
from supervisor.daemon.api.connection import Connection, Listening, own_logger
from supervisor.daemon.api.gate import Entry, Gate
from supervisor.daemon.api.limits import Crowd, Limits
from supervisor.daemon.api.sockets import (
    BACKLOG,
    Bound,
    SocketRefused,
    bind_tcp,
    bind_unix,
    is_local,
)
from supervisor.daemon.api.stream import Streams
from supervisor.daemon.peers import Peers

CANCELLED_S = 1.0
DRAINED_EVERY_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """Where a daemon listens, and to whom.

    `path`: its Unix socket; `group`: whose members may connect (None: this user alone). `only`: the
    one user who is served (None: all who may connect); members of `admin_group` are admins. `tcp`:
    HOST:PORT or PORT, with the token in `token_file`; `hosts`: more names of this host. `handed`:
    listening sockets that were bound by somebody else; a Unix socket among them replaces `path`.
    """

    path: Path | None = None
    group: str | None = None
    only: int | None = None
    admin_group: str | None = None
    tcp: str | None = None
    token_file: Path | None = None
    hosts: frozenset[str] = frozenset()
    handed: Sequence[socket.socket] = ()
    limits: Limits = field(default_factory=Limits)


class Server:
    """The API of an app from `make_app`, behind these doors. Belongs to one event loop."""

    def __init__(self, app: FastAPI, doors: Doors) -> None:
        self._app = app
        self._doors = doors
        self._bound: list[Bound] = []
        self._sockets: list[socket.socket] = []
        self._token: str | None = None
        self._state = ServerState()
        self._listening: list[asyncio.Server] = []

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """What is listened on, once bound."""
        return tuple(self._sockets)

    def bind(self) -> None:
        """Take the sockets: who connects from now on waits until `start`.

        Raises:
            SocketRefused: one is not to be had; none is kept then.
        """
        try:
            self._bind()
        except BaseException:
            self._close_sockets()
            raise

    async def start(self) -> None:
        """Serve, until `stop`."""
        doors = self._doors
        entry = Entry(
            Peers(doors.admin_group, doors.only),
            doors.limits,
            self._token,
            doors.hosts,
            self._app.state.refusals,
        )
        config = Config(
            Gate(self._app, entry),
            http="h11",
            ws="none",
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=round(doors.limits.idle_s),
        )
        config.load()
        crowd = Crowd(doors.limits)
        shared = Listening(
            config, self._state, doors.limits, crowd, self._app.state.refusals, own_logger()
        )
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            self._listening.append(
                await loop.create_server(lambda: Connection(shared), sock=sock, backlog=BACKLOG)
            )

    async def stop(self) -> None:
        """Accept nobody more, end streams, let requests finish for a while, then cut them off."""
        streams: Streams = self._app.state.streams
        streams.closing.set()
        for server in self._listening:
            server.close()
        self._close_sockets()
        for one in list(self._state.connections):
            one.shutdown()
        await self._drained(self._doors.limits.stop_s)
        for task in self._state.tasks:
            task.cancel()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=CANCELLED_S)
        for one in list(self._state.connections):
            one.transport.abort()
        await asyncio.sleep(0)  # aborted connections say goodbye in the next turn of the loop

    async def _drained(self, within_s: float) -> None:
        """Wait until all is answered, and read: an answer may be larger than a socket holds."""
        deadline_s = time.monotonic() + within_s
        while self._state.connections and time.monotonic() < deadline_s:  # noqa: ASYNC110 - only here, at the end
            await asyncio.sleep(DRAINED_EVERY_S)

    def _bind(self) -> None:
        doors = self._doors
        for sock in doors.handed:
            self._sockets.append(_listening(sock))
        if doors.path is not None and not any(map(is_local, self._sockets)):
            self._bound.append(bind_unix(doors.path, doors.group))
            self._sockets.append(self._bound[-1].sock)
        if doors.tcp is not None:
            self._sockets.append(bind_tcp(doors.tcp))
        if not all(map(is_local, self._sockets)):
            if doors.token_file is None:
                raise SocketRefused(
                    "over TCP nobody is let in without a token, and no file is named"
                )
            self._token = token_of(doors.token_file)
        if not self._sockets:
            raise SocketRefused("no socket is named: the daemon could not be reached")

    def _close_sockets(self) -> None:
        for one in self._bound:
            one.close()
        for sock in self._sockets:
            sock.close()
        self._bound, self._sockets = [], []


async def serve(app: FastAPI, doors: Doors, until: asyncio.Event) -> None:
    """Serve until the event is set. Raises SocketRefused."""
    server = Server(app, doors)
    server.bind()
    try:
        await server.start()
        await until.wait()
    finally:
        await server.stop()


def _listening(sock: socket.socket) -> socket.socket:
    """A socket that was handed over, ready for the event loop."""
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(
        socket.SOL_SOCKET, socket.SO_ACCEPTCONN
    ):
        raise SocketRefused(f"file descriptor {sock.fileno()} is no socket that listens")
    sock.set_inheritable(False)
    return sock
