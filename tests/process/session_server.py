"""The runner's end of a session, for tests: hears what a worker says, and answers.

Imported by name; `server` is the fixture.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from workers.protocol import ENV_SESSION
from workers.reports import REPORT_LIMIT_BYTES, decode, encode

DEADLINE_S = 20.0
ROOT = Path(__file__).parents[2]
R = TypeVar("R")


class Peer:
    """One line, seen from the runner."""

    def __init__(self, line: socket.socket) -> None:
        self.line = line
        line.settimeout(DEADLINE_S)

    def hear(self) -> Any:
        """Return the next message, None at the end of the line."""
        packet = self.line.recv(REPORT_LIMIT_BYTES)
        assert not packet or decode(packet) is not None, packet
        return decode(packet) if packet else None

    def wait_for(self, kind: type[R]) -> R:
        """Return the next message of a kind; others are skipped."""
        while not isinstance(report := self.hear(), kind):
            assert report is not None, f"the line ended before a {kind.__name__}"
        return report

    def rest(self) -> list[Any]:
        """Return all messages up to the end of the line."""
        return list(iter(self.hear, None))

    def tell(self, report: Any) -> None:
        """Send a message, or plain bytes."""
        self.line.send(report if isinstance(report, bytes) else encode(report))


class Server:
    """A socket where workers report."""

    def __init__(self, path: Path, backlog: int = 8) -> None:
        self.path = path
        self._open: list[socket.socket] = []
        self.socket = self._kept(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        self.socket.bind(str(path))
        self.socket.listen(backlog)
        self.socket.settimeout(DEADLINE_S)
        self._children: list[subprocess.Popen[str]] = []

    def accept(self) -> Peer:
        """Return the next line."""
        return Peer(self._kept(self.socket.accept()[0]))

    def start(self, code: str, *flags: str, **env: str) -> subprocess.Popen[str]:
        """Start a supervised script; every warning is an error in it."""
        names = {ENV_SESSION: str(self.path), "PYTHONPATH": str(ROOT), **env}
        child = subprocess.Popen(
            [sys.executable, "-W", "error", *flags, "-c", code],
            env={**os.environ, **names},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._children.append(child)
        return child

    def close(self) -> None:
        """Hang up, and end what was started."""
        for one in self._open:
            one.close()
        for child in self._children:
            child.kill()
            child.communicate()

    def _kept(self, one: socket.socket) -> socket.socket:
        self._open.append(one)
        return one


def result(child: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Return how a child ended, and what it wrote."""
    out, err = child.communicate(timeout=DEADLINE_S)
    return child.returncode, out, err


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Give a server, whose socket is not in the environment yet."""
    made = Server(tmp_path / "session.sock")
    yield made
    made.close()
