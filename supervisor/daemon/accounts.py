"""Users of this host: who one is, what a process of theirs is given, and what they may not read.

Owns the look into the user database and the environment of a process that is started for somebody.
Changes nobody's rights by itself; a root daemon does that between fork and exec. Invariant: what is
the daemon's own (its sockets, its watchdog, its credentials) is in no environment made here.
"""

import os
import pwd
import stat
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import supervisor
from supervisor.core.secrets import looks_secret

# What systemd tells a service about itself alone: sd_notify(3), sd_listen_fds(3), systemd.exec(5).
OWN = frozenset(
    {
        "NOTIFY_SOCKET",
        "LISTEN_FDS",
        "LISTEN_PID",
        "LISTEN_FDNAMES",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "CREDENTIALS_DIRECTORY",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "SYSTEMD_EXEC_PID",
        "FDSTORE",
        "MAINPID",
        "MEMORY_PRESSURE_WATCH",
        "MEMORY_PRESSURE_WRITE",
        "RUNTIME_DIRECTORY",
        "STATE_DIRECTORY",
        "CACHE_DIRECTORY",
        "LOGS_DIRECTORY",
        "CONFIGURATION_DIRECTORY",
    }
)
# What goes over to another user: how programs and modules are found, and the language.
SHARED = frozenset({"PATH", "PYTHONPATH", "LANG", "LANGUAGE", "TZ"})
SHARED_BEGINNINGS = ("LC_", "SUPERVISE_")
ACL = "system.posix_acl_access"


@dataclass(frozen=True, slots=True)
class Account:
    """A user as the user database has them; `groups` are all of theirs, `gid` among them."""

    uid: int
    gid: int
    name: str
    home: str
    shell: str
    groups: tuple[int, ...]


class UnknownAccount(Exception):
    """Nobody has this uid; the message says so."""


Lookup = Callable[[int], Account]


def account(uid: int) -> Account:
    """Look a user up. Raises UnknownAccount for a uid that the user database does not have."""
    try:
        entry = pwd.getpwuid(uid)
    except (KeyError, OverflowError) as error:
        raise UnknownAccount(
            f"no user of this host has the uid {uid} (getent passwd {uid} finds nobody), "
            "so nothing is run in that name."
        ) from error
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    shell = entry.pw_shell or "/bin/sh"
    return Account(uid, entry.pw_gid, entry.pw_name, entry.pw_dir, shell, groups)


def shared(given: Mapping[str, str]) -> dict[str, str]:
    """The little of an environment that is everybody's; nothing that looks like a secret."""
    return {
        name: value
        for name, value in given.items()
        if name in SHARED or (name.startswith(SHARED_BEGINNINGS) and not looks_secret(name))
    }


def environment(of: Account | None, given: Mapping[str, str]) -> dict[str, str]:
    """What a process is given of the daemon's environment; None: it is of the daemon's own user.

    Another user gets what is everybody's, and who they are.
    """
    if of is None:
        return {name: value for name, value in given.items() if name not in OWN}
    who = {"HOME": of.home, "USER": of.name, "LOGNAME": of.name, "SHELL": of.shell}
    return shared(given) | who


def as_user(who: Account | None) -> Mapping[str, Any]:
    """What makes subprocess start a process as somebody else; nothing for the daemon's own user."""
    if who is None:
        return {}
    return {"user": who.uid, "group": who.gid, "extra_groups": who.groups}


def barred(of: Account, interpreter: str) -> str | None:
    """Say why a user cannot start this program, None if nothing is seen that keeps them from it.

    The modes of files and folders decide; where there is an access control list, it is believed to
    allow what it is there for.
    """
    for what, place in _needed(interpreter):
        for part in (*reversed(place.parents), place):
            if not _may_use(of, part):
                verb = "enter" if part.is_dir() else "read"
                return (
                    f"{of.name} may not {verb} {part}, and so cannot use {what} {place}. Install "
                    "supervise where every user of this host may read it, for example in a virtual "
                    "environment below /opt made with umask 022."
                )
    return None


def _needed(interpreter: str) -> Iterator[tuple[str, Path]]:
    """What is read when a runner starts, by its name and where it really lies."""
    yield "the interpreter", Path(interpreter)
    yield "the interpreter", Path(interpreter).resolve()
    if interpreter == sys.executable:
        yield "Python's library", Path(os.__file__).resolve()
        yield "the packages in", Path(sysconfig.get_path("purelib")).resolve()
    yield "the program", Path(supervisor.__file__).resolve()


def _may_use(of: Account, place: Path) -> bool:
    """Whether the modes let a user read a file (run it, where somebody may), or enter a folder."""
    with suppress(OSError):
        found = place.stat()
        if of.uid == 0 or ACL in os.listxattr(place):
            return True
        shift = 6 if found.st_uid == of.uid else 3 if found.st_gid in of.groups else 0
        wanted = stat.S_IXOTH if found.st_mode & 0o111 else stat.S_IROTH
        return bool(found.st_mode >> shift & wanted)
    return True  # not there: what starts it says so
