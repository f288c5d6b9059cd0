"""Which daemon serves this person, if any does.

Owns the places where daemons listen and in which order they are tried; asks nothing over HTTP.
Invariant: where nobody listens, that is known after a look at a file, without loading HTTP.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from supervisor.client.errors import ClientError, NoDaemon
from supervisor.client.sockets import dial
from supervisor.runner.home import default_state_dir

if TYPE_CHECKING:
    from supervisor.client.connection import Connection

SOCKET_NAME = "daemon.sock"
SYSTEM_SOCKET = Path("/run/supervise/supervise.sock")
SYSTEM_STATE = Path("/var/lib/supervise")
URL, TOKEN_FILE = "SUPERVISE_URL", "SUPERVISE_TOKEN_FILE"
TOKEN_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Found:
    """A daemon that answers. `socket` is None for one that is reached over TCP.

    `system` says that it serves every user of this host, each on a shelf of their own.
    """

    connection: "Connection"
    socket: Path | None
    system: bool

    @property
    def far(self) -> bool:
        """Whether it may be on another host, where our files are not."""
        return self.socket is None


def find_daemon(state_dir: Path) -> Found:
    """The daemon that serves this state folder, or else, if that is the default one, this host.

    Raises:
        NoDaemon: none runs.
        NotAllowed, Untrusted: one may, and this user is not to use it.
        ClientError: SUPERVISE_URL or SUPERVISE_TOKEN_FILE is no good.
    """
    if url := os.environ.get(URL):
        return _far(url)
    own = state_dir / SOCKET_NAME
    try:
        return _near(own, system=False)
    except NoDaemon:
        if not _may_be_system(state_dir):
            raise
    try:
        return _near(SYSTEM_SOCKET, system=True)
    except NoDaemon as error:
        raise NoDaemon(f"{own} or {SYSTEM_SOCKET}") from error


def daemon_or_none(state_dir: Path) -> Found | None:
    """The same, None where none runs. Raises the other errors of `find_daemon`."""
    try:
        return find_daemon(state_dir)
    except NoDaemon:
        return None


def shelf_of(found: Found, state_dir: Path) -> Path | None:
    """The state folder in which this user's jobs of that daemon are; None where it is far."""
    if found.far:
        return None
    if not found.system:
        return state_dir
    told = found.connection.request("GET", "/v1/daemon")
    return Path(str(told["state_dir"])) / "users" / str(os.getuid())


def own_shelves(state_dir: Path) -> list[Path]:
    """The state folders in which this user's jobs may be, whether a daemon runs or not."""
    shelf = SYSTEM_STATE / "users" / str(os.getuid())
    return list(dict.fromkeys([state_dir, *([shelf] if _may_be_system(state_dir) else [])]))


def _may_be_system(state_dir: Path) -> bool:
    # A person who named a folder means the jobs of that folder, and no others.
    return state_dir in {SYSTEM_STATE, default_state_dir().absolute()}


def _near(path: Path, *, system: bool) -> Found:
    first = dial(path)  # most often nobody is there, and then HTTP need not be loaded
    try:
        with _without_tls():
            from supervisor.client.connection import Connection  # noqa: PLC0415 - see above
        ready = [first]
        connection = Connection(lambda: ready.pop() if ready else dial(path), str(path))
        connection.connect()
    except BaseException:
        first.close()
        raise
    return Found(connection, path, system)


@contextmanager
def _without_tls() -> Iterator[None]:
    """Let http.client load without ssl, which it can do without.

    Its libraries take as long to load as all else that a verb needs, and a Unix socket has no TLS.
    """
    is_absent = "ssl" not in sys.modules
    if is_absent:
        sys.modules["ssl"] = None  # type: ignore[assignment]  # what the import system takes for missing
    try:
        yield
    finally:
        if is_absent:
            del sys.modules["ssl"]


def _far(url: str) -> Found:
    from supervisor.client.tcp import connection_to  # noqa: PLC0415 - few daemons are far

    return Found(connection_to(url, _token()), None, system=False)


def _token() -> str | None:
    name = os.environ.get(TOKEN_FILE)
    if not name:
        return None
    try:
        with Path(name).open("rb") as file:
            token = file.read(TOKEN_BYTES).decode("ascii").strip()
    except (OSError, ValueError) as error:
        raise ClientError(f"{TOKEN_FILE} {name} cannot be read: {error}") from error
    if not token or not token.isprintable() or " " in token:
        raise ClientError(f"{TOKEN_FILE} {name} does not hold a token: one word is expected")
    return token
