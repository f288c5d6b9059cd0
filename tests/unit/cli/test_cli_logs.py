"""The worker's output, byte for byte."""

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from click.testing import Result

from supervisor.cli import following
from supervisor.cli.copying import BLOCK, copy_from, tail_offset, unfinished
from supervisor.core.causes import Action, Cause
from supervisor.core.events import BackoffElapsed

Supervise = Callable[..., Result]
NewJob = Callable[..., Any]
SUPERVISE = [sys.executable, "-c", "from supervisor.cli.main import main; main()"]


def test_bytes_pass_as_they_are(new_job: NewJob, supervise: Supervise) -> None:
    """Whatever encoding, escape sequence or control character the worker wrote arrives."""
    wrote = bytes(range(256)) + b"\x1b[31m 45%|\xe2\x96\x88\r 46%|" + b"\xff\xfe"
    story = new_job().runner().begins(31)
    story.attempt(1).log.write_bytes(wrote)

    assert supervise("logs", "digits").stdout_bytes == wrote


@pytest.mark.parametrize(
    ("content", "lines", "expected"),
    [
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\nb\nc", 2, b"b\nc"),
        (b"a\nb\nc\n", 9, b"a\nb\nc\n"),
        (b"a\nb\nc\n", 0, b""),
        (b"a\nb\nc\n", None, b"a\nb\nc\n"),
        (b"\n\n\n", 2, b"\n\n"),
        (b"", 3, b""),
        (b"x", 1, b"x"),
        (b"\n", 1, b"\n"),
        (b"a\n" + b"y" * (BLOCK * 2) + b"\nlast\n", 2, b"y" * (BLOCK * 2) + b"\nlast\n"),
        (b"a" * (BLOCK - 1) + b"\nb\n", 1, b"b\n"),
        (b"a" * BLOCK + b"\nb\n", 1, b"b\n"),
    ],
)
def test_the_last_lines(content: bytes, lines: int | None, expected: bytes, tmp_path: Path) -> None:
    """The last lines are found from the end, across blocks, with or without a last newline."""
    path = tmp_path / "log"
    path.write_bytes(content)
    out = io.BytesIO()
    copy_from(path, tail_offset(path, lines), out)

    assert out.getvalue() == expected


def test_a_huge_sparse_log_is_not_read(tmp_path: Path) -> None:
    """The tail of a log of 8 GiB costs one block."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.truncate(8 << 30)
        file.seek(0, 2)
        file.write(b"\nthe end\n")

    assert tail_offset(path, 1) == (8 << 30) + 1


def test_a_log_that_became_shorter_is_read_anew(tmp_path: Path) -> None:
    """Somebody truncated it: what is written now is not lost; a missing one is empty."""
    path, out = tmp_path / "log", io.BytesIO()
    assert copy_from(path, 5, out) == 5
    assert not unfinished(path)
    path.write_bytes(b"new")

    assert copy_from(path, 1000, out) == 3
    assert out.getvalue() == b"new"
    assert unfinished(path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-f", "--json"), "-f and --json do not go together"),
        (("-f", "--runner"), "-f and --runner do not go together"),
        (("--attempt", "1", "--all"), "--attempt and --all do not go together"),
        (("--attempt", "1", "--runner"), "--attempt and --runner do not go together"),
        (("--all", "--runner"), "--all and --runner do not go together"),
        (("--attempt", "9"), "has no attempt 9: it has had 4"),
        (("--attempt", "0"), "0 is not in the range"),
        (("-n", "-3"), "-3 is not in the range"),
    ],
)
def test_contradictions(
    words: tuple[str, ...], said: str, three_faults: Any, supervise: Supervise
) -> None:
    """Options that make no sense are a usage error that says why."""
    result = supervise("logs", three_faults.id, *words)

    assert result.exit_code == 2
    assert said in result.stderr


def test_nothing_to_print(new_job: NewJob, supervise: Supervise) -> None:
    """No attempt yet, or one without a word, is said on stderr; stdout stays empty."""
    story = new_job()
    early = supervise("logs", "digits")
    story.runner().begins(31)
    silent = supervise("logs", "digits")

    assert (early.exit_code, early.stdout) == (0, "")
    assert "no attempt has begun yet" in early.stderr
    assert (silent.exit_code, silent.stdout) == (0, "")
    assert "attempt 1 left no output" in silent.stderr


def test_the_runners_log(three_faults: Any, supervise: Supervise) -> None:
    """JSON lines become sentences; a line that is damaged is shown as it is."""
    at = {"timestamp": "2026-03-01T12:00:04Z", "level": "info", "event": "AttemptEnded"}
    lines = (
        json.dumps(at | {"text": "attempt 1 ended\ndecision: resume"}),
        json.dumps(at | {"text": None, "event": "ProgressBegan"}),
        json.dumps(at | {"text": "no space", "level": "warning"}),
        "torn li\x1b[2Jne",
    )
    path = three_faults.attempt(1).path.parents[1] / "runner.log"
    path.write_text("\n".join(lines))
    result = supervise("logs", three_faults.id, "--runner")

    assert result.stdout.splitlines() == [
        "12:00:04  attempt 1 ended",
        "12:00:04  decision: resume",
        "12:00:04  ProgressBegan",
        "12:00:04  warning: no space",
        "torn line",
    ]
    as_json = json.loads(supervise("logs", three_faults.id, "--runner", "--json").stdout)
    assert as_json["lines"] == list(lines)


@contextmanager
def logs_of(state_dir: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A real `supervise logs` beside the test."""
    argv = [*SUPERVISE, "--state-dir", str(state_dir), "logs", *words]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def line(stream: IO[bytes] | None) -> bytes:
    """The next line of a process, waited for."""
    assert stream is not None
    return stream.readline()


