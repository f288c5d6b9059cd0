"""The last line of a run."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from supervisor.cli.farewell import farewell
from supervisor.core.causes import Cause, State
from supervisor.runner.run import Outcome
from supervisor.spec.job import JobSpec
from supervisor.spec.load import load_job
from tests.unit.cli.batch_story import batch_job, poisoned

NewJob = Callable[..., Any]
MAP = 'map: {entry: "pkg:f", items: "photos/*.jpg"}'
GRADCAM = 'gradcam: {model: "pkg:f", images: "photos/*.jpg"}'


def job_of(story: Any, folder: Path, text: str) -> Any:
    """What the farewell reads of an open job."""
    folder.mkdir(exist_ok=True)
    (folder / "job.yaml").write_text(f"name: sizes\n{text}\n")
    spec: JobSpec = load_job(folder / "job.yaml")
    record = story.journal.job(story.id)
    return SimpleNamespace(
        spec=spec, record=record, journal=story.journal, id=story.id, state_dir=story.state_dir
    )


@pytest.fixture
def told(tmp_path: Path) -> Callable[..., str]:
    """Give the farewell of a story that ends in a state."""

    def tell(story: Any, state: State, text: str = MAP, why: str = "") -> str:
        job = job_of(story, tmp_path / "work", text)
        words = farewell(job, Outcome(state, forced=False, why=why))
        return words.replace(str(story.state_dir), "DIR")

    return tell


def finished(new_job: NewJob) -> Any:
    """Ten items in eight seconds."""
    story = batch_job(new_job).begins(41)
    story.journal.ledger(story.id).settle(range(1, 11), 100)
    return (
        story.at(8)
        .exits(code=0)
        .ends(Cause.COMPLETED, "done", action="finish", exit_code=0, items_done=10, ran_s=8.0)
    )


def test_a_job_that_is_done_says_where_its_results_are(
    new_job: NewJob, told: Callable[..., str]
) -> None:
    """With its speed, and for pictures the page to look at."""
    story = finished(new_job)

    assert told(story, State.SUCCEEDED) == (
        "sizes: 10 of 10 items done, 1.2 items/s, results in out/results.jsonl"
    )
    assert told(story, State.SUCCEEDED, GRADCAM) == (
        "sizes: 10 of 10 items done, 1.2 items/s, results in heat/results.jsonl, "
        "to look at: heat/index.html"
    )


def test_poison_ends_with_the_command_that_tries_it_again(
    new_job: NewJob, told: Callable[..., str]
) -> None:
    """What, where, and what to type."""
    assert told(poisoned(new_job), State.HOLDING) == (
        "sizes: 8 of 10 items done, 1.0 items/s, results in out/results.jsonl; 2 quarantined, "
        "listed in out/quarantine.jsonl\n"
        "  why: supervise --state-dir DIR explain sizes-3fa2c1\n"
        "  to try them again: "
        "supervise --state-dir DIR retry sizes-3fa2c1 --items quarantined"
    )


def test_another_hold_says_why(new_job: NewJob, told: Callable[..., str]) -> None:
    """A full disk is no poison."""
    assert told(batch_job(new_job), State.HOLDING, why="disk_full: no room") == (
        "sizes: 0 of 10 items done; holding, a person is needed: disk_full: no room\n"
        "  When that is mended, run the same command again"
    )


def test_a_failure_names_what_is_left(new_job: NewJob, told: Callable[..., str]) -> None:
    """Items that are done are said to be done."""
    words = told(batch_job(new_job), State.FAILED, why="bad_config: no such module")

    assert words.splitlines()[0] == "sizes: 0 of 10 items done; failed: bad_config: no such module"
    assert words.splitlines()[2].startswith("  to go on with what is left: supervise")


def test_a_stop_is_no_loss(new_job: NewJob, told: Callable[..., str]) -> None:
    """The same command goes on."""
    assert told(batch_job(new_job), State.STOPPED) == (
        "sizes: 0 of 10 items done; stopped. To go on with what is left, run the same command again"
    )


@pytest.mark.parametrize("text", ["command: [x]", MAP])
def test_a_job_without_items_ends_as_any(
    new_job: NewJob, told: Callable[..., str], text: str
) -> None:
    """A command, and a batch job whose items were never read."""
    assert told(new_job(), State.SUCCEEDED, text) == "sizes: done"
