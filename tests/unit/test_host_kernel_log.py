"""Reading the kernel's log, the real one where it may be written, and a picture elsewhere."""

import errno
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.host import kernel_log
from supervisor.host.kernel_log import KernelLine, KernelLog, OomVictim, XidLine, oom_victims, xids

KMSG = Path("/dev/kmsg")


@pytest.fixture
def say(tmp_path: Path) -> Iterator[object]:
    """Give a way to write into the real log."""
    try:
        device = os.open(KMSG, os.O_WRONLY)
    except OSError as error:
        pytest.skip(f"{KMSG} cannot be written here: {error.strerror}")
    yield lambda text: os.write(device, f"<4>{text}\n".encode())
    os.close(device)


@pytest.fixture
def log() -> Iterator[KernelLog]:
    """Give the real log, opened at its end."""
    opened = KernelLog()
    yield opened
    opened.close()


def lines(*texts: str) -> list[KernelLine]:
    """Return lines of the log with these texts."""
    return [KernelLine(0.0, text) for text in texts]


def test_only_what_is_said_later_is_read_and_once(say):
    """A line said before the log was opened is not given; one said after is, once, in time."""
    word = secrets.token_hex(8)
    say(f"before {word}")
    log = KernelLog()
    assert (log.available, log.why_not) == (True, "")
    # At an address that no GPU has: others may be reading this log as well.
    say(f"NVRM: Xid (PCI:0000:fe:1f): 79, pid=1, name={word}, GPU has fallen off the bus.")
    said_at = time.time()
    new = [line for line in log.read_new() if word in line.text]
    assert [line.text.partition(word)[0] for line in new] == [
        "NVRM: Xid (PCI:0000:fe:1f): 79, pid=1, name="
    ]
    assert abs(new[0].at_s - said_at) < 5
    assert xids(new) == [
        XidLine("0000:fe:1f", 79, f"pid=1, name={word}, GPU has fallen off the bus.")
    ]
    assert not any(word in line.text for line in log.read_new())
    log.close()
    log.close()
    assert log.read_new() == []


def test_a_log_that_overtook_us_goes_on(say, log, monkeypatch):
    """What the kernel overwrote before it was read is skipped, and reading goes on behind it."""
    word = secrets.token_hex(8)
    say(word)
    real, failed = os.read, []

    def overtaken(descriptor: int, size: int) -> bytes:
        if not failed:
            failed.append(descriptor)
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        return real(descriptor, size)

    monkeypatch.setattr(os, "read", overtaken)
    assert [line.text for line in log.read_new() if word in line.text] == [word]
    assert failed


def test_what_is_not_plain_text_is_unescaped(say, log):
    """The log's escapes are undone, and a further line of a record is not taken for text."""
    word = secrets.token_hex(8)
    say(f"{word} back\\slash")
    assert [line.text for line in log.read_new() if word in line.text] == [f"{word} back\\slash"]


@pytest.mark.parametrize(
    ("code", "remedy"),
    [(errno.EPERM, "CAP_SYSLOG"), (errno.ENOENT, "--device /dev/kmsg"), (errno.EIO, "missing")],
)
def test_a_closed_log_says_why(monkeypatch, code, remedy):
    """A log that cannot be opened is no error: it gives nothing, and says what would open it."""

    def refused(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", refused)
    log = KernelLog()
    assert not log.available
    assert os.strerror(code) in log.why_not
    assert remedy in log.why_not
    assert log.read_new() == []
    log.close()


def test_a_log_that_fails_later_is_given_up(tmp_path, monkeypatch):
    """An error while reading ends the log, with the reason, and what was read before is given."""
    device = tmp_path / "kmsg"
    device.write_text("")
    log = KernelLog(device)
    records = iter(
        [b"6,1,1000000,-;first\n SUBSYSTEM=x\n", b"no record", OSError(errno.EINVAL, "bad")]
    )

    def read(*_: object) -> bytes:
        record = next(records)
        if isinstance(record, OSError):
            raise record
        return record

    monkeypatch.setattr(os, "read", read)
    assert [line.text for line in log.read_new()] == ["first"]
    assert (log.available, log.why_not) == (False, "the kernel's log ended (bad)")


def test_one_call_reads_so_many_lines(tmp_path, monkeypatch):
    """A log that is written faster than it is read does not hold its reader for ever."""
    device = tmp_path / "kmsg"
    device.write_text("")
    log = KernelLog(device)
    monkeypatch.setattr(os, "read", lambda *_: b"6,1,1,-;again\n")
    monkeypatch.setattr(kernel_log, "_MOST_LINES", 3)
    assert len(log.read_new()) == 3
    log.close()


def test_victims_of_the_host_and_of_a_limit_are_told_apart():
    """Every form in which the kernel says whom it killed for memory is understood, no other."""
    said = lines(
        "Out of memory: Killed process 123 (python) total-vm:8kB, anon-rss:4kB, UID:0",
        "Memory cgroup out of memory: Killed process 45 (py) (thon) total-vm:8kB",
        "Out of memory (oom_kill_allocating_task): Killed process 6 (a)",
        "Memory cgroup out of memory: Kill process 7 (old) score 5 or sacrifice child",
        "python invoked oom-killer: gfp_mask=0xcc0, order=0, oom_score_adj=1000",
        "user says: Out of memory: Killed process 8 (no)",
        "oom_reaper: reaped process 123 (python), now anon-rss:0kB",
    )
    assert oom_victims(said) == [
        OomVictim(123, "host"),
        OomVictim(45, "limit"),
        OomVictim(6, "host"),
        OomVictim(7, "limit"),
    ]


def test_xids_are_read_with_what_the_driver_adds():
    """Each form of the driver's error lines gives bus, code and text, and other lines give none."""
    said = lines(
        "NVRM: Xid (PCI:0000:3b:00): 79, pid=1234, name=python, GPU has fallen off the bus.",
        "NVRM: Xid (0000:AF:00): 13, Graphics Exception: ESR 0x404490=0x80000001",
        "NVRM: Xid (PCI:0000:3b:00): 48",
        "NVRM: GPU at PCI:0000:3b:00: GPU-0badcafe",
        "NVRM: loading NVIDIA UNIX x86_64 Kernel Module",
    )
    assert xids(said) == [
        XidLine("0000:3b:00", 79, "pid=1234, name=python, GPU has fallen off the bus."),
        XidLine("0000:AF:00", 13, "Graphics Exception: ESR 0x404490=0x80000001"),
        XidLine("0000:3b:00", 48, ""),
    ]
