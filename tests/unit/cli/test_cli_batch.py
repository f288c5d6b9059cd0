"""What the reading verbs say of a batch job."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from supervisor.core.causes import Action, Cause
from supervisor.core.item_events import ItemsRequeued, WorkerReplaced
from supervisor.views.frozen import said
from tests.unit.cli.batch_story import (
    MAP,
    MIB,
    batch_job,
    outputs,
    poisoned,
    quarantined,
    replaced,
    suspected,
)

Supervise = Callable[..., Result]
Compare = Callable[[str, str], None]
NewJob = Callable[..., Any]


@pytest.mark.parametrize("verb", ["show", "explain", "report", "events"])
@pytest.mark.parametrize("columns", [None, 80])
def test_a_poisoned_job(
    verb: str, columns: int | None, new_job: NewJob, supervise: Supervise, assert_golden: Compare
) -> None:
    """Counts, poison with its reasons, a leak and what to type next, told by every verb."""
    story = poisoned(new_job)
    outputs(story)
    story.at(60)

    result = supervise(verb, "sizes", columns=columns)

    assert result.exit_code == 0
    # The command to type next holds the state folder, and wraps where its length says.
    told = result.output.partition("  next  ")[0]
    assert_golden(f"batch-{verb}-{columns or 'pipe'}", told)


def test_ps_counts_items(new_job: NewJob, supervise: Supervise) -> None:
    """Items done of items in all stand where other jobs have their steps."""
    poisoned(new_job)

    assert "8/10" in supervise("ps").output.splitlines()[1].split()


def test_show_names_the_first_quarantined_and_counts_the_rest(
    new_job: NewJob, supervise: Supervise
) -> None:
    """Nobody scrolls through a thousand names; the file has all of them."""
    poisoned(new_job, aside=25, items=30)

    lines = supervise("show", "sizes").output.splitlines()

    assert sum("(item " in line for line in lines) == 20
    assert "  and 5 more: out/quarantine.jsonl" in lines


def test_show_as_json(new_job: NewJob, supervise: Supervise) -> None:
    """Counts, every quarantined item with its evidence, and what workers leaked."""
    story = poisoned(new_job)

    shown = json.loads(supervise("show", "sizes", "--json").stdout)

    assert (shown["step"], shown["total"], shown["command"]) == (8, 10, [])
    assert shown["items"] == {
        "total": 10,
        "done": 8,
        "left": 0,
        "suspect": 0,
        "quarantined": 2,
        "gone": 0,
        "repeated": 0,
    }
    assert shown["quarantined"][0] == {
        "number": 9,
        "item": "photos/009.jpg",
        "cause": "signal",
        "reason": "killed by SIGSEGV",
        "detail": quarantined(9).detail,  # type: ignore[attr-defined] - of this event
        "attempt": 1,
        "at": "2026-03-01T12:00:04.000Z",
    }
    assert [one["number"] for one in shown["quarantined"]] == [9, 10]
    assert shown["results"] == str(story.folder / "out" / "results.jsonl")
    assert shown["workers_replaced"] == {
        "count": 1,
        "failed": 0,
        "host_leak_bytes": 2 * MIB,
        "gpu_leak_bytes": None,
    }


def test_other_jobs_have_no_items(three_faults: Any, supervise: Supervise) -> None:
    """The keys are there, and null."""
    shown = json.loads(supervise("show", three_faults.id, "--json").stdout)

    assert (shown["items"], shown["quarantined"], shown["results"]) == (None, None, None)
    assert json.loads(supervise("report", three_faults.id, "--json").stdout)["batch"] is None


def test_nothing_done_is_lost(new_job: NewJob, supervise: Supervise) -> None:
    """A report of a batch job counts the time between attempts, and no item twice."""
    story = batch_job(new_job).begins(41).at(10).exits(signal=9)
    story.ends(Cause.SIGNAL, "killed", signal=9, items_done=4, step=4, ran_s=10.0)
    story.at(15).runner().begins(42).at(16).progressed().at(20).exits(code=0)
    story.ends(Cause.COMPLETED, "done", action=Action.FINISH, items_done=6, ran_s=5.0)

    told = json.loads(supervise("report", "sizes", "--json").stdout)

    assert told["totals"]["steps_lost"] == 0
    assert told["totals"]["seconds_lost"] == 6.0
    assert told["batch"]["items_per_s"] == pytest.approx(10 / 15)


def test_a_rest_is_no_loss(new_job: NewJob, supervise: Supervise) -> None:
    """While a job waits for a person, or for new items, nothing is lost."""
    story = poisoned(new_job)
    story.at(500).runner().begins(42).at(501).progressed().at(502).exits(code=0)
    story.ends(Cause.COMPLETED, "done", action=Action.FINISH, items_done=2, ran_s=2.0)

    assert json.loads(supervise("report", "sizes", "--json").stdout)["totals"][
        "seconds_lost"
    ] == pytest.approx(1.0)


@pytest.mark.parametrize("which", ["9", "photos/009.jpg", '"photos/009.jpg"', "009.jpg"])
def test_the_story_of_one_item(new_job: NewJob, supervise: Supervise, which: str) -> None:
    """By number, by name, as JSON or by the name of a quarantined file: its whole story."""
    story = poisoned(new_job)
    folder = story.attempt(1).path / "items" / "9"
    folder.mkdir(parents=True)
    (folder / "stack.txt").write_text("Thread 1\n")

    told = supervise("explain", "sizes", "--item", which).output

    assert told.startswith("photos/009.jpg  item 9 of sizes-3fa2c1: quarantined\n")
    for words in (
        "12:00:03, attempt 1, worker 1: one of 2, tried apart",
        "12:00:04, attempt 1, worker 1: photos/009.jpg, to be tried alone",
        "12:00:04, attempt 1, worker 4: photos/009.jpg, it failed alone too",
        "Fatal Python error: Segmentation fault",
        f"{folder}/stack.txt",
        "retry sizes-3fa2c1 --items 9",
    ):
        assert words in told


def test_the_story_of_one_item_as_json(new_job: NewJob, supervise: Supervise) -> None:
    """Its state, its events and its evidence."""
    poisoned(new_job)

    told = json.loads(supervise("explain", "sizes", "--item", "10", "--json").stdout)

    assert (told["number"], told["item"], told["state"]) == (10, "photos/010.jpg", "quarantined")
    kinds = [one["kind"] for one in told["events"]]
    assert kinds == ["ItemsSuspected", "ItemsSuspected", "ItemQuarantined"]
    assert (told["quarantined"]["cause"], told["files"]) == ("signal", [])


def test_items_in_every_state(new_job: NewJob, supervise: Supervise) -> None:
    """Done, left, suspect and requeued items each say where they stand."""
    story = batch_job(new_job).begins(41).saw(suspected(2, 3), quarantined(4))
    story.journal.ledger(story.id).settle([1], 10)
    story.at(9).exits(signal=9).ends(Cause.SIGNAL, "killed", action=Action.HOLD, signal=9)
    story.at(10).saw(ItemsRequeued((4,), "retry"))

    states = {
        number: supervise("explain", "sizes", "--item", number).output.splitlines()
        for number in "12345"
    }

    assert [lines[0].rpartition(" ")[2] for lines in states.values()] == [
        "done",
        "suspect",
        "suspect",
        "left",
        "left",
    ]
    assert "  retry     12:00:10, a person asked for it" in states["4"]
    assert "  It is done: its result is in the results, and it never runs again." in states["1"]


@pytest.mark.parametrize(
    ("which", "message"),
    [("photos/09.jpg", "did you mean photos/009.jpg"), ("77", "there is no item 77")],
)
def test_an_item_that_there_is_not(
    new_job: NewJob, supervise: Supervise, which: str, message: str
) -> None:
    """A slip of a name is answered with the name that may have been meant."""
    poisoned(new_job)

    result = supervise("explain", "sizes", "--item", which)

    assert result.exit_code == 2
    assert message in result.output


def test_an_item_may_be_named_from_where_the_person_is(
    new_job: NewJob, supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its path is understood from the current folder too, and when it is whole."""
    story = poisoned(new_job)
    photos = story.folder / "photos"
    photos.mkdir(parents=True)
    monkeypatch.chdir(photos)

    assert "item 9 of" in supervise("explain", "sizes", "--item", "009.jpg").output
    assert "item 3 of" in supervise("explain", "sizes", "--item", "003.jpg").output
    assert "item 3 of" in supervise("explain", "sizes", "--item", f"{photos}/003.jpg").output


