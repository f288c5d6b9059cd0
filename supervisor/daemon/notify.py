"""What the daemon and systemd say to each other: readiness, life, and sockets handed over.

Owns the protocols of sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3), in the standard
library alone. Never raises because of systemd: a daemon works the same where nobody listens.
Invariant: the watchdog is fed by the event loop and by nothing else, so that a loop that stands
still is seen from outside.
"""

import asyncio
import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress
from dataclasses import dataclass

NOTIFY = "NOTIFY_SOCKET"
WATCHDOG = ("WATCHDOG_USEC", "WATCHDOG_PID")
LISTEN = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")

FIRST_FD = 3  # SD_LISTEN_FDS_START
MOST_FDS = 64
DIGITS = 20  # of the largest number of 64 bits
UNNAMED = "unknown"  # what sd_listen_fds_with_names(3) calls a socket without a name
BEATS = 3  # in one period of the watchdog
URGENT_S = 2.0  # what must not get lost waits so long for a service manager with a full queue
STATUS_LENGTH = 500

_USEC = 1_000_000


class Notifier:
    """The service manager that started this process, if one did and wants to be told.

    Its address is taken out of the environment: children are not to speak. Every method tells
    whether the message was sent; nothing depends on it.
    """

    def __init__(self, environ: MutableMapping[str, str] | None = None) -> None:
        self._address = _bindable((os.environ if environ is None else environ).pop(NOTIFY, ""))

    def ready(self, status: str = "") -> bool:
        """Requests are served from now on."""
        return self._send({"READY": "1", **_status(status)}, wait_s=URGENT_S)

    def status(self, text: str) -> bool:
        """One line for `systemctl status`."""
        return self._send(_status(text))

    def stopping(self, status: str = "") -> bool:
        """The end has begun."""
        return self._send({"STOPPING": "1", **_status(status)}, wait_s=URGENT_S)

    def extend_timeout(self, seconds: float) -> bool:
        """Ask for so many seconds, from now, for what goes on: start or stop.

        The one before must not have run out yet. It can only be longer than the unit's own timeout.
        """
        usec = max(round(seconds * _USEC), 1)
        return self._send({"EXTEND_TIMEOUT_USEC": str(usec)}, wait_s=URGENT_S)

    def main_pid(self, pid: int) -> bool:
        """Name another process as the one that the service stands and falls with."""
        return self._send({"MAINPID": str(pid)}, wait_s=URGENT_S)

    def alive(self) -> bool:
        """Feed the watchdog. Nobody but Watchdog calls this."""
        return self._send({"WATCHDOG": "1"})

    def _send(self, fields: dict[str, str], *, wait_s: float = 0.0) -> bool:
        if self._address is None:
            return False
        message = "\n".join(f"{name}={value}" for name, value in fields.items())
        with suppress(OSError), socket.socket(socket.AF_UNIX, _DATAGRAM) as sock:
            sock.settimeout(wait_s)
            sock.connect(self._address)
            sock.send(message.encode(errors="replace"))
            return True
        return False


_DATAGRAM = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC


def _bindable(address: str) -> str | None:
    """The address as bind(2) wants it; None where it is of no kind that we know."""
    if address.startswith("@") and len(address) > 1:
        return "\0" + address[1:]  # of the abstract namespace
    return address if address.startswith("/") else None


def _status(text: str) -> dict[str, str]:
    line = " ".join(text.split())[:STATUS_LENGTH]  # a line break would begin another field
    return {"STATUS": line} if line else {}


class Watchdog:
    """Tells the service manager, several times in each period, that the event loop goes round.

    What it asks for is taken out of the environment. Belongs to one loop: `start` and `stop` are
    called in it.
    """

    def __init__(self, notifier: Notifier, environ: MutableMapping[str, str] | None = None) -> None:
        self._notifier = notifier
        self._period_s = _period_s(os.environ if environ is None else environ)
        self._next: asyncio.TimerHandle | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether anybody waits for a sign of life."""
        return self._period_s is not None

    def start(self) -> None:
        """Feed now, and again and again."""
        if self._period_s is None:
            return
        self.stop()
        self._notifier.alive()
        self._next = asyncio.get_running_loop().call_later(self._period_s / BEATS, self.start)

    def stop(self) -> None:
        """Feed no more."""
        if self._next is not None:
            self._next.cancel()
            self._next = None


def _period_s(environ: MutableMapping[str, str]) -> float | None:
    usec, pid = (environ.pop(name, "") for name in WATCHDOG)
    if pid and pid != str(os.getpid()):  # meant for the process that started us
        return None
    return _number(usec) / _USEC or None


def _number(text: str) -> int:
    """A number without a sign; 0 for everything else."""
    return int(text) if text.isdecimal() and len(text) <= DIGITS else 0


@dataclass(frozen=True, slots=True)
class Listening:
    """A socket that was bound before this process began, and the name that its unit gives it."""

    name: str
    sock: socket.socket


def listen_fds(environ: MutableMapping[str, str] | None = None) -> list[Listening]:
    """The sockets of socket activation, in the unit's order; none where there was no activation.

    They are closed on exec, and the variables are taken out of the environment: what this process
    starts has no part in them. A descriptor that is no socket is left alone and not returned.
    """
    environ = os.environ if environ is None else environ
    pid, count, names = (environ.pop(name, "") for name in LISTEN)
    if pid != str(os.getpid()):
        return []
    named = names.split(":") if names else []
    found = []
    for index in range(min(_number(count), MOST_FDS)):
        name = named[index] if index < len(named) else UNNAMED
        with suppress(OSError):  # closed meanwhile, or no socket
            sock = socket.socket(fileno=FIRST_FD + index)
            sock.set_inheritable(False)
            found.append(Listening(name, sock))
    return found
