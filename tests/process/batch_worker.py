"""Drives a real batch worker over its channel, as the runner does."""

import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from workers import lines, messages
from workers.protocol import ENV_CHANNEL_FD, canonical

MAIN_FILE = Path(lines.__file__).with_name("__main__.py")
DEADLINE_S = 30.0


class BatchWorker:
    """One worker, started in a folder, and what it has said so far."""

    def __init__(
        self,
        cwd: Path,
        verb: str = "map",
        *,
        env: Mapping[str, str] | None = None,
        command: Sequence[str | Path] = (),
    ) -> None:
        self.cwd = cwd
        self.verb = verb
        self.log = cwd / "worker.log"
        self.raw: list[bytes] = []
        self._lines = lines.Lines()
        self._heard: list[bytes] = []
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(DEADLINE_S)
        fd = theirs.fileno()
        with theirs, self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command or [sys.executable, MAIN_FILE, verb],
                cwd=cwd,
                env={**os.environ, ENV_CHANNEL_FD: str(fd), **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[fd],
            )

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """End the worker, if it has not ended: in order, where it would do so."""
        with suppress(OSError, lines.ProtocolBroken, subprocess.TimeoutExpired):
            if kind is None and self.verb == "map":
                self.leave()
                self.rest()
                self.exit_code()
        self.socket.close()
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()

    def setup(
        self, entry: str, args: dict[str, Any] | None = None, batch: int | None = None
    ) -> Self:
        """Send the first line; outputs go to `out` in the worker's folder."""
        setup = messages.Setup(entry, args or {}, str(self.cwd / "out"), batch, 7)
        self.socket.sendall(lines.encode_setup(setup))
        return self

    def start(self, entry: str, args: dict[str, Any] | None = None) -> Self:
        """Set up, and wait until it is ready."""
        self.setup(entry, args)
        assert isinstance(self.hear(), messages.Ready)
        return self

    def do(self, items: Iterable[Any], *, first: int = 1, batch: int | None = None) -> None:
        """Hand out items, numbered from `first`."""
        texts = [(number, canonical(item)) for number, item in enumerate(items, start=first)]
        self.socket.sendall(lines.encode_do(texts, batch))

    def leave(self) -> None:
        """Ask it to leave."""
        self.socket.sendall(lines.LEAVE)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.process.pid, number)

    def lines(self) -> Iterable[bytes]:
        """Yield its lines until the end of the stream."""
        while True:
            while self._heard:
                yield self._heard.pop(0)
            try:
                chunk = self.socket.recv(1 << 16)
            except ConnectionResetError:
                return
            if not chunk:
                return
            self.raw.append(chunk)
            self._heard += self._lines.feed(chunk)

    def hear(self) -> messages.Report:
        """Return the next thing that it says, but for its memory."""
        for line in self.lines():
            report = lines.parse_report(line)
            if not isinstance(report, messages.Memory):
                return report
        raise AssertionError(f"it fell silent; its log: {self.logged()}")

    def rest(self) -> list[messages.Report]:
        """Return all that it says until the end, but for its memory."""
        reports = [lines.parse_report(line) for line in self.lines()]
        return [report for report in reports if not isinstance(report, messages.Memory)]

    def quiet(self) -> bool:
        """Tell whether nothing waits to be heard right now."""
        return not self._heard and not select.select([self.socket], [], [], 0)[0]

    def exit_code(self) -> int:
        """Wait for its end."""
        return self.process.wait(DEADLINE_S)

    def logged(self) -> str:
        """Return what stands in its log."""
        return self.log.read_text(errors="replace")


def said(reports: Iterable[messages.Report]) -> list[tuple[Any, ...]]:
    """Return reports in short: what was announced, done with which result, failed of what."""
    short: list[tuple[Any, ...]] = []
    for report in reports:
        if isinstance(report, messages.Begun):
            short.append(("begin", *report.numbers))
        elif isinstance(report, messages.Done):
            short.append(("done", report.number, report.result.decode()))
        elif isinstance(report, messages.Failed):
            short.append(("failed", *report.numbers, report.failure.kind))
        else:
            short.append((type(report).__name__.lower(),))
    return short