def test_a_job_without_items_has_no_item(three_faults: Any, supervise: Supervise) -> None:
    """Said in words, with the exit code of a mistake."""
    result = supervise("explain", three_faults.id, "--item", "1")

    assert (result.exit_code, "has no items: it is no batch job" in result.output) == (2, True)


def test_a_flood_of_suspects_is_cut_short(new_job: NewJob, supervise: Supervise) -> None:
    """The first ten, then a count and where the rest is."""
    story = batch_job(new_job, items=40).begins(41)
    story.saw(*(suspected(one, one) for one in range(1, 31)))

    told = supervise("explain", "sizes").output

    assert told.count("to be tried alone") == 10
    assert "and 20 more: supervise --state-dir" in told


def test_a_worker_that_failed_is_told_as_such(new_job: NewJob, supervise: Supervise) -> None:
    """Apart from one that was replaced in time."""
    ended = WorkerReplaced(1, 3, Cause.HANG, "no item finished for 9 s", 7, 12.0)
    batch_job(new_job).begins(41).saw(replaced(), ended)

    told = supervise("explain", "sizes").output
    page = supervise("show", "sizes").output

    assert "worker 3 ended after 7 items, hang: no item finished for 9 s" in told
    assert "worker 2 was replaced after 32 items: its host memory grew" in told
    assert "2 replaced, 1 of them because they failed" in page


