"""A journal of any schema version, as its users have it, opens and reads for ever."""

import importlib
import json
import shutil
import sqlite3
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.events import AttemptEnded
from supervisor.core.every_event import EVENTS
from supervisor.core.evidence import Evidence
from supervisor.core.machine import step
from supervisor.core.state import JobState
from supervisor.journal import Journal
from tests.golden.journal import make_v1, make_v2

GOLDEN = Path(__file__).parents[1] / "golden" / "journal"
NAMES = ["v1", "v1-gpus", "v2", "v2-train", "v2-cancelled"]
JOB = "digits-0a1b2c"


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """Give the name of each golden file in turn."""
    return str(request.param)


@pytest.fixture
def journal(tmp_path: Path, name: str) -> Any:
    """Open a copy of the golden file."""
    opened = copy_of(name, tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def expected(name: str) -> Any:
    """Give what the golden file must read as."""
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def copy_of(name: str, folder: Path) -> Journal:
    """A golden file, opened in a folder where it may change."""
    shutil.copy(GOLDEN / f"{name}.sqlite", folder / "journal.sqlite")
    return Journal.open(folder)


def assert_holds(found: Any, expected: Any, where: str = "it") -> None:
    """Everything that was there is still there, at any depth; a later version may only add."""
    if isinstance(expected, dict):
        assert isinstance(found, dict), where
        for key, value in expected.items():
            assert key in found, f"{where} has lost {key}"
            assert_holds(_plain(key, found[key]), _plain(key, value), f"{where}.{key}")
    elif isinstance(expected, list):
        assert isinstance(found, list), where
        assert len(found) == len(expected), where
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_holds(one, other, f"{where}[{number}]")
    else:
        assert found == expected, where


def _plain(key: str, value: Any) -> Any:
    """Evidence is stored as JSON; fields are compared, not their order."""
    return json.loads(value) if key == "evidence" and isinstance(value, str) else value


def as_json(found: Any) -> Any:
    """A record as it looks in a golden file."""
    return json.loads(json.dumps(asdict(found)))


def test_it_replays_to_the_same_state(journal: Journal, expected: Any) -> None:
    """Every event decodes, and the table of transitions still leads through the same states."""
    state, phases = JobState(), []
    for event in journal.replay(JOB):
        state, _ = step(state, event, 0.0)
        phases.append(state.phase)
    assert phases == expected["phases"]
    for ours in ("deadlines", "cadence"):  # instants of the replay's own clock
        expected["state"].pop(ours, None)
    assert_holds(as_json(state), expected["state"])


def test_its_derived_rows_read_as_they_did(journal: Journal, expected: Any) -> None:
    """Jobs, attempts, checkpoints and events are what reading verbs showed when it was written."""
    assert [job.id for job in journal.jobs()] == [JOB, "idle-0a1b2c"]
    assert_holds(as_json(journal.job(JOB)), expected["job"])
    assert_holds([as_json(one) for one in journal.attempts(JOB)], expected["attempts"])
    assert_holds([as_json(one) for one in journal.checkpoints(JOB)], expected["checkpoints"])
    events = [[one.seq, one.at_s, one.kind] for one in journal.events(JOB)]
    assert events == expected["events"]
    assert journal.recall(JOB, "out/ckpt-40.pt", "f1") == '{"ok": true}'


def test_together_they_hold_every_kind_of_event() -> None:
    """A kind that is added later belongs into the next golden file; none is ever taken away."""
    kept = {
        kind
        for name in NAMES
        for _, _, kind in json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))[
            "events"
        ]
    }
    assert kept == {name for name, kind in EVENTS.items() if kind.durable}


def test_together_they_fill_every_field_of_the_evidence(tmp_path: Path) -> None:
    """Each field has a value other than its default in some attempt, so that losing it is seen."""
    filled = set()
    for name in NAMES:
        (tmp_path / name).mkdir()
        journal = copy_of(name, tmp_path / name)
        for event in journal.replay(JOB):
            if isinstance(event, AttemptEnded):
                seen, plain = asdict(event.evidence), asdict(Evidence())
                filled |= {field for field in seen if seen[field] != plain[field]}
        journal.close()
    assert filled == {one.name for one in fields(Evidence)}


def test_it_goes_on(journal: Journal) -> None:
    """A newer program appends to the old file."""
    event = journal.replay(JOB)[0]
    journal.append("idle-0a1b2c", event, JobState())
    assert journal.replay("idle-0a1b2c") == [event]


def test_the_golden_file_is_a_single_whole_file(name: str) -> None:
    """It is in WAL mode without a log of its own, and reading it in place changes nothing."""
    file = GOLDEN / f"{name}.sqlite"
    before = file.read_bytes()
    assert sorted(path.name for path in GOLDEN.glob(f"{name}.sqlite*")) == [file.name]
    assert before[18:20] == b"\x02\x02"  # read and write version 2: WAL
    connection = sqlite3.connect(f"file:{file}?immutable=1", uri=True)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("PRAGMA user_version").fetchone() == (int(name[1]),)
    connection.close()
    assert file.read_bytes() == before


def test_the_script_beside_it_still_tells_the_same_story(
    tmp_path: Path, name: str, expected: Any
) -> None:
    """Today's program, told the story again, derives what the golden file holds."""
    script = importlib.import_module(f"tests.golden.journal.make_{name.replace('-', '_')}")
    journal = Journal.open(tmp_path)
    script.write(journal)
    reading = getattr(script, "reading", make_v1.reading)
    told = json.loads(json.dumps(reading(journal, JOB)))
    journal.close()
    assert told["events"] == expected["events"]
    for table in ("attempts", "checkpoints", "ledger"):
        assert_holds(told.get(table), expected.get(table), table)


def test_the_ledger_of_a_batch_job_reads_as_it_did(tmp_path: Path) -> None:
    """Which items there are, which are done, and why some are set aside."""
    journal = copy_of("v2", tmp_path)
    expected = json.loads((GOLDEN / "v2.json").read_text(encoding="utf-8"))["ledger"]
    found = json.loads(json.dumps(make_v2.reading(journal, JOB)["ledger"]))
    journal.close()
    assert_holds(found, expected)


def test_an_older_journal_gets_a_ledger(journal: Journal) -> None:
    """Opened by this program, every version takes a batch job, and older jobs have no items."""
    ledger = journal.ledger("idle-0a1b2c")
    assert ledger.counts().total == 0
    assert max(ledger.plan(['"a"', '"b"'])) == 2
    ledger.settle([2], 10)
    assert ledger.todo() == ((1, 1),)
    assert ledger.results_bytes() == 10
