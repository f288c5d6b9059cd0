"""The token that stands for the daemon's owner over TCP.

Owns the file it is kept in. Invariant: a token that anybody else could have read or chosen is not
used.
"""

import os
import re
import secrets
import stat
from pathlib import Path

from supervisor.daemon.api.sockets import SocketRefused

SHORTEST = 32  # characters; ours have 43, which are 256 bits
LONGEST = 1024
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def token_of(path: Path) -> str:
    """The token in a file, which is made if it is not there.

    Raises:
        SocketRefused: others may read it, or it is no token.
    """
    try:
        try:
            return _read(path)
        except FileNotFoundError:
            _make(path)
            return _read(path)
    except OSError as error:
        raise SocketRefused(f"the token {path} cannot be used: {error.strerror}") from error


def _make(path: Path) -> None:
    content = f"{secrets.token_urlsafe()}\n".encode("ascii")
    passing = path.with_name(f".{path.name}.{os.getpid()}")
    passing.unlink(missing_ok=True)
    try:
        with open(os.open(passing, _MAKE, 0o600), "wb") as file:  # noqa: PTH123 - takes a descriptor
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(passing, path)  # whole or not at all, and never in another's place
    except FileExistsError:
        return  # somebody was faster; theirs is read and judged
    finally:
        passing.unlink(missing_ok=True)


def _read(path: Path) -> str:
    with open(os.open(path, _READ), "rb") as file:  # noqa: PTH123 - takes a descriptor
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise SocketRefused(f"the token {path} is no regular file")
        if status.st_uid != os.geteuid():
            raise SocketRefused(f"the token {path} belongs to user {status.st_uid}: no good")
        if status.st_mode & 0o077:
            raise SocketRefused(f"others may read the token {path}: chmod 600 {path}, or remove it")
        text = file.read(LONGEST + 1).decode("ascii", "replace").strip()
    if not SHORTEST <= len(text) <= LONGEST or not _TOKEN.fullmatch(text):
        raise SocketRefused(
            f"{path} does not hold a token of {SHORTEST} letters and digits or more. Remove it, "
            "and a good one is made"
        )
    return text
