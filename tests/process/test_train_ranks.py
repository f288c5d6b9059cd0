"""Several processes that train one model are cut and go on with the same bits."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.train.nets import SAMPLES, Diary, from_bytes, pieces, trainer_of
from workers.train.plan import Plan

ROOT = Path(__file__).parents[2]
LIMIT_S = 90
RANKS = 3  # of two, a sum has the same bits in whatever order it is made


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Have two processes train; what they found lies in the folder."""
    folder = tmp_path_factory.mktemp("ranks")
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    shared |= {"WORLD_SIZE": str(RANKS), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.process.train_ranks", str(folder)]
    processes = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(RANKS)
    ]
    try:
        said = [process.communicate(timeout=LIMIT_S)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0] * RANKS, "\n".join(said)
    return folder


@pytest.fixture(scope="module")
def reports(trained: Path) -> list[dict[str, Any]]:
    """Give what each rank found."""
    return [json.loads((trained / f"{rank}.json").read_text()) for rank in range(RANKS)]


def test_cut_ranks_have_the_same_bits(reports: list[dict[str, Any]]) -> None:
    """Weights, optimizer, and every rank's samples, metrics and random numbers."""
    assert [report["steps_differ"] for report in reports] == [[], [], []]
    assert [report["states_differ"] for report in reports] == [[], [], []]
    assert [report["has_state"] for report in reports] == [True, False, False]


def test_ranks_share_the_samples_and_no_chance(reports: list[dict[str, Any]]) -> None:
    """An epoch has every sample once, but those that fill up its last batch; losses differ."""
    per_epoch = 2  # of at most two batches of eight in three ranks each
    seen = [
        index
        for report in reports
        for step in range(1, per_epoch + 1)
        for index in report["indices"][str(step)]
    ]
    assert set(seen) == set(range(SAMPLES))
    assert len(seen) == SAMPLES + -SAMPLES % RANKS
    assert len({str(report["losses"]) for report in reports}) == RANKS


def test_the_main_rank_decides_when_to_stop(reports: list[dict[str, Any]]) -> None:
    """All stop at one step, soon after the main one asked; its exit code alone says so."""
    stops = [report["stopped"] for report in reports]
    assert stops == [["stopped", 7, 75], ["stopped", 7, 0], ["stopped", 7, 0]]


def test_one_process_goes_on_in_the_middle_of_an_epoch(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What three ranks left of an epoch is done by one, each sample once, and the rest is said."""
    saved = from_bytes((trained / "0.pt").read_bytes())
    diary = Diary()
    plan = Plan.of({"epochs": 5, "seed": 3, "accumulate": 2})
    trainer = trainer_of(plan, pieces, [diary])
    trainer.load(saved)
    assert (trainer.epoch, trainer.samples, trainer.step) == (1, 48, 3)
    assert "of 3 processes, and now there are 1" in capsys.readouterr().err
    steps = [trainer.step + 1 + number for number in range(trainer.order.steps(48))]
    assert trainer.train().word == "finished"
    reports = [json.loads((trained / f"{rank}.json").read_text()) for rank in range(RANKS)]
    before = [index for report in reports for index in report["indices"]["3"]]
    left = [index for step in steps for index in diary.steps[step][0]]
    assert sorted([*before, *left]) == list(range(SAMPLES))
    assert trainer.epoch == 5
