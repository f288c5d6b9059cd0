"""The desk of a shelf: what must not be believed."""

import json
import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from supervisor.daemon.contracts import (
    NoSuchJob,
    Refusal,
    ShelfUnavailable,
)
from supervisor.daemon.desk import QUESTIONS, Desk
from tests.unit.daemon_desks import (  # noqa: F401 - the fixtures are used by name
    Accept,
    a_desk,
    a_folder,
    an_acceptance,
    begin_attempt,
)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_log_is_left_alone(
    desk: Desk, accept: Accept, state_dir: Path, kind: str
) -> None:
    """A link is not followed, a pipe that nobody writes is not waited for."""
    job = accept()
    path = begin_attempt(state_dir, job, None)
    (state_dir / "secret").write_text("secret")
    if kind == "link":
        path.symlink_to(state_dir / "secret")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(Refusal, match=r"cannot be read|left alone"):
        desk.answer("log", {"id": job})


@pytest.mark.parametrize(
    ("question", "arguments"),
    [
        ("nothing", {}),
        (None, {}),
        ([], {}),
        ("record", None),
        ("record", []),
        ("record", {}),
        ("record", {"id": 3}),
        ("record", {"id": None}),
        ("record", {"id": "../x"}),
        ("record", {"id": ".."}),
        ("record", {"id": "a/b"}),
        ("record", {"id": "a\0b"}),
        ("record", {"id": "a" * 500}),
        ("record", {"id": "\ud800"}),
        ("record", {"id": "net-1", "more": 1}),
        ("records", {"ids": "net-1"}),
        ("records", {"ids": [["net-1"]]}),
        ("records", {"ids": {"a": 1}}),
        ("events", {"id": "net-1", "after": -1}),
        ("events", {"id": "net-1", "limit": 0}),
        ("events", {"id": "net-1", "limit": True}),
        ("log", {"id": "net-1", "offset": -1}),
        ("log", {"id": "net-1", "offset": 10**30}),
        ("log", {"id": "net-1", "offset": 10**9000}),
        ("log", {"id": "net-1", "limit": 1 << 40}),
        ("log", {"id": "net-1", "attempt": 0}),
        ("log", {"id": "net-1", "file": "/etc/passwd"}),
        ("stop", {"id": "net-1", "kill": 1}),
        ("accept", {"jobs": 1}),
        ("accept", {"jobs": [1]}),
        ("accept", {"jobs": [{"id": "net-1"}]}),
        ("requeue", {"id": "net-1", "items": "quarantined"}),
        ("conclude_cancel", {"id": "net-1"}),
        ("conclude_cancel", {"id": "net-1", "source": "\ud800"}),
        ("old", {"older_than_s": float("nan"), "keep_bytes": None}),
        ("old", {"older_than_s": -1, "keep_bytes": None}),
        ("progress", {}),
    ],
)
def test_bad_arguments_are_refused(desk: Desk, question: Any, arguments: Any) -> None:
    """Whatever is sent, the answer is a sentence about it."""
    with pytest.raises(Refusal) as caught:
        desk.answer(question, arguments)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "question", sorted(name for name, one in QUESTIONS.items() if set(one.fields) == {"id"})
)
def test_a_job_that_is_not_there(desk: Desk, accept: Accept, question: str) -> None:
    """Every question about one job says so, before and after there is a journal."""
    for _ in range(2):
        with pytest.raises(NoSuchJob, match="nobody"):
            desk.answer(question, {"id": "nobody"})
        accept()


def test_a_damaged_journal_is_told_and_let_go(desk: Desk, accept: Accept, state_dir: Path) -> None:
    """Damage is refused in words; when the file was moved away the desk goes on."""
    accept()
    path = state_dir / "journal.sqlite"
    desk.close()
    for name in ("journal.sqlite-wal", "journal.sqlite-shm"):
        (state_dir / name).unlink(missing_ok=True)
    path.write_bytes(b"no database at all" * 1000)
    for _ in range(2):
        with pytest.raises(ShelfUnavailable, match=r"damaged|database"):
            desk.answer("records", {})
    path.rename(path.with_suffix(".damaged"))
    assert desk.answer("records", {}) == []
    accept()
    path.rename(path.with_suffix(".away"))
    assert desk.answer("records", {}) == []


def test_strange_rows_come_out_as_json(desk: Desk, accept: Accept, state_dir: Path) -> None:
    """A journal may hold what no journal of ours holds: the answer is JSON all the same."""
    job = accept()
    with sqlite3.connect(state_dir / "journal.sqlite") as rows:
        rows.execute("UPDATE jobs SET why = x'ff00', step = 'many', total = 9e999")
        rows.execute(
            "INSERT INTO events (job_id, at_s, kind, body) VALUES (?, 1, 'Odd', ?)",
            [job, r'{"text": "\ud800", "deep": ' + "[" * 90_000 + "]" * 90_000 + "}"],
        )
        rows.execute(
            "INSERT INTO events (job_id, at_s, kind, body) VALUES (?, 1, 'Half', ?)",
            [job, r'{"text": "\ud800"}'],
        )
    rows.close()
    for question in ("record", "document", "explain", "events", "attempts"):
        told: Any = None
        with suppress(ShelfUnavailable):
            told = desk.answer(question, {"id": job})
        json.dumps(told, allow_nan=False, ensure_ascii=False).encode()
    assert desk.answer("record", {"id": job})["total"] is None
