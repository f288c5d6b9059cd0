"""The JSON of the reading verbs: names and meanings that other programs rely on."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.unit.cli.batch_story import poisoned

Supervise = Callable[..., Result]

DOCUMENTED = Path(__file__).parents[3] / "docs" / "json.md"
OPEN = ("evidence", "fields")  # documented as a whole
# The least that `show --json` has, by the design.
JOB = ("id", "name", "state", "step", "attempts")
ATTEMPT = (
    "number", "pid", "started_at", "ended_at", "cause", "exit_code", "signal", "decision",
    "reason", "checkpoint", "step",
)  # fmt: skip


def test_show(three_faults: Any, supervise: Supervise) -> None:
    """Every promised key is there, with the value that the story gave it."""
    shown = json.loads(supervise("show", "digits", "--json").stdout)

    assert set(JOB) <= set(shown)
    assert (shown["id"], shown["state"], shown["step"]) == ("digits-3fa2c1", "succeeded", 2700)
    assert [set(ATTEMPT) - set(one) for one in shown["attempts"]] == [set()] * 4
    hung = shown["attempts"][1]
    assert {name: hung[name] for name in ATTEMPT} == {
        "number": 2,
        "pid": 4188,
        "started_at": "2026-03-01T12:00:19.000Z",
        "ended_at": "2026-03-01T12:00:41.000Z",
        "cause": "hang",
        "exit_code": None,
        "signal": 9,
        "decision": "resume",
        "reason": "no sign of progress for 10 s",
        "checkpoint": three_faults.checkpoint(180),
        "step": 300,
    }


def test_the_running_attempt_has_the_step_of_the_job(
    new_job: Callable[..., Any], supervise: Supervise
) -> None:
    """What has not happened yet is null; the step is the last one that the worker told."""
    story = new_job().runner().begins(31)
    story.journal.show_progress(story.id, 77, 900)

    shown = json.loads(supervise("show", "digits", "--json").stdout)
    assert (shown["step"], shown["total"], shown["runner_alive"]) == (77, 900, True)
    only = shown["attempts"][0]
    assert (only["step"], only["cause"], only["ended_at"]) == (77, None, None)


def test_ps(three_faults: Any, new_job: Callable[..., Any], supervise: Supervise) -> None:
    """A list, newest last; a job whose runner is gone says so; no jobs are an empty list."""
    new_job("lost-0c0c0c", name="lost").runner(pid=2**22 - 1).begins(12)

    done, lost = json.loads(supervise("ps", "--json").stdout)
    assert (done["id"], done["attempt"], done["last_cause"]) == (three_faults.id, 4, "completed")
    assert (done["runner_alive"], lost["runner_alive"]) == (None, False)
    assert (lost["state"], lost["attempt"], lost["last_cause"]) == ("running", 1, None)


def test_no_jobs_is_an_empty_list(supervise: Supervise) -> None:
    """Without a state folder, `ps --json` is still JSON, and makes no folder."""
    assert json.loads(supervise("ps", "--json").stdout) == []


def test_events(three_faults: Any, supervise: Supervise) -> None:
    """One object a line, in order, with the fields whole."""
    lines = supervise("events", "digits", "--json").stdout.splitlines()
    events = [json.loads(line) for line in lines]

    assert [set(one) for one in events] == [{"seq", "at", "kind", "fields"}] * len(events)
    assert [one["seq"] for one in events] == sorted(one["seq"] for one in events)
    assert events[-1]["kind"] == "AttemptEnded"
    assert events[-1]["fields"]["evidence"]["done_detail"] == "step 2700 of 2700"
    assert len(events) == len(three_faults.journal.events(three_faults.id))


def test_explain(three_faults: Any, supervise: Supervise) -> None:
    """Start, evidence, files and the next command of each attempt."""
    told = json.loads(supervise("explain", "digits", "--json").stdout)

    crashed, hung, torn, done = told["attempts"]
    assert crashed["start"] == {"restored": False, "rejected": []}
    assert hung["stack"] == str(three_faults.attempt(2).stack)
    assert torn["start"]["restored"]
    assert "cut short" in torn["start"]["rejected"][0]
    assert done["evidence"]["done"] is True
    assert told["next"]["command"].endswith("run /data/digits/job.yaml --fresh")
    one = json.loads(supervise("explain", "digits", "--attempt", "2", "--json").stdout)
    assert [each["number"] for each in one["attempts"]] == [2]


def test_report(three_faults: Any, supervise: Supervise) -> None:
    """Rows and totals as the table has them."""
    told = json.loads(supervise("report", three_faults.id, "--json").stdout)

    assert [row["steps_lost"] for row in told["rows"]] == [60, 120, None, None]
    assert [row["seconds_lost"] for row in told["rows"]] == [7, 23, 9, None]
    assert told["totals"]["faults"] == 3
    assert told["totals"]["goodput"] == pytest.approx(1 - 39 / 81)


def test_logs(three_faults: Any, supervise: Supervise) -> None:
    """One attempt as an object, all of them as a list, none as an empty object."""
    one = json.loads(supervise("logs", "digits", "--attempt", "1", "--json", "-n", "1").stdout)
    every = json.loads(supervise("logs", three_faults.id, "--all", "--json").stdout)

    assert (one["attempt"], one["lines"]) == (1, ["step 240/2700 loss 0.4"])
    assert [each["attempt"] for each in every] == [1, 2, 3, 4]


VERBS = ("show", "ps", "explain", "report")
PAGES = [
    *((verb, kind) for verb in VERBS for kind in ("command", "batch")),
    ("explain --item 9", "batch"),
]


@pytest.mark.parametrize(("verb", "kind"), PAGES)
def test_every_key_is_documented(
    verb: str, kind: str, request: pytest.FixtureRequest, supervise: Supervise
) -> None:
    """docs/json.md names every key that a verb prints (evidence is documented as a whole)."""
    if kind == "batch":
        story = poisoned(request.getfixturevalue("new_job"))
    else:
        story = request.getfixturevalue("three_faults")
    verb, *more = verb.split()
    words = () if verb == "ps" else (story.id, *more)
    known = set(re.findall(r"`(\w+)`", DOCUMENTED.read_text()))

    def keys(value: object) -> set[str]:
        if isinstance(value, dict):
            inner = [keys(one) for name, one in value.items() if name not in OPEN]
            return set(value).union(*inner)
        return set().union(*map(keys, value)) if isinstance(value, list) else set()

    assert keys(json.loads(supervise(verb, *words, "--json").stdout)) - known == set()
