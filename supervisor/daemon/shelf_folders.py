"""The folders of the shelves: made safely, and refused where they are not what they should be.

Owns modes and owners below a state folder. Each step stands on an opened folder, so a name that is
exchanged meanwhile leads nowhere. Invariant: what is handed out belongs to its user alone.
"""

import contextlib
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from supervisor.daemon.accounts import Account
from supervisor.daemon.contracts import ShelfUnavailable

USERS = "users"
PASSABLE = 0o711  # others may go through, and see nothing
PRIVATE = 0o700
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PLACE = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def own_shelf(path: Path) -> Path:
    """The state folder of this user, made if there is none.

    Raises:
        ShelfUnavailable: it is somebody else's, or others may write there.
    """
    try:
        path.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        status = path.stat()
    except OSError as error:
        raise _unusable(path, error) from error
    if status.st_uid != os.geteuid():
        raise ShelfUnavailable(
            f"the state folder {path} belongs to {_name(status.st_uid)}, not to "
            f"{_name(os.geteuid())}. Name another with --state-dir."
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ShelfUnavailable(
            f"others may write into the state folder {path} (mode {_mode(status)}), and could so "
            f"run programs in your name. chmod go-w {path}, or name another with --state-dir."
        )
    return path


def user_shelf(state_dir: Path, who: Account) -> Path:
    """A user's folder below the state folder of the system daemon, made if there is none.

    Raises:
        ShelfUnavailable: something else has its name, or it is not the user's alone.
    """
    path = state_dir / USERS / str(who.uid)
    try:
        with _users(state_dir) as users:
            try:
                status = _looked_at(str(who.uid), users)
            except FileNotFoundError:
                _make(users, who)
                status = _looked_at(str(who.uid), users)
    except OSError as error:
        raise _unusable(path, error) from error
    if status.st_uid != who.uid:
        raise ShelfUnavailable(
            f"the folder {path} of {who.name}'s jobs belongs to {_name(status.st_uid)}. Nothing "
            "was touched. Move it away, or give it back to its user."
        )
    if stat.S_IMODE(status.st_mode) != PRIVATE:
        raise ShelfUnavailable(
            f"the folder {path} of {who.name}'s jobs has mode {_mode(status)}, and is to be theirs "
            f"alone. Look who changed it, then: chmod 700 {path}"
        )
    return path


def known_users(state_dir: Path) -> list[int]:
    """The uids that have a folder."""
    with contextlib.suppress(OSError), os.scandir(state_dir / USERS) as entries:
        return sorted(int(one.name) for one in entries if one.name.isdecimal())
    return []


@contextmanager
def _users(state_dir: Path) -> Iterator[int]:
    """The folder of all users' folders, opened; made if there is none."""
    with _opened(state_dir, None, state_dir) as above:
        with contextlib.suppress(FileExistsError):
            os.mkdir(USERS, PASSABLE, dir_fd=above)
        with _opened(USERS, above, state_dir / USERS) as users:
            yield users


@contextmanager
def _opened(name: str | Path, above: int | None, path: Path) -> Iterator[int]:
    """A folder that only this daemon's user may change. Raises OSError, ShelfUnavailable."""
    descriptor = os.open(name, _FOLDER, dir_fd=above)
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ShelfUnavailable(
                f"the folder {path} (mode {_mode(status)}, of {_name(status.st_uid)}) can be "
                f"changed by others than {_name(os.geteuid())}: no job is kept there"
            )
        if stat.S_IMODE(status.st_mode) != PASSABLE:
            os.fchmod(descriptor, PASSABLE)
        yield descriptor
    finally:
        os.close(descriptor)


def _looked_at(name: str, above: int) -> os.stat_result:
    # As a mere place: under our unit root may not read what is a user's alone.
    descriptor = os.open(name, _PLACE, dir_fd=above)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _make(users: int, who: Account) -> None:
    """Make a user's folder: under another name until it is theirs, so a crash leaves no trap."""
    name = f".new-{who.uid}"
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(name, dir_fd=users)
    os.mkdir(name, PRIVATE, dir_fd=users)
    descriptor = os.open(name, _FOLDER, dir_fd=users)
    try:
        os.fchown(descriptor, who.uid, who.gid)
        os.fchmod(descriptor, PRIVATE)
    finally:
        os.close(descriptor)
    os.rename(name, str(who.uid), src_dir_fd=users, dst_dir_fd=users)
    os.fsync(users)


def _unusable(path: Path, error: OSError) -> ShelfUnavailable:
    return ShelfUnavailable(f"the folder {path} cannot be used: {error.strerror or error}")


def _mode(status: os.stat_result) -> str:
    return f"{stat.S_IMODE(status.st_mode):04o}"


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
