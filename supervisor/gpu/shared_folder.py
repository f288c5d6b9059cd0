"""The folder in which all runners of a host agree about GPUs, and the mutex that orders them.

Owns where that folder is, what it must be like, and holding its mutex; never says who gets a GPU.
Nothing here asks for a daemon: any user's runner makes the folder when it is the first.

What holds whoever else uses the folder: no link is followed, nothing of another user is opened for
creation (which fs.protected_regular forbids), and every name is looked up below one open folder, so
that nobody swaps it halfway. What no lock can prevent: a user who means harm may hold the mutex or
lease every GPU, and whoever made the folder may remove it. The first is told with the process that
does it; the second is ruled out where root makes the folder at boot (tmpfiles.d). Leases order
those who ask; the driver lets everybody else on a GPU, so its processes are looked at as well.
"""

import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ENVIRONMENT = "SUPERVISE_LEASE_DIR"
MUTEX = "mutex"
TEMPORARY = ".new-"

# Not /dev/shm: logind empties it of a user's files at logout (RemoveIPC), jobs or no jobs.
IN_RUN = Path("/run/lock/supervise")
IN_TMP = Path("/tmp/supervise-leases")  # noqa: S108 - one name for all users; checked on opening

PUBLIC = stat.S_ISVTX | 0o777
# The sticky bit on a file tells systemd-tmpfiles to leave it, however old it is.
KEPT = stat.S_ISVTX
READABLE = KEPT | 0o644

MAKING_S = 1.0  # another user's mkdir and chmod are two calls; so long they may be apart
LOOK_AGAIN_S = 0.005

_LOOK = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_MAKE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class LeaseFolderUnusable(Exception):
    """The folder cannot be trusted or used; the message says why and what to do."""


class MutexBusy(Exception):
    """Another process kept the mutex for longer than anybody needs it."""


def lease_folder() -> Path:
    """Where GPU leases are kept: SUPERVISE_LEASE_DIR, else one folder for all users of the host.

    Which of the two default places it is depends on how the host is set up and never on who comes
    first: root must not end up elsewhere than people without its rights.
    """
    given = os.environ.get(ENVIRONMENT)
    if given:
        return Path(given).absolute()
    return IN_RUN if os.path.lexists(IN_RUN) or _is_public(IN_RUN.parent) else IN_TMP


def _is_public(folder: Path) -> bool:
    try:
        return _is_shared(folder.stat())
    except OSError:
        return False


def _is_shared(seen: os.stat_result) -> bool:
    return stat.S_ISDIR(seen.st_mode) and seen.st_mode & PUBLIC == PUBLIC


@contextmanager
def opened(path: Path, *, make: bool) -> Iterator[int]:
    """The folder as a descriptor for `dir_fd`, checked.

    Raises:
        FileNotFoundError: there is none, and `make` is not given.
        LeaseFolderUnusable: it is not one that a runner may rely on.

    """
    folder = _open(path, make=make)
    try:
        yield folder
    finally:
        os.close(folder)


def _open(path: Path, *, make: bool) -> int:
    deadline = time.monotonic() + MAKING_S
    while True:
        folder = _open_now(path, make=make)
        trouble = _distrusted(os.fstat(folder))
        if not trouble:
            return folder
        os.close(folder)
        if time.monotonic() >= deadline:
            raise LeaseFolderUnusable(_not_usable(path, trouble))
        time.sleep(LOOK_AGAIN_S)


def _open_now(path: Path, *, make: bool) -> int:
    public = make and _is_public(path.parent)
    try:
        if make:  # as open to everybody as the place in which it lies
            with suppress(FileExistsError):  # or a link of that name: opening it says so
                path.mkdir(mode=PUBLIC if public else 0o777, parents=not public, exist_ok=True)
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise LeaseFolderUnusable(_not_usable(path, error.strerror or str(error))) from error
    seen = os.fstat(folder)
    if public and seen.st_uid == os.geteuid() and not _is_shared(seen):
        # The umask took something away; or a runner of ours was killed between the two calls.
        os.fchmod(folder, PUBLIC)
    return folder


def _distrusted(seen: os.stat_result) -> str:
    """Why others could do more in the folder than add to it; empty if they cannot."""
    if _is_shared(seen):
        return ""
    if seen.st_mode & stat.S_IWOTH:
        return "everybody may delete everybody's leases in it (chmod +t it)"
    if seen.st_uid not in {0, os.geteuid()}:
        return f"it belongs to user {seen.st_uid} and is not open to all (mode 1777)"
    return ""


