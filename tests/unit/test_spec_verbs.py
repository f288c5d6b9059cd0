"""What `check`, `run` and `submit` make of arrays and secrets, before anything is started."""

import json
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from supervisor.cli.given import load_every, parse_arrays
from supervisor.cli.main import cli
from supervisor.spec.problems import MAX_PROBLEMS, SpecError

JOB = """
name: net
command: ["true", "${lr}"]
params: {lr: {type: float}, seed: 1}
env: {HF_TOKEN: hf_abc}
"""
ARRAY = JOB + "array: {lr: [0.1, 0.2], seed: [1, 2]}\n"
Ask = Callable[..., Result]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Give a verb in a folder with this job.yaml."""
    monkeypatch.chdir(tmp_path)

    def asked(*words: str, job: str) -> Result:
        (tmp_path / "job.yaml").write_text(job)
        return CliRunner().invoke(cli, ["--state-dir", "state", *words])

    return asked


def test_check_tells_how_many_jobs_an_array_makes(ask: Ask) -> None:
    """The page is the first of them."""
    said = ask("check", "job.yaml", job=ARRAY)

    assert said.exit_code == 0
    assert "# array:         4 jobs, one for each combination" in said.stdout
    assert 'command: ["true", "0.1"]' in said.stdout


def test_check_as_json_counts_them_and_masks_secrets(ask: Ask) -> None:
    """A program reads the same; nobody reads the token."""
    said = ask("check", "job.yaml", "--json", job=ARRAY)
    alone = json.loads(ask("check", "job.yaml", "--json", "-p", "lr=1", job=JOB).stdout)

    assert json.loads(said.stdout)["jobs"] == 4
    assert "hf_abc" not in said.stdout
    assert (alone["jobs"], alone["job"]["job"]["env"]) == (1, {"HF_TOKEN": "***"})


def test_check_looks_at_every_job_of_the_array(ask: Ask) -> None:
    """The second folder is missing; the first is there."""
    job = 'name: a\ncommand: ["true"]\nparams: {to: .}\ncwd: "${to}"\narray: {to: [., away]}\n'
    said = ask("check", "job.yaml", job=job)

    assert said.exit_code == 2
    assert said.stderr.count("cwd: there is no folder") == 1
    assert "away" in said.stderr


def test_run_refuses_an_array_and_makes_nothing(ask: Ask, tmp_path: Path) -> None:
    """It says how to run one, and how to queue all."""
    said = ask("run", "job.yaml", "-p", "seed=1", job=ARRAY)

    assert said.exit_code == 2
    assert "job.yaml:6:1: array: this file makes 2 jobs, and one is to run" in said.stderr
    assert "choose one: -p lr=0.1" in said.stderr
    assert "supervise submit job.yaml" in said.stderr
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("option", "single", "several"),
    [
        ("lr=0.1", {"lr": "0.1"}, {}),
        ("lr=0.1,0.2", {}, {"lr": ("0.1", "0.2")}),
        (r"note=a\,b", {"note": "a,b"}, {}),
        (r"note=a\,b,c\,", {}, {"note": ("a,b", "c,")}),
        (r"note=\d+\n", {"note": r"\d+\n"}, {}),
        ("note=a,", {}, {"note": ("a", "")}),
        ("note=", {"note": ""}, {}),
        ("note=,", {}, {"note": ("", "")}),
        ("note=a=b,c=d", {}, {"note": ("a=b", "c=d")}),
    ],
)
def test_commas_part_the_values_of_an_array(
    option: str, single: dict[str, str], several: dict[str, tuple[str, ...]]
) -> None:
    """A backslash keeps one in a value, and is itself anywhere else."""
    assert (single, several) == parse_arrays((option,))


def test_a_param_given_twice_is_a_slip_and_no_array() -> None:
    """One way to say it."""
    with pytest.raises(click.UsageError, match="given twice"):
        parse_arrays(("lr=1", "lr=2"))


def test_a_thousand_jobs_that_cannot_start_are_no_thousand_messages(tmp_path: Path) -> None:
    """What is missing is told a hundred times at most."""
    path = tmp_path / "job.yaml"
    path.write_text('name: a\ncommand: ["true"]\nparams: {to: .}\ncwd: "${to}"\n')

    with pytest.raises(SpecError) as caught:
        load_every(path, {}, {"to": [f"away-{n}" for n in range(300)]})

    assert len(caught.value.problems) == MAX_PROBLEMS + 1
    assert caught.value.problems[-1].message == "and 200 more problems"
