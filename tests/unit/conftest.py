"""A job in the hands of its runner, as the unit tests of the runner want it."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from supervisor.journal import Journal
from supervisor.runner.opening import OpenJob, open_job
from supervisor.spec.load import load_job


@pytest.fixture
def open_a_job(tmp_path: Path, state_dir: Path) -> Iterator[Callable[..., OpenJob]]:
    """Open the job of a job.yaml with these fields; it is closed when the test ends."""
    with ExitStack() as closing:

        def opened(**fields: Any) -> OpenJob:
            file = tmp_path / "job.yaml"
            file.write_text(json.dumps({"name": "net", "command": ["true"], **fields}))
            journal = Journal.open(state_dir)
            closing.callback(journal.close)
            return closing.enter_context(open_job(journal, state_dir, load_job(file, {})))

        yield opened
