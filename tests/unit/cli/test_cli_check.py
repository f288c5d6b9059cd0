"""`check`, `schema` and the options that `run` shares with them."""

import json
import os

import pytest
from click.testing import CliRunner

from supervisor.cli.main import cli


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Give the verb in a folder with this job.yaml; what it said, and the exit code."""
    monkeypatch.chdir(tmp_path)

    def asked(*words, job='{"name": "net", "command": ["true", "${lr}"], "params": {"lr": 0.1}}'):
        (tmp_path / "job.yaml").write_text(job)
        return CliRunner().invoke(cli, ["--state-dir", "state", *words])

    return asked


def test_check_prints_the_effective_plan_and_makes_nothing(ask, tmp_path):
    """Defaults and params are filled in; no state folder appears."""
    said = ask("check", "job.yaml", "-p", "lr=0.05")
    assert said.exit_code == 0
    assert "0.05" in said.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job.yaml"]


def test_check_as_json_is_the_frozen_job(ask):
    """A program reads the same plan."""
    said = json.loads(ask("check", "job.yaml", "--json").stdout)
    assert said["ok"]
    assert said["job"]["job"]["command"] == ["true", "0.1"]


def test_what_is_wrong_is_told_in_both_forms(ask):
    """Exit 2; as words on stderr with the place, as JSON on stdout."""
    words = ask("check", "job.yaml", job="name: net\ncomand: [x]\n")
    assert words.exit_code == 2
    assert "job.yaml:2:1" in words.stderr
    told = ask("check", "job.yaml", "--json", job="name: net\ncomand: [x]\n")
    assert told.exit_code == 2
    assert json.loads(told.stdout)["problems"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-p", "lr"], "write it as NAME=VALUE"),
        (["-p", "=3"], "write it as NAME=VALUE"),
        (["-p", ""], "write it as NAME=VALUE"),
        (["-p", "lr=1", "-p", "lr=2"], "given twice: 1 and 2"),
        (["-p", "rl=1"], "no param 'rl'"),
        (["-p", "lr=fast"], "lr"),
        (["-p"], "requires an argument"),
        (["--contnue"], "No such option"),
        (["other.yaml"], "unexpected extra argument"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "check"])
def test_a_slip_on_the_command_line_is_a_sentence_and_exit_2(ask, tmp_path, verb, words, said):
    """Nothing is started, nothing is made, and no traceback is shown."""
    result = ask(verb, "job.yaml", *words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("words", [["run"], ["check"], ["run", "missing.yaml"], ["check", "."]])
def test_a_job_file_that_is_missing_or_no_file_is_exit_2(ask, words):
    """No argument, no such file, a folder."""
    result = ask(*words)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_the_schema_is_json(ask):
    """For an editor, or a pipe."""
    assert json.loads(ask("schema").stdout)["properties"]["command"]


def test_a_folder_whose_name_is_no_text_is_refused(ask, tmp_path):
    """A job is known by its folder, and the journal keeps text: said at once, with the way out."""
    folder = tmp_path / os.fsdecode(b"x\xffy")
    folder.mkdir()
    (folder / "job.yaml").write_text('{"name": "net", "command": ["true"]}')
    result = ask("run", os.fspath(folder / "job.yaml"))
    assert result.exit_code == 2
    assert "is not UTF-8" in result.stderr
