"""What a shell offers: verbs, and the names and ids of jobs."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from supervisor.cli import completion
from supervisor.cli.main import COMPLETION, NAME, cli
from supervisor.client import find

Supervise = Callable[..., Result]
NewJob = Callable[..., Any]


def offered(words: str, state_dir: Path) -> list[str]:
    """What bash is answered for this line, its last word begun."""
    count = len(words.split(" ")) - 1
    env = {
        COMPLETION: "bash_complete",
        "COMP_WORDS": f"supervise --state-dir {state_dir} {words}",
        "COMP_CWORD": str(count + 3),
    }
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "supervisor"],
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines()]
    heavy = {"pydantic", "ruamel.yaml", "asyncio", "http.client", "supervisor.journal"}
    assert heavy.isdisjoint(loaded)
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_verbs_are_offered_without_importing_them(state_dir: Path) -> None:
    """A shell asks at every press of a key."""
    assert offered("re", state_dir) == ["retry", "resume", "report"]


def test_names_and_ids_are_offered(state_dir: Path, new_job: NewJob) -> None:
    """The newest first, and nothing that has another beginning."""
    new_job("digits-3fa2c1")
    new_job("digits-3fa2c1-2").at(5)
    new_job("resnet-abcdef", name="resnet")

    found = offered("stop dig", state_dir)
    assert set(found) == {"digits", "digits-3fa2c1", "digits-3fa2c1-2"}
    assert found.index("digits-3fa2c1-2") < found.index("digits-3fa2c1")
    assert offered("wait resnet-", state_dir) == ["resnet-abcdef"]


def test_files_are_offered_where_no_job_is_meant(state_dir: Path) -> None:
    """JOB may be the path of a job file; a damaged journal is no reason to say anything."""
    state_dir.mkdir()
    (state_dir / "journal.sqlite").write_bytes(b"damaged" * 100)
    script = (
        "from click.shell_completion import ShellComplete\n"
        "from supervisor.cli.main import cli\n"
        f"words = ['--state-dir', {str(state_dir)!r}, 'stop']\n"
        "found = ShellComplete(cli, {}, 'supervise', 'X').get_completions(words, 'jo')\n"
        "print([(one.value, one.type) for one in found])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("[('jo', 'file')]\n", "")


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_the_script_of_each_shell(shell: str, supervise: Supervise) -> None:
    """It asks us in the way that main answers."""
    result = supervise("completion", shell)

    assert result.exit_code == 0
    assert f"{COMPLETION}={shell}_complete" in result.stdout
    assert completion.VARIABLE == COMPLETION


def test_jobs_of_the_hosts_daemon_are_read_and_offered(
    new_job: NewJob,
    state_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stopped: Any,
) -> None:
    """They are in a folder of this user's, and are shown whether that daemon runs or not."""
    shelf = tmp_path / "var" / "users" / str(os.getuid())
    shelf.parent.mkdir(parents=True)
    stopped.journal.close()
    state_dir.rename(shelf)
    monkeypatch.setattr(find, "SYSTEM_STATE", tmp_path / "var")
    monkeypatch.setattr(find, "SYSTEM_SOCKET", tmp_path / "none.sock")

    for words in (["show", stopped.id], ["explain", "digits"], ["logs", "digits"]):
        result = CliRunner().invoke(cli, words, prog_name=NAME)
        assert result.exit_code == 0, result.output
    assert stopped.id in CliRunner().invoke(cli, ["stop", "digits"]).stdout
    named = CliRunner().invoke(cli, ["--state-dir", str(tmp_path / "mine"), "show", "digits"])
    assert (named.exit_code, "no jobs yet" in named.stderr) == (2, True)