def test_follow_across_attempts(new_job: NewJob, state_dir: Path) -> None:
    """`-f` shows what is there, then what comes, then the next attempt, and ends with the job."""
    story = new_job().runner().begins(31)
    with story.attempt(1).log.open("wb", buffering=0) as log:
        log.write(b"one\n")
        with logs_of(state_dir, "-f", story.id) as process:
            assert line(process.stdout) == b"one\n"
            log.write(b"two\nhalf")
            assert line(process.stdout) == b"two\n"
            story.exits(code=1).ends(Cause.EXIT_CODE, "exit code 1", exit_code=1)
            story.saw(BackoffElapsed()).begins(32)
            assert line(process.stdout) == b"half\n"  # attempts do not share a line
            assert b"==> attempt 2" in line(process.stderr)
            story.attempt(2).log.write_bytes(b"three\n")
            assert line(process.stdout) == b"three\n"
            story.exits(code=1).ends(Cause.EXIT_CODE, "x", action=Action.GIVE_UP, exit_code=1)
            assert b"is failed: exit_code: x" in line(process.stderr)
            assert process.wait(timeout=20) == 0


def test_follow_ends_when_nobody_brings_the_job_on(new_job: NewJob, state_dir: Path) -> None:
    """A job that is `running` without a runner is not waited for."""
    story = new_job().runner(pid=2**22 - 1).begins(31)
    story.attempt(1).log.write_bytes(b"one\n")
    with logs_of(state_dir, "-f", story.id) as process:
        out, err = process.communicate(timeout=20)

    assert (process.returncode, out) == (0, b"one\n")
    assert b"its runner is gone" in err


def test_following_one_attempt_ends_with_it(
    new_job: NewJob, supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --attempt the next one, which runs, is neither shown nor waited for."""
    story = new_job().runner().begins(31).exits(code=1)
    story.attempt(1).log.write_bytes(b"one\n")
    story.ends(Cause.EXIT_CODE, "exit code 1").saw(BackoffElapsed()).begins(32)
    story.attempt(2).log.write_bytes(b"two\n")
    monkeypatch.setattr(following.time, "sleep", pytest.fail)

    result = supervise("logs", "digits", "-f", "--attempt", "1")
    assert (result.exit_code, result.stdout) == (0, "one\n")


def test_a_title_stands_on_a_line_of_its_own(new_job: NewJob, supervise: Supervise) -> None:
    """An attempt that died within a line does not share it with the next one's title."""
    story = new_job().runner().begins(31).exits(code=1)
    story.attempt(1).log.write_bytes(b" 45%|##")
    story.ends(Cause.EXIT_CODE, "exit code 1").saw(BackoffElapsed()).begins(32)

    lines = supervise("logs", "digits", "--all").stdout.splitlines()
    assert lines[1] == " 45%|##"
    assert lines[2].startswith("==> attempt 2, ")
