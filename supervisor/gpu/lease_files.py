"""One file for each lease: what it says, and whether it still holds.

Owns the form of a record and its life on disk. A record holds exactly as long as some process has
it locked: the runner, or whoever of its worker tree inherited the descriptor. A pid in it is there
to be read by people and decides nothing. A record appears under its name complete and locked, in
one step; a name never comes back.
"""

import fcntl
import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from supervisor.gpu import shared_folder
from supervisor.gpu.model import Gpu
from supervisor.gpu.shared_folder import READABLE, TEMPORARY
from supervisor.gpu.words import plain
from supervisor.host import identity

PREFIX = "lease-"
FORMAT = 1
LONGEST_BYTES = 64 * 1024
LAST_S = 1e11  # epoch seconds beyond which a time is nonsense, and localtime(3) fails
MOST_BYTES = 2**50
LAST_PID = 2**22  # PID_MAX_LIMIT of proc_sys_kernel(5)
MOST_TICKS = 2**62


@dataclass(frozen=True, slots=True)
class Owner:
    """Who leases: the job, where it lives, and its runner as a process of one boot."""

    job_id: str
    state_dir: str
    pid: int
    start_ticks: int
    boot_id: str

    @property
    def lives(self) -> bool:
        """Whether the runner is a process that this one can see. For people: it proves no lease."""
        same_boot = self.boot_id == identity.boot_id()
        return same_boot and identity.start_ticks(self.pid) == self.start_ticks


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A lease that holds. `memory_bytes` is what the job declared to need, of each GPU.

    `problem` is set, and everything else is a guess, where the file is locked but not understood:
    it may then be about any GPU.
    """

    file: str
    owner: Owner
    uuids: tuple[str, ...]
    share: bool
    memory_bytes: int | None
    at_s: float
    user: int
    problem: str = ""

    def covers(self, gpu: Gpu) -> bool:
        """Whether the lease is, or may be, about this GPU or the one that it is a part of."""
        return bool(self.problem) or gpu.uuid in self.uuids or gpu.parent in self.uuids


T = TypeVar("T")

NOBODY = Owner("", "", 0, 0, "")


def write(folder: int, record: LeaseRecord) -> tuple[int, str]:
    """Put a record into the folder, locked; the descriptor that holds it, and its name.

    Call it with the mutex held.

    Raises:
        OSError: it could not be written; nothing is held.

    """
    name = f"{PREFIX}{secrets.token_hex(8)}.json"
    return shared_folder.put(folder, name, encoded(record), READABLE), name


def live(folder: int) -> list[LeaseRecord]:
    """Every lease that holds. Changes nothing and keeps nobody waiting."""
    return [record for _, record in _seen(folder) if record is not None]


def sweep(folder: int) -> list[LeaseRecord]:
    """Every lease that holds; what does not is removed. Call it with the mutex held."""
    found = []
    for name, record in _seen(folder):
        if record is not None:
            found.append(record)
        else:
            remove_unheld(folder, name)
    for name in os.listdir(folder):
        if name.startswith(TEMPORARY):  # its writer was killed, or is at it this very moment
            remove_unheld(folder, name)
    return found


def remove_unheld(folder: int, name: str) -> bool:
    """Remove a file that no process has locked; False if one has, or that cannot be known.

    In a sticky folder only its owner may remove a file: one that stays is dead all the same.
    """
    try:
        fd = shared_folder.look(folder, name)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        if _locked_by_another(fd):
            return False
        # Our lock still holds: whoever makes such a file locks it, and gives it up if it cannot.
        with suppress(OSError):
            os.unlink(name, dir_fd=folder)
        return True
    finally:
        os.close(fd)


def _locked_by_another(fd: int) -> bool:
    try:
        # Shared: two who look do not take each other for a holder.
        return not shared_folder.locked(fd, fcntl.LOCK_SH)
    except OSError:  # locks do not work here: then nothing proves that it is dead
        return True


def _seen(folder: int) -> Iterator[tuple[str, LeaseRecord | None]]:
    """Name and content of each record; None for the content of one that nobody holds."""
    for name in sorted(os.listdir(folder)):
        if not name.startswith(PREFIX):
            continue
        try:
            fd = shared_folder.look(folder, name)
        except FileNotFoundError:
            continue
        except PermissionError:
            yield name, _riddle(name, -1, "it may not be read")
            continue
        except OSError:  # a link, a socket: nothing that a runner ever made
            continue
        try:
            seen = os.fstat(fd)
            if stat.S_ISREG(seen.st_mode):
                held = _locked_by_another(fd)
                yield name, _decoded(name, fd, seen.st_uid) if held else None
        finally:
            os.close(fd)


def _riddle(name: str, user: int, problem: str) -> LeaseRecord:
    return LeaseRecord(name, NOBODY, (), False, None, 0.0, user, problem)  # noqa: FBT003 - a row


def encoded(record: LeaseRecord) -> bytes:
    """The record as it is stored."""
    owner = record.owner
    fields = {
        "format": FORMAT,
        "job": owner.job_id,
        "state_dir": str(owner.state_dir),
        "pid": owner.pid,
        "start_ticks": owner.start_ticks,
        "boot_id": owner.boot_id,
        "at_s": record.at_s,
        "gpus": list(record.uuids),
        "share": record.share,
        "memory_bytes": record.memory_bytes,
    }
    return json.dumps(fields).encode() + b"\n"


def _decoded(name: str, fd: int, user: int) -> LeaseRecord:
    try:
        fields = fields_of(fd)
        owner = Owner(
            plain(typed(fields, "job", str)),
            plain(typed(fields, "state_dir", str)),
            _number(fields, "pid", range(1, LAST_PID + 1)),
            _number(fields, "start_ticks", range(MOST_TICKS + 1)),
            plain(typed(fields, "boot_id", str)),
        )
        uuids = typed(fields, "gpus", list)
        memory = None
        if fields.get("memory_bytes") is not None:
            memory = _number(fields, "memory_bytes", range(MOST_BYTES + 1))
        share = typed(fields, "share", bool)
        at_s = instant(fields)
    except ValueError as error:
        return _riddle(name, user, str(error))
    if not uuids or not all(isinstance(one, str) for one in uuids):
        return _riddle(name, user, "it names no GPUs")
    return LeaseRecord(name, owner, tuple(uuids), share, memory, at_s, user)


def fields_of(fd: int) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ValueError: there is none; the message says why in words.

    """
    try:
        content = os.pread(fd, LONGEST_BYTES + 1, 0)
        if len(content) > LONGEST_BYTES:
            raise ValueError("it is larger than any record")
        fields = json.loads(content)
    except (OSError, RecursionError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError("it is not a record of this program") from error
    if not isinstance(fields, dict):
        raise ValueError("it is not a record of this program")  # noqa: TRY004 - a bad file, no bug
    return fields


def typed(fields: dict[str, Any], key: str, kind: type[T]) -> T:
    """One field, of the type that it must have."""
    value = fields.get(key)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"its field {key} is not as this version writes it")
    return value


def _number(fields: dict[str, Any], key: str, sane: range) -> int:
    """One field, which everybody who reads records computes with: within bounds."""
    value = typed(fields, key, int)
    if value not in sane:
        raise ValueError(f"its field {key} makes no sense")
    return value


def instant(fields: dict[str, Any]) -> float:
    """The time at which it was written, epoch seconds."""
    at_s = fields.get("at_s")
    if isinstance(at_s, bool) or not isinstance(at_s, int | float) or not 0 <= at_s < LAST_S:
        raise ValueError("its time makes no sense")
    return float(at_s)
