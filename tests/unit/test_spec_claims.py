from pathlib import Path

import pytest

from supervisor.queue.model import Needs
from supervisor.runner.settings import Settings
from supervisor.spec.claims import claims, needs
from supervisor.spec.load import load_text

SOURCE = Path("/jobs/job.yaml")
CAM = 'name: a\ngradcam: {model: "p:f", images: "x/*", out: ../heat}\n'


@pytest.mark.parametrize(
    ("text", "folders"),
    [
        ("name: a\ncommand: [x]\n", ()),
        ("name: a\ncommand: [x]\ncwd: src\ncheckpoint: {preset: hf}\n", ("/jobs/src",)),
        ("name: a\ncommand: [x]\ncheckpoint: {preset: hf, dir: a/../runs/}\n", ("/jobs/runs",)),
        ("name: a\ncommand: [x]\ncheckpoint: {preset: hf, dir: /runs}\n", ("/runs",)),
        (
            'name: a\ntrain: {entry: "p:f", epochs: 1, out: o}\n',
            ("/jobs/o", "/jobs/o/checkpoints"),
        ),
        ('name: a\nmap: {entry: "p:f", items: "x/*"}\n', ("/jobs/out",)),
        (CAM, ("/heat",)),
    ],
)
def test_a_job_claims_the_folders_it_writes_to(text: str, folders: tuple[str, ...]) -> None:
    """Absolute, each once, whatever way they are written."""
    assert folders == claims(load_text(text, SOURCE))


def test_a_job_that_says_nothing_needs_a_core() -> None:
    """The same as the queue takes for granted."""
    assert Needs(**needs(load_text("name: a\ncommand: [x]\n", SOURCE))) == Needs()


@pytest.mark.parametrize("job", ["command: [x]\n", 'map: {entry: "p:f", items: "x/*"}\n'])
def test_what_a_job_needs_is_what_its_runner_takes(job: str) -> None:
    """GPUs and memory are each worker's, and a batch job has several; cores are the job's."""
    chunks = "chunks: {parallel: 3}\n" if "map" in job else ""
    wants = "{gpus: 2, gpu_memory: 20GiB, share_gpu: true, memory: 4GiB, cpus: 8}"
    spec = load_text(f"name: a\n{job}{chunks}resources: {wants}\n", SOURCE)
    workers = 3 if chunks else 1

    found = Needs(**needs(spec))

    assert found == Needs(
        gpus=2 * workers,
        gpu_memory_bytes=20 * 1024**3,
        share_gpu=True,
        cpus=8,
        memory_bytes=workers * 4 * 1024**3,
    )
    assert found.gpus == Settings.of(spec).resources.gpus
