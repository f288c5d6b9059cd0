"""The example of the built-in trainer does what its README says."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples/digits_trainer"
MOST_LINES = 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a copy of the example, without what a person's own runs have left there."""
    copy = tmp_path / "digits"
    copy.mkdir()
    for name in ("digits.py", "job.yaml", "job-ddp.yaml"):
        shutil.copy(EXAMPLE / name, copy)
    return copy


def supervise(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Give a command in that folder."""
    command = [sys.executable, "-m", "supervisor", "--state-dir", "state", *words]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=100, check=False
    )


def lines_of(path: Path) -> list[str]:
    """The lines of a log."""
    return path.read_text(encoding="utf-8").splitlines()


def test_a_few_epochs_learn_the_digits_under_supervision(folder):
    """The job comes home, and leaves what the README lists."""
    done = supervise(folder, "run", "--plain", "job.yaml", "-p", "epochs=3")
    assert done.returncode == 0, done.stdout + done.stderr
    out = folder / "out"
    result = json.loads((out / "result.json").read_text())
    assert result["steps"] == 3 * 45
    assert result["evaluation"]["accuracy"] > 0.8
    steps = [json.loads(line)["step"] for line in lines_of(out / "metrics.jsonl")]
    assert steps == list(range(1, 3 * 45 + 1))
    assert len(lines_of(out / "evaluations.jsonl")) == 3
    assert (out / "model.pt").exists()
    assert (out / "checkpoints/last").resolve().name == "step-000000135"
    assert (out / "checkpoints/best").resolve().is_dir()


def test_both_jobs_are_accepted(folder):
    """Also the one in two processes says what it would do, by torchrun."""
    told = supervise(folder, "check", "job-ddp.yaml")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "torch.distributed.run" in told.stdout
    assert supervise(folder, "check", "job.yaml").returncode == 0


def test_the_users_part_is_short():
    """Under 60 lines of code, as the README says."""
    lines = (EXAMPLE / "digits.py").read_text().splitlines()
    assert sum(bool(line.strip()) for line in lines) < MOST_LINES
