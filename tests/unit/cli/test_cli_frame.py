"""The frame: exit codes, messages, and what a verb imports."""

import ast
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from supervisor.cli import main as main_module
from supervisor.cli.main import cli, main
from supervisor.core.causes import Action, Cause
from supervisor.journal.journal import FILE_NAME

Supervise = Callable[..., Result]
NewJob = Callable[..., Any]
VERBS = ["show", "logs", "events", "explain", "report"]
SUPERVISE = [sys.executable, "-c", "from supervisor.cli.main import main; main()"]
HEAVY = {"pydantic", "rich", "structlog", "ruamel", "asyncio", "psutil", "torch", "subprocess"}


def run(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """A real `supervise`, whole."""
    argv = [*SUPERVISE, *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, **more)


def test_without_a_state_folder(supervise: Supervise, state_dir: Path) -> None:
    """`ps` says so kindly; the others have no job to speak of. Nothing is created."""
    listed = supervise("ps")

    assert (listed.exit_code, listed.output) == (
        0,
        f"no jobs yet in {state_dir}. Start one: supervise run job.yaml\n",
    )
    for verb in VERBS:
        result = supervise(verb, "digits")
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith("supervise: no jobs yet in ")
    assert not state_dir.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sho"], "no such verb: sho (did you mean show?)"),
        (["frobnicate"], "no such verb: frobnicate\n"),
        ([""], "no such verb: "),
        (["--state-dr", "x", "ps"], "No such option '--state-dr'"),
        (["ps", "--jsn"], "No such option '--jsn'"),
        (["ps", "extra"], "unexpected extra argument"),
        (["checkpoint"], "Usage: "),
        (["checkpoint", "pin"], "No such command 'pin'"),
        (["explain", "--attempt", "x"], "'x' is not a valid integer"),
    ],
)
def test_usage_errors(words: list[str], said: str) -> None:
    """A slip is exit code 2, with a sentence and no traceback."""
    result = CliRunner().invoke(cli, words, prog_name="supervise")

    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output


def test_no_verb_is_help() -> None:
    """`supervise` alone explains itself, and is a usage error."""
    result = CliRunner().invoke(cli, [])

    assert result.exit_code == 2
    assert "Look at jobs:" in result.output


@pytest.mark.parametrize(
    "content", [b"not a database" * 100, b"SQLite format 3\0" + b"\xff" * 4096]
)
def test_a_damaged_journal(content: bytes, supervise: Supervise, state_dir: Path) -> None:
    """Every verb says that it is damaged and what to do, exit code 3; the file is left alone."""
    state_dir.mkdir()
    (state_dir / FILE_NAME).write_bytes(content)

    for words in (["ps"], *([verb, "digits"] for verb in VERBS)):
        result = supervise(*words)
        assert result.exit_code == 3
        assert "is damaged" in result.stderr
        assert "Traceback" not in result.output
    assert (state_dir / FILE_NAME).read_bytes() == content


def test_a_journal_of_a_newer_version(
    three_faults: Any, supervise: Supervise, state_dir: Path
) -> None:
    """It is refused in words, exit code 3."""
    three_faults.journal.close()
    with sqlite3.connect(state_dir / FILE_NAME) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    result = supervise("ps")

    assert result.exit_code == 3
    assert "newer supervise" in result.stderr


