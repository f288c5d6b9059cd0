"""`supervise retry`: which items are meant, and what is said when nothing can be done."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from supervisor.core.item_events import ItemsRequeued
from supervisor.runner.home import JobFolder
from supervisor.runner.locks import hold_runner_lock
from tests.unit.cli.batch_story import poisoned

Supervise = Callable[..., Result]
NewJob = Callable[..., Any]


def requeued(story: Any) -> list[list[int]]:
    """What the journal has of retries."""
    events = story.journal.events(story.id)
    return [json.loads(one.body)["items"] for one in events if one.kind == ItemsRequeued.__name__]


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        (("--items", "quarantined"), [8, 9, 10]),
        (("--items", "9"), [9]),
        (("--items", "photos/010.jpg", "--items", "8"), [10, 8]),
        (("--items", "photos/010.jpg", "8", "010.jpg"), [10, 8]),
        (("--items", "quarantined", "9"), [8, 9, 10]),
    ],
)
def test_quarantined_items_are_tried_again(
    new_job: NewJob, supervise: Supervise, words: tuple[str, ...], numbers: list[int]
) -> None:
    """All, by number or by name: they are to be done again, and the others stay aside."""
    story = poisoned(new_job, aside=3)

    result = supervise("retry", "sizes", *words, "--no-run")

    assert result.exit_code == 0, result.output
    assert requeued(story) == [numbers]
    counts = story.journal.ledger(story.id).counts()
    assert (counts.todo, counts.quarantined) == (len(numbers), 3 - len(numbers))


def test_what_is_tried_again_is_said(new_job: NewJob, supervise: Supervise) -> None:
    """With names, and how many."""
    poisoned(new_job, aside=5)

    told = supervise("retry", "sizes", "--items", "quarantined", "--no-run").output

    assert told == (
        "sizes: 5 items to be tried again: photos/006.jpg, photos/007.jpg, photos/008.jpg"
        " and 2 more\n"
    )


def test_nothing_is_quarantined(new_job: NewJob, supervise: Supervise) -> None:
    """That is no mistake: the command may be given twice."""
    story = poisoned(new_job, aside=1)
    supervise("retry", "sizes", "--items", "quarantined", "--no-run")

    result = supervise("retry", "sizes", "--items", "quarantined", "--no-run")

    assert (result.exit_code, result.output) == (0, "sizes: no item is quarantined\n")
    assert len(requeued(story)) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sizes", "--items", "3"), "not quarantined: photos/003.jpg. An item that is done never"),
        (("sizes", "--items", "77"), "there is no item 77"),
        (("sizes", "--items", "photos/9.jpg"), "no item is called photos/9.jpg (did you mean"),
        (("sizes", "9"), "what is 9 meant to be? Items follow --items"),
        (("other",), "no such job: other"),
    ],
)
def test_what_cannot_be_tried_again_says_why(
    new_job: NewJob, supervise: Supervise, words: tuple[str, ...], message: str
) -> None:
    """Nothing is changed, and the exit code is that of a mistake."""
    story = poisoned(new_job)

    result = supervise("retry", *words, "--no-run")

    assert message in result.output
    assert result.exit_code == 2
    assert requeued(story) == []


def test_other_jobs_have_no_items(three_faults: Any, supervise: Supervise) -> None:
    """Said in words."""
    result = supervise("retry", three_faults.id, "--items", "1")

    assert (result.exit_code, "it is no batch job" in result.output) == (2, True)


def test_a_running_job_is_left_alone(
    new_job: NewJob, supervise: Supervise, state_dir: Path
) -> None:
    """Its runner would not hear of what is journaled behind its back."""
    story = poisoned(new_job)
    story.attempt(1)
    lock = hold_runner_lock(JobFolder.of(state_dir, story.id).runner_lock)

    result = supervise("retry", "sizes", "--items", "quarantined", "--no-run")
    lock.close()

    assert result.exit_code == 2
    assert "is already running" in result.output
    assert "Stop it first, or wait until it is done" in result.output
    assert requeued(story) == []
