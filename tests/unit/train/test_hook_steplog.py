import json
import os

import pytest

from workers.train import steplog
from workers.train.steplog import StepLog


def line(step: int) -> bytes:
    """Return the line of a step."""
    return json.dumps({"loss": 1 / step, "step": step}).encode() + b"\n"


@pytest.fixture(params=[7, 64 * 1024])
def block(request, monkeypatch):
    """Have the file read in blocks of this size."""
    monkeypatch.setattr(steplog, "BLOCK_BYTES", request.param)


def cut(path, step):
    """Return what a cut leaves; what is written behind it is behind it."""
    log = StepLog(path)
    log.cut(step)
    log.append('{"step":99}\n')
    log.close()
    return path.read_bytes().removesuffix(b'{"step":99}\n')


def test_whatever_was_torn_off_the_whole_lines_up_to_the_step_stay(tmp_path, block):
    """Cut after any byte, the file keeps exactly the whole lines of steps that are kept."""
    path = tmp_path / "log"
    lines = [line(step) for step in (1, 3, 6)]
    whole = b"".join(lines)
    for end in range(len(whole) + 1):
        for step in (0, 3):
            path.write_bytes(whole[:end])
            kept = b""
            for one, its in zip(lines, (1, 3, 6), strict=True):
                if its <= step and len(kept) + len(one) <= end:
                    kept += one
            assert cut(path, step) == kept


@pytest.mark.parametrize("damage", [b"\0" * 100, b"\0" * 50 + b"\n", b"[]\n", b'{"step":"x"}\n'])
def test_a_damaged_end_is_cut_off(tmp_path, block, damage):
    """What a crash of the host left in place of lines does not stay."""
    path = tmp_path / "log"
    path.write_bytes(line(1) + line(2) + damage)
    assert cut(path, 7) == line(1) + line(2)


def test_a_long_file_is_read_from_its_end_only(tmp_path, monkeypatch):
    """Finding the end of a log of 100,000 lines reads its last block alone."""
    path = tmp_path / "log"
    path.write_bytes(b"".join(line(step) for step in range(1, 100_000)))
    read = []

    def pread(fd, count, offset):
        read.append(count)
        return real(fd, count, offset)

    real = os.pread
    monkeypatch.setattr(steplog.os, "pread", pread)
    assert cut(path, 99_990).endswith(line(99_990))
    assert sum(read) <= 2 * steplog.BLOCK_BYTES


def test_a_write_that_takes_only_a_part_goes_on(tmp_path, monkeypatch):
    """Lines are whole although the kernel takes three bytes at a time."""
    write = os.write
    monkeypatch.setattr(steplog.os, "write", lambda fd, data: write(fd, data[:3]))
    log = StepLog(tmp_path / "log")
    log.append(line(1).decode() + line(2).decode())
    log.close()
    assert (tmp_path / "log").read_bytes() == line(1) + line(2)
