"""The sockets that the daemon listens on.

Owns binding them. A Unix socket appears under its name with its final mode and owner, or not at
all: it is made under another name in the same folder, and renamed. Invariant: nothing is replaced
but a socket of our own user's on which nobody listens any more.
"""

import grp
import ipaddress
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

BACKLOG = 128
LONGEST_NAME = 80  # an address holds 107 bytes, some of which lead to the folder
LOOPBACK = "127.0.0.1"
_NOBODY_LISTENS = 0.5  # seconds to find that out


class SocketRefused(Exception):
    """It cannot be listened there; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A socket that was bound here; `identity` is that of its file (device and inode)."""

    sock: socket.socket
    path: Path
    identity: tuple[int, int]

    def close(self) -> None:
        """Close it, and remove the name unless another daemon has taken it meanwhile."""
        self.sock.close()
        with suppress(OSError):
            now = self.path.lstat()
            if (now.st_dev, now.st_ino) == self.identity:
                self.path.unlink()


def bind_unix(path: Path, group: str | None = None) -> Bound:
    """Listen at `path`: for this user alone (0600), or for members of a group too (0660).

    Raises:
        SocketRefused: another daemon listens there, something else is there, or the folder or the
            group is not as it should be.
    """
    path = path.absolute()
    if len(os.fsencode(path.name)) > LONGEST_NAME:
        raise SocketRefused(f"{path.name} is too long a name: {LONGEST_NAME} bytes are the most")
    try:
        with _folder(path.parent) as folder:
            return _bound(path, folder, group)
    except OSError as error:
        raise SocketRefused(f"{path} cannot be listened on: {error.strerror or error}") from error


def bind_tcp(address: str) -> socket.socket:
    """Listen at `PORT`, `:PORT` or `HOST:PORT`; on loopback unless a host is named.

    Raises:
        SocketRefused: that is no such address, or it is not to be had.
    """
    host, port = _parsed(address)
    try:
        family, _, _, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise SocketRefused(f"{address}: no such address here: {error.strerror}") from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise SocketRefused(f"{address} cannot be listened on: {error.strerror}") from error
    return sock


def is_local(sock: socket.socket) -> bool:
    """Whether it is a Unix socket, where the kernel says who connects."""
    return sock.family == socket.AF_UNIX


def _parsed(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) < 2**16):
        raise SocketRefused(f"{address!r} is no address: write it as PORT or HOST:PORT")
    host = host.removeprefix("[").removesuffix("]") or LOOPBACK
    if host != "localhost":
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise SocketRefused(
                f"{address!r}: {host} is no address of this host: give its number, such as "
                f"{LOOPBACK}, or 0.0.0.0 for all"
            ) from None
    return host, int(port)


@contextmanager
def _folder(path: Path) -> Iterator[int]:
    """The folder, opened, so that nobody can put another in its place meanwhile."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if status.st_uid not in {0, os.geteuid()}:
            raise SocketRefused(
                f"{path} belongs to user {status.st_uid}, who could put a socket of theirs in the "
                "place of ours. Name another folder"
            )
        if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
            raise SocketRefused(
                f"others may write to {path}, and could put a socket of theirs in the place of "
                f"ours: chmod go-w {path}"
            )
        yield fd
    finally:
        os.close(fd)


def _bound(path: Path, folder: int, group: str | None) -> Bound:
    _make_way(path, folder)
    gid = None if group is None else _gid(group)
    passing = f".supervise-{os.getpid()}.sock"
    with suppress(FileNotFoundError):
        os.unlink(passing, dir_fd=folder)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Linux gives the file the mode of the socket, so there is no moment with another one.
        os.fchmod(sock.fileno(), 0o600)
        sock.bind(_address(folder, passing))
        if gid is not None:
            _hand_to(path, folder, passing, gid)
        sock.listen(BACKLOG)
        status = os.stat(passing, dir_fd=folder, follow_symlinks=False)
        os.rename(passing, path.name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        sock.close()
        with suppress(FileNotFoundError):
            os.unlink(passing, dir_fd=folder)
        raise
    return Bound(sock, path, (status.st_dev, status.st_ino))


def _make_way(path: Path, folder: int) -> None:
    """See that at the name is nothing, or a socket of ours that a dead daemon left."""
    try:
        status = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISLNK(status.st_mode):
        raise SocketRefused(f"{path} is a symbolic link, and is not followed. Remove it")
    if not stat.S_ISSOCK(status.st_mode):
        raise SocketRefused(f"{path} is no socket, and is left alone. Move it away")
    if status.st_uid != os.geteuid():
        raise SocketRefused(
            f"{path} belongs to user {status.st_uid}, and is left alone. Find out who listens there"
        )
    if _is_listened_on(folder, path.name):
        raise SocketRefused(f"a daemon listens at {path} already: see `supervise daemon status`")


def _is_listened_on(folder: int, name: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_NOBODY_LISTENS)
        try:
            probe.connect(_address(folder, name))
        except ConnectionRefusedError:
            return False
        except (TimeoutError, BlockingIOError):  # it has more to do than it accepts
            return True
        return True


def _address(folder: int, name: str) -> str:
    """The way to a name in an open folder: short, whatever the folder's own path is."""
    return f"/proc/self/fd/{folder}/{name}"


def _gid(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise SocketRefused(
            f"there is no group {group!r}: make it with `groupadd --system {group}`"
        ) from None


def _hand_to(path: Path, folder: int, name: str, gid: int) -> None:
    try:
        os.chown(name, -1, gid, dir_fd=folder, follow_symlinks=False)
    except PermissionError:
        raise SocketRefused(
            f"{path} cannot be given to group {gid}: only root, or a member of it, may do that"
        ) from None
    os.chmod(name, 0o660, dir_fd=folder)
