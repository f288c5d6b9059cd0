"""Follows the file that a worker writes its output to, by polling.

Owns the position in one log file. Never writes to it, never waits, and never holds more than one
bounded read: a worker that prints gigabytes costs the same as one that prints `limit_bytes`.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

LINE_CAP_BYTES = 64 * 1024
"""What is kept of a line; the rest of a longer one is dropped up to its end."""

# O_NONBLOCK: a fifo in the log's place must not hold up the supervision.
_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one look at the log brought.

    `lines` have no line ends; blank ones are left out. `new_bytes` is by how much the file grew
    (all of it, the skipped part too), `skipped_bytes` how much of that nobody has looked at.
    """

    lines: list[str]
    new_bytes: int
    skipped_bytes: int = 0


_NOTHING_NEW = Chunk([], 0)


class LogFollower:
    r"""Reads what was appended to `path` since the last look.

    A line ends with `\n` or `\r`: a progress bar rewrites its line with `\r` and may never send a
    `\n`. A file that is not there yet is an empty one. A file that was truncated or deleted and
    made anew is read from its start. One that was renamed is followed under its new name.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._offset = 0
        self._held = b""
        self._discarding = False

    @property
    def partial(self) -> str:
        """The line that has no end yet, at most `LINE_CAP_BYTES` of it."""
        return _text(self._held)

    def read_new(self, limit_bytes: int = 1 << 20) -> Chunk:
        """Return what is new; of more than `limit_bytes`, only the end. OSError if unreadable.

        Costs one `fstat` when nothing is new.
        """
        size = self._size()
        if size == self._offset:
            return _NOTHING_NEW
        if size < self._offset:
            self._start_over()
        new_bytes = size - self._offset
        skipped = max(0, new_bytes - limit_bytes)
        if skipped:
            # The jump lands inside a line. Half a line misleads ("step 12" of "step 1200").
            self._held, self._discarding = b"", True
        data = os.pread(self._fd, new_bytes - skipped, self._offset + skipped)
        self._offset += skipped + len(data)
        return Chunk(self._split(data), skipped + len(data), skipped)

    def close(self) -> None:
        """Let go of the file. A later look opens it again, and goes on where it was."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _size(self) -> int:
        """Size of the followed file in bytes; opens it when it is there at last."""
        if self._fd >= 0:
            status = os.fstat(self._fd)
            # Deleted: first read what was left in it, then look for its successor. Without one it
            # is still the file that the worker writes to.
            if status.st_nlink or status.st_size != self._offset or not self._path.is_file():
                return status.st_size
            self.close()
            self._start_over()
        try:
            self._fd = open_log(self._path)
        except FileNotFoundError:
            return self._offset
        return os.fstat(self._fd).st_size

    def _start_over(self) -> None:
        self._offset, self._held, self._discarding = 0, b"", False

    def _split(self, data: bytes) -> list[str]:
        """Return the lines that `data` completes, and hold back the one it begins."""
        first, *rest = data.replace(b"\r", b"\n").split(b"\n")
        held = b"" if self._discarding else (self._held + first)[:LINE_CAP_BYTES]
        if not rest:
            self._held = held
            return []
        self._discarding = False
        self._held = rest[-1][:LINE_CAP_BYTES]
        return [_text(line[:LINE_CAP_BYTES]) for line in (held, *rest[:-1]) if line]


def open_log(path: Path) -> int:
    """Open a log for reading and give its descriptor, without ever waiting.

    Raises:
        OSError: it cannot be read, or is not a regular file.
    """
    log = os.open(path, _OPEN_FLAGS)
    if not stat.S_ISREG(os.fstat(log).st_mode):
        os.close(log)
        raise OSError(f"{path} is not a regular file, so it cannot be followed as a log")
    return log


def tail(path: Path, lines: int = 200, limit_bytes: int = 65536) -> list[str]:
    r"""Return the last lines of a log, from its last `limit_bytes`; [] if it is not there.

    Of a line rewritten with `\r` only the last state is given, as a terminal would show it, so
    that a progress bar cannot push the traceback out.
    """
    try:
        with open(open_log(path), "rb") as log:
            size = log.seek(0, os.SEEK_END)
            start = max(0, size - limit_bytes)
            log.seek(start)
            data = log.read(limit_bytes)
    except FileNotFoundError:
        return []
    if start:
        _, line_end, whole = data.partition(b"\n")
        data = whole if line_end else data
    found = [_last_state(line) for line in data.split(b"\n")]
    return [_text(line) for line in found if line][-lines:] if lines > 0 else []


def _last_state(line: bytes) -> bytes:
    return line.rstrip(b"\r").rpartition(b"\r")[2]


def _text(line: bytes) -> str:
    return line.decode("utf-8", errors="replace")
