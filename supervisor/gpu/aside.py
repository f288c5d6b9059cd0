"""GPUs that nobody shall use for now: host-wide records of which, why, and since when.

Owns their files in the lease folder. A record is void after a reboot, which is what most broken
GPUs want. Anybody may release a GPU, also one that another user's job set aside: who can use a GPU
can look whether it works. In a sticky folder only its owner may remove a file, so releasing empties
it, and an empty record says nothing. One that cannot be read keeps its GPU out of use: its name
tells which one it is.
"""

import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote, unquote

from supervisor.gpu import shared_folder
from supervisor.gpu.lease_files import fields_of, instant, typed
from supervisor.gpu.shared_folder import KEPT
from supervisor.gpu.words import plain

PREFIX = "aside-"
FORMAT = 1
RELEASABLE = KEPT | 0o666
UNREADABLE = "its record cannot be read"


@dataclass(frozen=True, slots=True)
class SetAside:
    """A GPU that was set aside. `at_s` is wall-clock time, epoch seconds."""

    uuid: str
    reason: str
    job_id: str
    at_s: float
    boot_id: str


def write(folder: int, one: SetAside) -> None:
    """Set a GPU aside; saying the same twice changes nothing.

    Raises:
        OSError: it could not be written.

    """
    known = [(each.uuid, each.reason, each.job_id) for each in current(folder, one.boot_id)]
    if (one.uuid, plain(one.reason), plain(one.job_id)) in known:
        return
    fields = {
        "format": FORMAT,
        "gpu": one.uuid,
        "reason": one.reason,
        "job": one.job_id,
        "at_s": one.at_s,
        "boot_id": one.boot_id,
    }
    # A MIG instance of an old driver has slashes in its uuid.
    name = f"{PREFIX}{quote(one.uuid, safe='')}~{secrets.token_hex(4)}.json"
    os.close(shared_folder.put(folder, name, json.dumps(fields).encode() + b"\n", RELEASABLE))


def current(folder: int, boot_id: str) -> list[SetAside]:
    """What is set aside in this boot, oldest first. Changes nothing."""
    found = [one for _, one in _seen(folder) if one is not None and one.boot_id in {boot_id, ""}]
    return sorted(found, key=lambda one: (one.at_s, one.uuid))


def sweep(folder: int, boot_id: str) -> list[SetAside]:
    """As `current`; what is void is removed, where this user may."""
    for name, one in _seen(folder):
        if one is None or one.boot_id not in {boot_id, ""}:
            with suppress(OSError):  # another user's: it stays, and says nothing
                os.unlink(name, dir_fd=folder)
    return current(folder, boot_id)


def release(folder: int, uuid: str) -> bool:
    """Let a GPU be used again; False if it was not set aside.

    Raises:
        OSError: a record of it can be neither emptied nor removed.

    """
    names = [name for name, one in _seen(folder) if one is not None and one.uuid == uuid]
    for name in names:
        _void(folder, name)
    return bool(names)


def _void(folder: int, name: str) -> None:
    with suppress(PermissionError):
        os.unlink(name, dir_fd=folder)
        return
    flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = os.open(name, flags, dir_fd=folder)
    try:
        seen = os.fstat(fd)
        # Whoever may write here may also have linked somebody's file to this name.
        if not stat.S_ISREG(seen.st_mode) or seen.st_nlink > 1:
            raise PermissionError(f"{name} is not a record of this program")
        os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def _seen(folder: int) -> Iterator[tuple[str, SetAside | None]]:
    """Name and content of each record; None for the content of one that was released."""
    for name in sorted(os.listdir(folder)):
        if not name.startswith(PREFIX):
            continue
        uuid = unquote(name.removeprefix(PREFIX).rpartition("~")[0])
        try:
            fd = shared_folder.look(folder, name)
        except FileNotFoundError:
            continue
        except OSError:
            yield name, SetAside(uuid, UNREADABLE, "", 0.0, "")
            continue
        try:
            yield name, None if os.fstat(fd).st_size == 0 else _decoded(uuid, fd)
        finally:
            os.close(fd)


def _decoded(uuid: str, fd: int) -> SetAside:
    try:
        fields = fields_of(fd)
        reason, job_id, boot_id = (
            plain(typed(fields, key, str)) for key in ("reason", "job", "boot_id")
        )
        return SetAside(uuid, reason, job_id, instant(fields), boot_id)
    except ValueError:
        return SetAside(uuid, UNREADABLE, "", 0.0, "")