def test_a_state_folder_that_may_not_be_read(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No permission is exit code 3 and a sentence, also where the system raises at once."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "stat", refuse)
    result = supervise("ps")

    assert result.exit_code == 3
    assert "cannot be read: Permission denied" in result.stderr


@pytest.mark.parametrize(("file", "said"), [("/dev/null", "not a folder"), (__file__, "is a file")])
def test_a_state_folder_that_is_no_folder(file: str, said: str) -> None:
    """A file, or a device, is not an empty state folder: a usage error."""
    result = CliRunner().invoke(cli, ["--state-dir", file, "ps"])

    assert result.exit_code == 2
    assert said in result.stderr


def test_a_spec_that_cannot_be_read_fails_no_listing(new_job: NewJob, supervise: Supervise) -> None:
    """A frozen spec that is damaged, or of another version, leaves its fields empty."""
    for number, spec in enumerate(('{"format": 9}', "[1]", "{", '{"job": 3}', "[" * 100_000)):
        job = f"j{number}"
        new_job(f"{job}-aaaaaa", name=job, folder=f"/data/{job}", spec=spec)

        for verb in ("show", "explain", "report", "events"):
            assert supervise(verb, job).exit_code == 0
    assert supervise("ps").exit_code == 0


def test_damaged_evidence_and_events_are_told_as_they_are(
    three_faults: Any, supervise: Supervise
) -> None:
    """What no longer is JSON is left out of the story, not the story itself."""
    connection = three_faults.journal._connection
    connection.execute("UPDATE attempts SET evidence = '{broken'")
    connection.execute("UPDATE events SET body = 'broken' WHERE kind = 'CheckpointChosen'")

    explained = supervise("explain", three_faults.id)
    assert explained.exit_code == 0
    assert "Attempt 4" in explained.output
    assert "unreadable=broken" in supervise("events", three_faults.id).output


def test_a_log_never_steers_the_terminal(new_job: NewJob, supervise: Supervise) -> None:
    """Escape sequences in error lines, paths and stacks are taken out of what people are told."""
    story = (
        new_job(folder="/data/\x1b]0;title\x07x", name="evil\x1b[2J", command=["a\x07"])
        .runner()
        .begins(31)
    )
    story.attempt(1).stack.write_bytes(b"\x1b[31mframe\x00\xff\n" + b"x" * 100_000)
    story.exits(code=1)
    story.ends(Cause.EXIT_CODE, "a\x1b[2Jb", action=Action.GIVE_UP, error_line="\x1b[Hc\rd\ne")

    for words in (["ps"], ["show", story.id], ["explain", story.id], ["events", story.id]):
        output = supervise(*words).output
        assert not {char for char in output if not char.isprintable()} - {"\n"}


def test_ps_and_head() -> None:
    """A reader that leaves early is no error, and says nothing on stderr."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        argv = [*SUPERVISE, "--help"]
        done = subprocess.run(argv, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False)
    finally:
        os.close(writer)

    assert (done.returncode, done.stderr) == (0, b"")


def test_a_full_disk_behind_stdout(tmp_path: Path) -> None:
    """`supervise ps > /dev/full` says why it failed, once, without a traceback."""
    with Path("/dev/full").open("w") as full:
        argv = [*SUPERVISE, "--state-dir", str(tmp_path / "s"), "ps"]
        done = subprocess.run(
            argv, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )

    assert (done.returncode, done.stderr) == (1, "supervise: No space left on device\n")


def test_ctrl_c(new_job: NewJob, state_dir: Path) -> None:
    """Ctrl-C ends a verb at once: 130, and no traceback."""
    story = new_job().runner().begins(31)
    story.attempt(1).log.write_bytes(b"one\n")
    argv = [*SUPERVISE, "--state-dir", str(state_dir), "logs", "-f", story.id]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"one\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)

    assert (process.returncode, err.strip()) == (130, b"")


def test_another_system(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Elsewhere than on Linux it says so, exit code 2."""
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SystemExit) as caught:
        main()

    assert caught.value.code == 2
    assert "only Linux has" in capsys.readouterr().err


def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a home folder the state folder must be named, and that is said."""

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(main_module, "default_state_dir", homeless)
    result = CliRunner().invoke(cli, ["ps"])

    assert result.exit_code == 2
    assert "Name one with --state-dir" in result.stderr


def test_a_fault_of_this_program_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not known to be somebody else's mistake keeps its traceback."""

    def broken() -> Path:
        raise ZeroDivisionError

    monkeypatch.setattr(main_module, "default_state_dir", broken)
    assert isinstance(CliRunner().invoke(cli, ["ps"]).exception, ZeroDivisionError)


@pytest.mark.parametrize("words", [["ps"], ["--help"], ["show", "x"], ["explain", "x"]])
def test_a_quick_verb_imports_little(words: list[str], three_faults: Any, state_dir: Path) -> None:
    """Reading verbs load no schema, no terminal library, no event loop; help loads no verb."""
    names = [three_faults.id if word == "x" else word for word in words]
    code = (
        "import sys; from supervisor.cli.main import cli\n"
        f"try: cli.main(['--state-dir', {str(state_dir)!r}, *{names!r}])\n"
        "finally: print(sorted(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    loaded = set(ast.literal_eval(done.stderr.splitlines()[-1]))

    assert done.returncode == 0
    assert not {name.partition(".")[0] for name in loaded} & HEAVY
    if words == ["--help"]:
        assert not {name for name in loaded if name.startswith("supervisor.journal")}


def test_colour_only_where_it_is_wanted(
    three_faults: Any, supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe gets none; a terminal does, unless NO_COLOR is set."""
    plain = supervise("show", three_faults.id)
    colourful = supervise("show", three_faults.id, color=True)
    assert "\x1b[" not in plain.output
    assert "\x1b[32msucceeded" in colourful.output

    monkeypatch.setenv("NO_COLOR", "1")
    assert supervise("show", three_faults.id, color=True).output == plain.output


def test_version() -> None:
    """`--version` names program and version."""
    assert run("--version").stdout.startswith("supervise 0.")
