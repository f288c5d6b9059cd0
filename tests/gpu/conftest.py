"""A real GPU that nobody uses, and a job whose worker uses it.

Every test in this folder is skipped, with the reason, where there is none. `supervise` is kept to
that one GPU: in the lease folder of each test the others are set aside.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cuda_card import Card, found
from supervisor.gpu.leases import Leases, lease_folder
from supervisor.gpu.leases import Owner as LeaseOwner
from tests.e2e.conftest import _reader_ends, alive, job  # noqa: F401 -- fixtures, by name

HERE = Path(__file__).parent
CUDA = HERE.parents[1] / "benchmarks/cuda.py"
MIB, GIB = 1 << 20, 1 << 30
NEED_BYTES = 8 * GIB
HELD_BYTES = 256 * MIB
GROWN_BYTES = 3 * GIB
SLACK_BYTES = 256 * MIB
START_S = 60.0
"""How long a context may take: the first one wakes a driver that nobody keeps awake."""


@dataclass(frozen=True)
class Bench:
    """The GPU under test. `context_bytes` is what one process takes that does nothing.

    `names` tells whether NVML lists our processes by the pids that we know (not in a container).
    """

    card: Card
    context_bytes: int
    names: bool

    @property
    def within_bytes(self) -> int:
        """More than a worker that holds HELD_BYTES needs, and less than one that has grown."""
        return self.context_bytes + HELD_BYTES + GIB


@contextmanager
def holding(card: Card, count_bytes: int) -> Iterator[int]:
    """Start a process that no job started and that holds memory of the GPU; its pid."""
    with subprocess.Popen(
        [sys.executable, str(CUDA), str(count_bytes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": card.uuid},
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            if not process.stdout.readline():
                pytest.skip(f"CUDA does not work here: {process.stderr.read().strip()}")
            yield process.pid
        finally:
            process.kill()


@pytest.fixture(scope="session")
def bench(eventually: Any) -> Bench:
    """Find a GPU and get to know it; skip whoever needs one where there is none."""
    card = found(NEED_BYTES)
    if isinstance(card, str):
        pytest.skip(card)
    before = card.used_bytes()
    with holding(card, 0) as pid:
        eventually(lambda: card.used_bytes() > before + MIB)
        known = Bench(card, card.used_bytes() - before, pid in card.processes())
    eventually(lambda: card.used_bytes() <= before + SLACK_BYTES, 30)
    return known


@pytest.fixture(autouse=True)
def back(bench: Bench, eventually: Any) -> Iterator[Callable[[], bool]]:
    """Tell whether the GPU is as it was before the test; it has to be so in the end."""
    before = bench.card.used_bytes()

    def is_back() -> bool:
        return bench.card.used_bytes() <= before + SLACK_BYTES

    yield is_back
    eventually(is_back, 30)


@pytest.fixture
def training(job: Any, bench: Bench) -> Any:  # noqa: F811 -- the fixture imported above
    """A job of the training script on the GPU under test, and no other."""
    for path in (CUDA, HERE / "cuda_steps.py"):
        shutil.copy(path, job.folder)
    leases, owner = Leases(lease_folder()), LeaseOwner("tests", str(job.state_dir), 0, 0, "")
    for uuid in bench.card.others:
        leases.set_aside(uuid, "not the GPU under test", owner)
    job.write(
        command=["python", "cuda_steps.py", "--hold", str(HELD_BYTES)],
        resources={"gpus": 1},
        timeouts={"startup": START_S, "stop": 20},
    )
    return job


def told(training: Any, name: str) -> list[dict[str, Any]]:
    """What the worker noted under a name, a record for each line."""
    path = training.folder / f"{name}.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def attempt(training: Any, number: int = 1) -> Path:
    """The folder of an attempt: output, evidence, what was written down about a hang."""
    (path,) = training.state_dir.glob(f"jobs/steps-*/attempts/{number}")
    return Path(path)
