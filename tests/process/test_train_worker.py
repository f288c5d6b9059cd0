"""The training worker as it is started: how it ends when it is stopped, killed, or half killed."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from tests.unit.train.nets import differences

ROOT = Path(__file__).parents[2]
WORKER = ROOT / "workers" / "__main__.py"
LIMIT_S = 60
STEPS = 20  # four epochs of five

Started = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def start(tmp_path: Path) -> Started:
    """Give a way to start the worker with a plan; paths are in this test's folder."""

    def started(
        entry: str = "tests.process.train_net:build", **plan: Any
    ) -> subprocess.CompletedProcess[str]:
        fields = {"entry": entry, "out": str(tmp_path / "out"), "epochs": 4, **plan}
        return ran([str(WORKER), "train", json.dumps(fields)])

    return started


def ran(command: list[str], **environ: str) -> subprocess.CompletedProcess[str]:
    """Run Python with a command to its end."""
    return subprocess.run(
        [sys.executable, "-W", "error", *command],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )


def weights(out: Path) -> dict[str, Any]:
    """Return what the training was for."""
    return torch.load(out / "weights.pt", weights_only=True)


def test_a_stopped_run_goes_on_bit_for_bit(start: Started, tmp_path: Path) -> None:
    """SIGTERM without a supervisor: saved, 75; the next start goes on by itself."""
    out, whole = tmp_path / "out", tmp_path / "whole"
    stopped = start(args={"at": 7, "number": int(signal.SIGTERM)})
    assert stopped.returncode == 75, stopped.stderr
    assert f"stopped at step 8 of {STEPS}" in stopped.stdout
    assert not (out / "result.json").exists()
    rest = start()
    assert rest.returncode == 0, rest.stderr
    assert "at step 8" in rest.stdout
    assert start(out=str(whole)).returncode == 0
    assert differences(weights(out), weights(whole)) == []
    assert (out / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()


def test_a_killed_training_takes_its_loaders_along(start: Started, eventually: Any) -> None:
    """At once: they hold copies of its sockets, and other ranks would wait for it."""
    ended = start("tests.process.train_net:loading", args={"whom": "self"}, loader={"workers": 2})
    assert ended.returncode == -signal.SIGKILL
    pids = [int(word) for word in ended.stdout.partition("loaders")[2].split()]
    assert len(pids) == 2
    eventually(lambda: not any(psutil.pid_exists(pid) for pid in pids), 2.0)


def test_a_killed_loader_ends_the_training_with_its_error(start: Started) -> None:
    """The other loader does not keep the process from leaving."""
    ended = start("tests.process.train_net:loading", args={"whom": "loader"}, loader={"workers": 2})
    assert ended.returncode == 1
    assert re.search(r"DataLoader worker|the loader's process \d+ ended", ended.stderr)


def test_a_script_of_ones_own_does_the_same(tmp_path: Path) -> None:
    """`run` in a program that is killed, and started again, without any supervisor."""
    out = tmp_path / "out"
    command = ["-m", "tests.process.train_net"]
    killed = ran([*command, "7", str(out)])
    assert killed.returncode == -signal.SIGKILL
    rest = ran([*command, "0", str(out)])
    assert rest.returncode == 0, rest.stderr
    assert json.loads((out / "result.json").read_text())["steps"] == STEPS


def test_another_word_is_refused() -> None:
    """The worker says what it knows."""
    ended = ran([str(WORKER), "train"])
    assert (ended.returncode, "train PLAN" in ended.stderr) == (2, True)
