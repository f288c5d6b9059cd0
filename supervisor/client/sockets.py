"""The daemon's Unix socket, dialled.

Owns one connect: its patience, paths longer than a socket address, and who listens. Invariant: a
socket that is returned belongs to a process of root or of this user, so nobody who plants a socket
is sent an environment.
"""

import os
import socket
import struct
from pathlib import Path

from supervisor.client.errors import NoDaemon, NotAllowed, Untrusted

CONNECT_S = 2.0
ADDRESS_BYTES = 107  # unix(7): sun_path holds 108, one of them the end
_CREDENTIALS = struct.Struct("3i")  # unix(7), SO_PEERCRED: pid, uid, gid
_TIME = struct.Struct("ll")  # socket(7), SO_SNDTIMEO: seconds, microseconds
_SYSTEM_WORDS = (
    "only members of the group `supervise` may use the daemon of this host. "
    "Ask an administrator: usermod -aG supervise {user}; it counts from the next login"
)


def dial(path: Path, limit_s: float = CONNECT_S) -> socket.socket:
    """A connection to whoever listens there.

    Raises:
        NoDaemon: nobody does, or they accept nobody within the limit.
        NotAllowed: this user may not.
        Untrusted: neither root nor this user listens there.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # A blocking connect waits while the queue of a busy daemon is full; Python's own time
        # limit would make it fail at once.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _time(limit_s))
        _connect(sock, path)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _time(0))
        _trust(sock, path)
    except BlockingIOError as error:
        sock.close()
        raise NoDaemon(str(path), f"it accepted nobody within {limit_s:g} s") from error
    except PermissionError as error:
        sock.close()
        raise NotAllowed(f"{path}: {error.strerror}; {_may_not(path)}") from error
    except OSError as error:
        sock.close()
        # That there is no such file is what everybody expects where no daemon was ever started.
        why = "" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
        raise NoDaemon(str(path), why) from error
    except BaseException:
        sock.close()
        raise
    return sock


def _connect(sock: socket.socket, path: Path) -> None:
    if len(os.fsencode(path)) <= ADDRESS_BYTES:
        sock.connect(os.fspath(path))
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def _trust(sock: socket.socket, path: Path) -> None:
    """Refuse a listener that is neither root's nor ours; root knows whom it names."""
    told = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(told)
    mine = os.getuid()
    if mine != 0 and uid not in {0, mine}:
        raise Untrusted(
            f"{path} is served by user {uid}, who is neither you nor root. It was told nothing. "
            "Find out who made that socket, or name another state folder with --state-dir"
        )


def _may_not(path: Path) -> str:
    if os.fspath(path).startswith("/run/"):
        return _SYSTEM_WORDS.format(user=os.environ.get("USER") or os.getuid())
    return "it is another user's daemon"


def _time(seconds: float) -> bytes:
    return _TIME.pack(int(seconds), int(seconds % 1 * 1_000_000))
