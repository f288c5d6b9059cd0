"""Who is at the other end of a connection.

Owns asking the kernel (unix(7), SO_PEERCRED) and this host's lists of users and groups. What these
lists say is kept for a minute: who leaves the group of admins is none soon after, on a connection
that was open all the time. Invariant: who cannot be named is never an admin, except root.
"""

import asyncio
import grp
import os
import pwd
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from supervisor.daemon.api.errors import NotAllowed
from supervisor.daemon.contracts import Peer

FRESH_S = 60.0
LOOK_UP_S = 5.0  # a directory service may be asked, and may be away
REMEMBERED = 1000
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid
_OVERFLOW = Path("/proc/sys/kernel/overflowuid")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the kernel says of a process that connected; they are those of the moment it did."""

    pid: int
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Known:
    """What this host's lists say of a user, and until when that is believed."""

    name: str
    admin: bool
    until_s: float


def credentials(sock: socket.socket) -> Credentials | None:
    """Of whoever connected; None over TCP, where nobody can say.

    Raises:
        OSError: the connection is gone.
    """
    if sock.family != socket.AF_UNIX:
        return None
    told = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return Credentials(*_CREDENTIALS.unpack(told))


def owner() -> Peer:
    """Who this process runs as. Only they can read the token, so who bears it is them."""
    uid = os.geteuid()
    return Peer(uid, os.getegid(), _name(uid) or str(uid), admin=True, pid=None)


class Peers:
    """Peers by their credentials.

    `admin_group`: its members are admins, as root is. `only`: nobody but this user is served, who
    may do all; what root asks for then is asked on that user's behalf.
    """

    def __init__(
        self,
        admin_group: str | None = None,
        only: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._admin_group = admin_group
        self._only = only
        self._clock = clock
        self._known: dict[int, Known] = {}
        self._asked: dict[int, asyncio.Future[tuple[str, bool]]] = {}
        self._nobody = _overflow_uid()

    async def of(self, seen: Credentials) -> Peer:
        """Who that is.

        Raises:
            NotAllowed: they are not served here.
        """
        known = self._known.get(seen.uid)
        if known is None or known.until_s <= self._clock():
            self._refuse(seen.uid)
            known = await self._look_up(seen)
        if self._only is not None and seen.uid != self._only:
            return Peer(self._only, os.getegid(), known.name, admin=True, pid=seen.pid)
        return Peer(seen.uid, seen.gid, known.name, known.admin, seen.pid)

    def _refuse(self, uid: int) -> None:
        if self._only is not None and uid not in {self._only, 0}:
            raise NotAllowed(
                f"this daemon serves {_name(self._only) or self._only} alone. Run one of your own: "
                "supervise daemon run"
            )
        if uid == self._nobody:
            raise NotAllowed(
                "you are nobody here: your user is not known on this host, as is the case of "
                "processes in another user namespace"
            )

    async def _look_up(self, seen: Credentials) -> Known:
        """Ask in a thread, for it may take long, and once for all who wait for the same."""
        asked = self._asked.get(seen.uid)
        if asked is None:
            asked = asyncio.ensure_future(asyncio.to_thread(self._found, seen.uid))
            self._asked[seen.uid] = asked
            asked.add_done_callback(lambda _: self._asked.pop(seen.uid, None))
        until_s = self._clock() + FRESH_S
        try:
            name, admin = await asyncio.wait_for(asyncio.shield(asked), LOOK_UP_S)
        except TimeoutError:
            name, admin, until_s = str(seen.uid), seen.uid == 0, self._clock()
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[seen.uid] = known = Known(name, admin or seen.uid == self._only, until_s)
        return known

    def _found(self, uid: int) -> tuple[str, bool]:
        """Name, and whether an admin: by this host's lists, not by the group they run as.

        A set-group-id program that a member left behind runs with its group for ever.
        """
        name = _name(uid)
        if uid == 0 or name is None or self._admin_group is None:
            return name or str(uid), uid == 0
        with suppress(KeyError, OSError):
            groups = os.getgrouplist(name, pwd.getpwuid(uid).pw_gid)
            return name, grp.getgrnam(self._admin_group).gr_gid in groups
        return name, False


def _name(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def _overflow_uid() -> int:
    """What the kernel shows for users that this host does not know (user_namespaces(7))."""
    try:
        return int(_OVERFLOW.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 65534