@pytest.mark.parametrize(
    ("action", "cause", "words"),
    [
        (Action.FINISH, Cause.COMPLETED, "All its items are done. When there are new ones"),
        (Action.GIVE_UP, Cause.BAD_CONFIG, "the same command does what is left"),
        (Action.HOLD, Cause.DISK_FULL, "It goes on by itself when there is room"),
        (None, Cause.POISON_ITEM, "A person is needed: 1 item is quarantined. When their cause"),
    ],
)
def test_what_to_do_next(
    new_job: NewJob, supervise: Supervise, action: Action | None, cause: Cause, words: str
) -> None:
    """Each end of a batch job has its next step."""
    if action is None:
        poisoned(new_job, aside=1)
    else:
        batch_job(new_job).begins(41).at(3).exits(code=0).ends(cause, "so it is", action=action)

    assert words in " ".join(supervise("show", "sizes").output.split())


def test_a_gradcam_says_what_it_calls(new_job: NewJob, supervise: Supervise) -> None:
    """Method, model and images; its pictures are shown where there is a page of them."""
    given = {"model": "pkg:build", "images": "photos/*.jpg", "out": "heat/", "method": "layercam"}
    story = new_job(command=None, gradcam=given, cwd="sub")
    heat = story.folder / "sub" / "heat"
    heat.mkdir(parents=True)
    (heat / "index.html").touch()

    told = supervise("show", story.id).output

    assert "layercam of pkg:build for photos/*.jpg" in told
    assert "sub/heat/index.html" in told
    assert "not counted yet" in told


def test_a_damaged_batch_job_is_listed_all_the_same(new_job: NewJob, supervise: Supervise) -> None:
    """A frozen spec that cannot be read leaves its fields empty."""
    story = new_job(command=None, map={"items": 3})

    assert said(story.journal.job(story.id)).calls == ""
    assert supervise("show", story.id).exit_code == 0


def test_numbers_are_items_before_they_are_numbers(new_job: NewJob, supervise: Supervise) -> None:
    """A source of numbers as names is not misread."""
    story = new_job("n-1", name="n", command=None, map=MAP)
    for _ in story.journal.ledger(story.id).plan(['"2"', '{"a":1}', '"x"']):
        pass

    assert supervise("explain", "n", "--item", "2").output.startswith("2  item 1 of")
    assert supervise("explain", "n", "--item", '{ "a": 1 }').output.startswith('{"a":1}  item 2')
    assert supervise("explain", "n", "--item", "3").output.startswith("x  item 3 of")
