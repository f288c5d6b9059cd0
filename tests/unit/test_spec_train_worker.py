"""Both sides of a training job understand each other."""

from pathlib import Path

import pytest

from supervisor.spec.job import JobSpec
from supervisor.spec.load import load_job
from supervisor.spec.train import train_of

pytest.importorskip("torch", reason="the extra `train` is not installed")

from workers.train.plan import Plan

LEAST = 'name: a\ntrain: {entry: "pkg:build", epochs: 3}\n'


def load(folder: Path, text: str) -> JobSpec:
    """Load a job file with this text."""
    (folder / "job.yaml").write_text(text)
    return load_job(folder / "job.yaml")


def test_the_least_plan_has_the_workers_own_defaults(tmp_path: Path) -> None:
    """Both sides know the same fields, and mean the same by leaving one out."""
    found = train_of(load(tmp_path, LEAST))

    assert found is not None
    expected = Plan(entry="pkg:build", epochs=3, out=str(tmp_path / "out"))
    assert Plan.from_json(found.to_json()) == expected


def test_the_worker_understands_every_field(tmp_path: Path) -> None:
    """All that can be said arrives: durations as seconds, params with their types."""
    text = (
        "name: a\nparams: {lr: 0.1, n: 2}\nresources: {gpus: 2}\n"
        'train: {entry: "p.q:f", steps: 9000, args: {lr: "${lr}", deep: [{on: true}]}, out: /r,\n'
        "  seed: 7, device: cuda, precision: bf16, accumulate: 4, compile: true,\n"
        '  processes: "${n}", deterministic: true, loader: {workers: 3, prefetch: 5, pin: false},\n'
        "  snapshot: 1m30s, save: {every: 2h, steps: 50, keep: 9, best: loss, mode: min},\n"
        "  evaluate: 70, schedule: {kind: step, warmup: 5, every: 60, factor: 0.5, floor: 0.01},\n"
        "  clip: 2, non_finite: 8, metrics: {every: 4, tensorboard: true},\n"
        "  profile: {start: 1, steps: 2}}\n"
    )
    found = train_of(load(tmp_path, text))

    assert found is not None
    worker = Plan.from_json(found.to_json())
    unlike_its_default = [
        name
        for name, field in Plan.__dataclass_fields__.items()
        if getattr(worker, name) != field.default
    ]
    assert unlike_its_default == [name for name in Plan.__dataclass_fields__ if name != "epochs"]
    assert (worker.args, worker.snapshot_s) == ({"lr": 0.1, "deep": [{"on": True}]}, 90.0)
    assert (worker.loader.pin, worker.save.every_s, worker.processes) == (False, 7200.0, 2)
