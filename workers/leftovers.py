"""What publishing puts into a folder under hidden names, and what a writer that died left there.

Owns those names, and the two moves that must not be seen half done: one folder takes another's
place, and a published one goes. Never touches a hidden name of a writer that lives. Invariant: a
folder under its visible name is whole at every instant, and a replaced one comes back when its
successor did not arrive.

    .step-000000120.4711.partial    is being written, by the process 4711, which holds a lock on it
    .step-000000120.4711.replaced   makes room for another of the same step
    .step-000000120.4711.removed    is being deleted
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import itertools
import os
import re
import shutil
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from workers.manifest import Torn, sync, verify

if TYPE_CHECKING:
    from collections.abc import Iterable

HIDDEN = re.compile(r"\.(step-\d+)\.(\d+)(?:-\d+)?\.(partial|replaced|removed)")
LINK = re.compile(r"\.(?:last|best)\.(\d+)")  # on its way to its name
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # renameat2(2)
YOUNG_S = 60.0  # a folder may be this old before its writer has locked it, and far longer

TRIES = 20
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)

_numbers = itertools.count()
_ours: set[str] = set()  # what threads of this process write


class IsInTheWay(OSError):
    """Something that is no checkpoint has a checkpoint's name."""

    def __init__(self, words: str, path: Path) -> None:
        super().__init__(errno.EINVAL, words, str(path))


class Partial:
    """A new, hidden folder; gone after the `with`, unless it was moved to its place."""

    def __init__(self, folder: Path, name: str) -> None:
        self._at = _hidden(folder, name, "partial")
        self._fd = -1

    def __enter__(self) -> Path:
        _ours.add(self._at.name)
        try:
            self._at.mkdir()
            self._fd = _locked(self._at)
        except BaseException:
            self.__exit__()
            raise
        return self._at

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._at, ignore_errors=True)
        if self._fd >= 0:
            os.close(self._fd)
        _ours.discard(self._at.name)


def put(partial: Path, target: Path, *, durable: bool) -> None:
    """Move a folder to its place, where there may be an older one. Raises OSError."""
    for left in reversed(range(TRIES)):
        try:
            _move(partial, target, durable=durable)
            break
        except OSError as error:
            # Another writer has put its own there meanwhile, or has taken it away.
            if error.errno not in (*_TAKEN, errno.ENOENT) or not (left and partial.exists()):
                raise
    if durable:
        sync(target.parent)


def _move(partial: Path, target: Path, *, durable: bool) -> None:
    try:
        partial.rename(target)
    except OSError as error:
        if error.errno not in _TAKEN:
            raise
        if not stat.S_ISDIR(target.lstat().st_mode):
            words = "is in the way of a checkpoint, and is no folder: move it elsewhere"
            raise IsInTheWay(words, target) from None
        if not _exchange(partial, target):
            _replace(partial, target, durable=durable)


def remove(target: Path) -> None:
    """Take a published folder away: at once from sight, then from the disk. Raises OSError."""
    hidden = _hidden(target.parent, target.name, "removed")
    target.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what dead writers left, and bring back what they had not replaced yet."""
    restore(folder)
    for path, _, _ in _abandoned(folder):
        shutil.rmtree(path, ignore_errors=True)
    for path in entries(folder):
        found = LINK.fullmatch(path.name)
        if found is not None and path.is_symlink() and not _alive(int(found[1])):
            path.unlink(missing_ok=True)


def restore(folder: Path) -> None:
    """Bring back whole folders of dead writers that had to make room for what never came."""
    for path, name, word in _abandoned(folder):
        if word == "replaced" and not (folder / name).exists():
            with suppress(Torn, OSError):
                verify(path)
                path.rename(folder / name)


def entries(folder: Path) -> list[Path]:
    """Return what lies in a folder; nothing where it cannot be read."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _hidden(folder: Path, name: str, word: str) -> Path:
    number = next(_numbers)
    own = str(os.getpid()) if number == 0 else f"{os.getpid()}-{number}"
    return folder / f".{name}.{own}.{word}"


def _abandoned(folder: Path) -> Iterable[tuple[Path, str, str]]:
    for path in entries(folder):
        found = HIDDEN.fullmatch(path.name)
        if found is not None and _is_abandoned(path, int(found[2])):
            yield path, found[1], found[3]


def _is_abandoned(path: Path, pid: int) -> bool:
    """Tell whether nobody works on it: by the lock, because a pid may be another's by now."""
    if pid == os.getpid():
        # Of a process that had this pid before, or of a thread; what is not partial is no one's.
        return path.name not in _ours
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        old = time.time() - os.fstat(fd).st_mtime > YOUNG_S
    except BlockingIOError:
        return False  # also in another container, where its pid means nothing here
    except OSError:
        old = False
    finally:
        os.close(fd)
    return old or not _alive(pid)


def _locked(path: Path) -> int:
    """Return a descriptor of a folder that is this process's to write or to move."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with suppress(OSError):  # a file system without locks: the pid has to do
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return fd


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one instant; False where that cannot be done."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # a C library before glibc 2.28, or musl
        return False
    paths = [os.fsencode(one), os.fsencode(other)]
    return bool(call(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE) == 0)


def _replace(partial: Path, target: Path, *, durable: bool) -> None:
    """Do the same in two steps; who dies between them is repaired by the next writer."""
    hidden = _hidden(target.parent, target.name, "replaced")
    _ours.add(hidden.name)
    fd = _locked(target)
    try:
        target.rename(hidden)
        try:
            partial.rename(target)
        except OSError:
            with suppress(OSError):  # another writer's is there
                hidden.rename(target)
            raise
        if durable:
            sync(target.parent)
        shutil.rmtree(hidden, ignore_errors=True)
    finally:
        os.close(fd)
        _ours.discard(hidden.name)