def _not_usable(path: Path, why: str) -> str:
    return (
        f"GPU leases cannot be kept in {path}: {why}. Have it set right, or name another folder, "
        f"the same for all users of the GPUs, in {ENVIRONMENT}."
    )


@contextmanager
def alone(path: Path, wait_s: float) -> Iterator[int]:
    """The folder, made if need be, with the mutex held: nobody else decides meanwhile.

    Raises:
        MutexBusy: it was not to be had within `wait_s`, because its holder does not go on.
        LeaseFolderUnusable: the folder is not one that a runner may rely on.

    """
    deadline = time.monotonic() + wait_s
    while True:
        with opened(path, make=True) as folder:
            mutex = _open_mutex(folder, path)
            try:
                _hold(mutex, path, deadline)
                if _are_in_place(path, folder, mutex):
                    yield folder
                    return
            finally:
                fcntl.flock(mutex, fcntl.LOCK_UN)  # closing it would leave it to a forked copy
                os.close(mutex)


def _open_mutex(folder: int, path: Path) -> int:
    while True:
        try:
            mutex = os.open(MUTEX, _LOOK, dir_fd=folder)
        except FileNotFoundError:
            _make_mutex(folder)
            continue
        except OSError as error:
            where = path / MUTEX
            raise LeaseFolderUnusable(_not_usable(where, error.strerror or str(error))) from error
        if stat.S_ISREG(os.fstat(mutex).st_mode):
            return mutex
        os.close(mutex)
        raise LeaseFolderUnusable(_not_usable(path / MUTEX, "it is no plain file"))


def _make_mutex(folder: int) -> None:
    """Give the folder its mutex, readable by all from its first moment on: locking asks no more."""
    name = new_name()
    fd = os.open(name, _MAKE, 0o600, dir_fd=folder)
    try:
        os.fchmod(fd, READABLE)
        with suppress(FileExistsError, FileNotFoundError):  # somebody was quicker, or swept `name`
            os.link(name, MUTEX, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    finally:
        os.close(fd)
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)


def _hold(mutex: int, path: Path, deadline: float) -> None:
    while not locked(mutex, fcntl.LOCK_EX):
        if time.monotonic() >= deadline:
            raise MutexBusy(
                f"{_holder(mutex)} keeps {path / MUTEX} locked and does not go on; no GPU can be "
                "leased until it does, or is ended"
            )
        time.sleep(LOOK_AGAIN_S)


def _are_in_place(path: Path, folder: int, mutex: int) -> bool:
    """Whether what was locked is still what the next runner will find under these names."""
    try:
        found = path.lstat(), os.stat(MUTEX, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(found[0], os.fstat(folder)) and os.path.samestat(
        found[1], os.fstat(mutex)
    )


def _holder(mutex: int) -> str:
    """Who holds the mutex, as far as the kernel tells (proc_locks(5))."""
    seen = os.fstat(mutex)
    device = f"{os.major(seen.st_dev):02x}:{os.minor(seen.st_dev):02x}:{seen.st_ino}"
    with suppress(OSError):
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            words = line.split()
            if words[1:2] == ["FLOCK"] and words[5:6] == [device]:
                return f"process {words[4]}"
    return "a process that the kernel does not name (another container's?)"


def locked(fd: int, kind: int) -> bool:
    """Take a flock if it is free, on a descriptor that may be open for reading only."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in {errno.EWOULDBLOCK, errno.EINTR}:
            raise
        return False
    return True


def new_name() -> str:
    """A name that nobody has, for a file that is not finished."""
    return TEMPORARY + secrets.token_hex(8)


def look(folder: int, name: str) -> int:
    """Open a file of the folder for reading: no link is followed, no FIFO waited for."""
    return os.open(name, _LOOK, dir_fd=folder)


def put(folder: int, name: str, content: bytes, mode: int) -> int:
    """Add a file, complete and locked from its first moment on; the descriptor that holds it.

    Raises:
        OSError: it could not be written; nothing is left.

    """
    fd, temporary = _create(folder)
    try:
        _write(fd, content)
        os.fchmod(fd, mode)  # only now may others open it
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.close(fd)
        with suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise
    return fd


def _write(fd: int, content: bytes) -> None:
    if os.write(fd, content) < len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _create(folder: int) -> tuple[int, str]:
    """A new file that only its maker can open yet, locked, and its temporary name."""
    while True:
        name = new_name()
        fd = os.open(name, _MAKE, 0o600, dir_fd=folder)
        if locked(fd, fcntl.LOCK_EX) and os.fstat(fd).st_nlink:
            return fd, name
        os.close(fd)  # another runner of ours took it for a leftover, and removes it
