"""A desk and a job on it, for the tests of what is asked there."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.daemon.desk import Desk

SURROUNDINGS = {"env": {"PATH": "/usr/bin:/bin", "LANG": "C"}, "umask": 18, "limits": {}}
Accept = Callable[..., str]


@pytest.fixture(name="folder")
def a_folder(tmp_path: Path) -> Path:
    """Give a folder that jobs are of."""
    made = tmp_path / "work"
    made.mkdir()
    return made


@pytest.fixture(name="desk")
def a_desk(state_dir: Path) -> Iterator[Desk]:
    """Give the desk of an empty shelf."""
    opened = Desk(state_dir)
    yield opened
    opened.close()


@pytest.fixture(name="accept")
def an_acceptance(desk: Desk, folder: Path) -> Accept:
    """Take a job of these fields in; its id."""

    def accepted(**fields: Any) -> str:
        found = examined(desk, folder, **fields)
        job = f"{found['name']}-{found['generation']}"
        taken = {"id": job, "spec": found["spec"], "surroundings": SURROUNDINGS, "created_s": 7.5}
        assert desk.answer("accept", {"jobs": [taken]}) == {}
        return job

    return accepted


def examined(desk: Desk, folder: Path, **fields: Any) -> dict[str, Any]:
    """What the desk says of a job of these fields."""
    job = {"name": "net", "command": ["true"], **fields}
    found: dict[str, Any] = desk.answer("examine", {"job": job, "folder": str(folder)})
    return found


def begin_attempt(state_dir: Path, job: str, log: bytes | None = b"") -> Path:
    """Have the journal know a first attempt of a job; the path of its log."""
    with sqlite3.connect(state_dir / "journal.sqlite") as rows:
        rows.execute("INSERT INTO attempts (job_id, number, chosen_s) VALUES (?, 1, 1.0)", [job])
    rows.close()
    path = state_dir / "jobs" / job / "attempts/1/output.log"
    path.parent.mkdir(parents=True)
    if log is not None:
        path.write_bytes(log)
    return path
