"""What the kernel says while an attempt runs: whom it killed for memory, what a GPU reported.

Owns one place in /dev/kmsg and the shape of the lines that matter. Never waits, and never raises
because the log is closed to this user. Invariant: a line is given once, and only if it was said
after the log was opened.
"""

import errno
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_KMSG = Path("/dev/kmsg")
_RECORD_BYTES = (
    16_384  # a record that does not fit is refused with EINVAL; the kernel's are <= 8192
)
_MOST_LINES = 10_000  # for one call: a log that is written faster than read must not hold us

_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")
_KILLED = re.compile(r"(Memory cgroup out|Out) of memory(?: \([^)]*\))?: Kill(?:ed)? process (\d+)")
_XID = re.compile(r"NVRM: Xid \((?:PCI:)?([0-9A-Fa-f:.]+)\): (\d+)(?:, *(.*))?")


@dataclass(frozen=True, slots=True)
class KernelLine:
    """One line of the kernel's log, at seconds of the wall clock."""

    at_s: float
    text: str


@dataclass(frozen=True, slots=True)
class OomVictim:
    """A process that the kernel killed because memory ran out: the host's, or a cgroup's limit.

    The pid is the host's own, also when this is read in a container with pids of its own.
    """

    pid: int
    scope: Literal["host", "limit"]


@dataclass(frozen=True, slots=True)
class XidLine:
    """An error that NVIDIA's driver reported: the GPU's bus address, the Xid, what else it said."""

    bus_id: str
    code: int
    text: str


class KernelLog:
    """The kernel's log from now on. `why_not` tells people what keeps us from reading it."""

    __slots__ = ("_descriptor", "available", "why_not")

    def __init__(self, device: Path = _KMSG) -> None:
        self._descriptor = -1
        self.why_not = ""
        try:
            self._descriptor = os.open(device, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._descriptor, 0, os.SEEK_END)
        except OSError as error:
            self._give_up(f"{device} cannot be read ({error.strerror}): {_remedy(error.errno)}")
        self.available = not self.why_not

    def read_new(self) -> list[KernelLine]:
        """Return what was said since the last time; nothing where the log is not available."""
        ahead_s = time.time() - time.clock_gettime(time.CLOCK_MONOTONIC)
        found = []
        for record in self._records():
            line = _line(record, ahead_s)
            if line is not None:
                found.append(line)
        return found

    def close(self) -> None:
        """Close the log, once."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _records(self) -> Iterator[bytes]:
        for _ in range(_MOST_LINES):
            if self._descriptor < 0:
                return
            try:
                record = os.read(self._descriptor, _RECORD_BYTES)
            except BlockingIOError:
                return
            except BrokenPipeError:  # the kernel overwrote what was not read; it goes on behind
                continue
            except OSError as error:
                self._give_up(f"the kernel's log ended ({error.strerror})")
                self.available = False
                return
            if not record:
                return
            yield record

    def _give_up(self, why_not: str) -> None:
        self.why_not = why_not
        self.close()


def _remedy(number: int | None) -> str:
    if number in {errno.EPERM, errno.EACCES}:
        return "give this user CAP_SYSLOG, or `sysctl kernel.dmesg_restrict=0` as root"
    if number in {errno.ENOENT, errno.ENXIO, errno.ENODEV}:
        return "a container sees it only with --device /dev/kmsg"
    return "its lines are missing from the evidence"


def _line(record: bytes, ahead_s: float) -> KernelLine | None:
    """Parse a record: `priority,sequence,microseconds,flags;text`, further lines are properties."""
    prefix, _, rest = record.decode("utf-8", errors="replace").partition(";")
    fields = prefix.split(",")
    if len(fields) < 3 or not fields[2].isdigit():  # noqa: PLR2004 -- the third is the time
        return None
    text = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), rest.partition("\n")[0])
    return KernelLine(int(fields[2]) / 1e6 + ahead_s, text)


def oom_victims(lines: Iterable[KernelLine]) -> list[OomVictim]:
    """Return whom the kernel killed for memory, in order."""
    found = (_KILLED.match(line.text) for line in lines)
    return [OomVictim(int(one[2]), "host" if one[1] == "Out" else "limit") for one in found if one]


def xids(lines: Iterable[KernelLine]) -> list[XidLine]:
    """Return the Xid errors that NVIDIA's driver reported, in order."""
    found = (_XID.search(line.text) for line in lines)
    return [XidLine(one[1], int(one[2]), one[3] or "") for one in found if one]
