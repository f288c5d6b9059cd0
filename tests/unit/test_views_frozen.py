"""The command that continues a job says all that makes it this job."""

import json
from pathlib import Path

import pytest

from supervisor.journal import JobRecord
from supervisor.spec.frozen import freeze
from supervisor.spec.load import load_job
from supervisor.views.frozen import again


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ""),
        ({"lr": "0.1", "seed": "1"}, ""),
        ({"lr": "0.5"}, " -p lr=0.5 -p seed=1"),
        ({"seed": "2"}, " -p lr=0.1 -p seed=2"),
    ],
)
def test_all_params_are_said_where_one_is_not_as_declared(
    tmp_path: Path, given: dict[str, str], expected: str
) -> None:
    """Of an array, the declared value is one of several: to leave it out would mean all jobs."""
    path = tmp_path / "job.yaml"
    declared = {"lr": 0.1, "seed": 1}
    path.write_text(json.dumps({"name": "a", "command": ["a", "${lr}"], "params": declared}))
    frozen = freeze(load_job(path, given))
    record = JobRecord("a-1", "a", str(tmp_path), frozen, 1.0, 1.0, "failed", "", *[None] * 5)
    assert again(record, tmp_path) == f"supervise --state-dir {tmp_path} run {path}{expected}"
