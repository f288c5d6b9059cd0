"""A journal of schema version 1, as its users have it, opens and reads for ever."""

import importlib.util
import json
import shutil
import sqlite3
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.events import EVENTS
from supervisor.core.machine import step
from supervisor.core.state import JobState
from supervisor.journal import Journal

GOLDEN = Path(__file__).parents[1] / "golden" / "journal"
JOB = "digits-0a1b2c"


@pytest.fixture
def journal(tmp_path: Path) -> Any:
    """Open a copy of the golden file."""
    shutil.copy(GOLDEN / "v1.sqlite", tmp_path / "journal.sqlite")
    opened = Journal.open(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def expected() -> Any:
    """Give what the golden file must read as."""
    return json.loads((GOLDEN / "v1.json").read_text(encoding="utf-8"))


def assert_holds(found: Any, expected: dict[str, Any]) -> None:
    """Everything that was there is still there; a later version may only add."""
    found = json.loads(json.dumps(found if isinstance(found, dict) else asdict(found)))
    assert {key: found[key] for key in expected} == expected


def test_it_replays_to_the_same_state(journal: Journal, expected: Any) -> None:
    """Every event decodes, and the table of transitions still leads through the same states."""
    state, phases = JobState(), []
    for event in journal.replay(JOB):
        state, _ = step(state, event, 0.0)
        phases.append(state.phase)
    assert phases == expected["phases"]
    del expected["state"]["deadlines"]  # instants of the replay's own clock
    assert_holds(state, expected["state"])


def test_its_derived_rows_read_as_they_did(journal: Journal, expected: Any) -> None:
    """Jobs, attempts, checkpoints and events are what reading verbs showed when it was written."""
    assert [job.id for job in journal.jobs()] == [JOB, "idle-0a1b2c"]
    job = journal.job(JOB)
    assert_holds(job, expected["job"])
    for found, wanted in zip(journal.attempts(JOB), expected["attempts"], strict=True):
        assert_holds(found, wanted)
    for found, wanted in zip(journal.checkpoints(JOB), expected["checkpoints"], strict=True):
        assert_holds(found, wanted)
    events = [[one.seq, one.at_s, one.kind] for one in journal.events(JOB)]
    assert events == expected["events"]
    assert journal.recall(JOB, "out/ckpt-40.pt", "f1") == '{"ok": true}'


def test_it_holds_every_kind_of_event(journal: Journal) -> None:
    """A kind that is added later belongs into the next golden file; none is ever taken away."""
    durable = {name for name, kind in EVENTS.items() if kind.durable}
    assert {one.kind for one in journal.events(JOB)} == durable


def test_it_goes_on(journal: Journal) -> None:
    """A newer program appends to the old file."""
    event = journal.replay(JOB)[0]
    journal.append("idle-0a1b2c", event, JobState())
    assert journal.replay("idle-0a1b2c") == [event]


def test_the_golden_file_is_a_single_whole_file() -> None:
    """It is in WAL mode without a log of its own, and reading it in place changes nothing."""
    before = (GOLDEN / "v1.sqlite").read_bytes()
    assert sorted(path.name for path in GOLDEN.glob("v1.sqlite*")) == ["v1.sqlite"]
    assert before[18:20] == b"\x02\x02"  # read and write version 2: WAL
    connection = sqlite3.connect(f"file:{GOLDEN / 'v1.sqlite'}?immutable=1", uri=True)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    connection.close()
    assert (GOLDEN / "v1.sqlite").read_bytes() == before


def test_the_script_beside_it_still_tells_the_same_story(tmp_path: Path, expected: Any) -> None:
    """Today's program, told the story again, derives what the golden file holds."""
    spec = importlib.util.spec_from_file_location("make_v1", GOLDEN / "make_v1.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    journal = Journal.open(tmp_path)
    script.write(journal)
    told = script.reading(journal, JOB)
    journal.close()
    assert told["events"] == expected["events"]
    for table in ("attempts", "checkpoints"):
        for found, wanted in zip(told[table], expected[table], strict=True):
            assert_holds(found, wanted)
