"""What the owner of a job is told to type, wherever the job was started and wherever it is read."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.causes import State
from supervisor.host import identity
from supervisor.journal import JobRecord, Journal
from supervisor.runner.home import default_state_dir
from supervisor.views import frozen, plain
from supervisor.views.chosen import Chosen
from supervisor.views.next_step import QUEUED, RUNNER_GONE, TAKEN_UP, next_step, note

GONE = 2**22 - 1  # a pid that no process has
FOLDER = Path("/data/digits")
JOB = {
    "source": str(FOLDER / "job.yaml"),
    "command": ["python", "train.py"],
    "folder": str(FOLDER),
    "params": {},
    "values": {"lr": "0.1"},
}

Choose = Callable[..., Chosen]


@pytest.fixture(name="choose")
def _choose(tmp_path: Path) -> Iterator[Choose]:
    journal = Journal.open(tmp_path / "state")

    def choose(state: State, *, submitted: bool = False, **more: Any) -> Chosen:
        spec = json.dumps({"format": 5, "job": JOB})
        record = JobRecord(
            "digits-3fa2c1", "digits", str(FOLDER), spec, 1.0, 1.0, state, "no room", 40, 100,
            *(None, None, None),
        )  # fmt: skip
        chosen = Chosen(tmp_path / "state", journal, replace(record, **more))
        if submitted:
            chosen.folder.path.mkdir(parents=True)
            chosen.folder.surroundings.write_text("{}")
        return chosen

    yield choose
    journal.close()


@pytest.mark.parametrize("state", [State.HOLDING, State.STOPPED, State.FAILED])
def test_who_resumes_a_job(state: State, choose: Choose) -> None:
    """`run` with the same file, or the daemon, if it has the job."""
    of_run, of_daemon = next_step(choose(state)), next_step(choose(state, submitted=True))
    assert "he same command" in of_run.words
    assert str(of_run.command).endswith("run /data/digits/job.yaml -p lr=0.1")
    assert "his command" in of_daemon.words
    assert str(of_daemon.command).endswith("resume digits-3fa2c1")


def test_without_a_checkpoint_that_verifies_there_are_two_ways_on(choose: Choose) -> None:
    """The same command alone would hold for ever."""
    why = "none of 2 checkpoints verifies; it does not start from zero by itself"
    step = next_step(choose(State.HOLDING, why=why))
    assert "run /data/digits/job.yaml -p lr=0.1 resumes from it" in step.words
    assert str(step.command).endswith("run /data/digits/job.yaml -p lr=0.1 --fresh")


@pytest.mark.parametrize(("submitted", "how"), [(False, "run"), (True, "submit")])
def test_anew(submitted: bool, how: str, choose: Choose) -> None:  # noqa: FBT001 - a parameter of the test
    """A job that is done is given again to whoever had it."""
    step = next_step(choose(State.SUCCEEDED, submitted=submitted))

    assert str(step.command).endswith(f"{how} /data/digits/job.yaml -p lr=0.1 --fresh")


@pytest.mark.parametrize(
    ("state", "submitted", "pid", "said", "command"),
    [
        (State.QUEUED, True, None, QUEUED, "ps"),
        (State.RUNNING, True, GONE, TAKEN_UP, "daemon status"),
        (State.RUNNING, False, GONE, RUNNER_GONE, "run /data/digits/job.yaml -p lr=0.1"),
        (State.STOPPED, True, None, None, "resume digits-3fa2c1"),
    ],
)
def test_nobody_looks_after_it(  # noqa: PLR0917 - one row of the table
    state: State,
    submitted: bool,  # noqa: FBT001 - as above
    pid: int | None,
    said: str | None,
    command: str,
    choose: Choose,
) -> None:
    """A job in the daemon's queue is not lost; one of `run` is."""
    chosen = choose(
        state, submitted=submitted, runner_pid=pid, runner_ticks=1, boot_id=identity.boot_id()
    )

    assert note(chosen) == said
    assert str(next_step(chosen).command).endswith(command)


def test_paths_are_whole_unless_the_reader_s_folder_is_known(choose: Choose) -> None:
    """A daemon knows nothing of where a command will be typed."""
    chosen = choose(State.STOPPED)
    there = replace(chosen, here=FOLDER)

    assert " run /data/digits/job.yaml " in str(next_step(chosen).command)
    assert " run job.yaml " in str(next_step(there).command)


@pytest.mark.parametrize(
    ("state_dir", "expected"),
    [
        (Path("/var/lib/supervise/users/1000"), "supervise ps"),
        (Path("/elsewhere"), "supervise --state-dir /elsewhere ps"),
    ],
)
def test_whether_the_state_folder_is_named(state_dir: Path, expected: str) -> None:
    """Not where every command finds it by itself."""
    assert frozen.verb(state_dir, "ps") == expected
    assert frozen.verb(default_state_dir().absolute(), "ps") == "supervise ps"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("plain", "plain"), ("\x1b[31mred\x1b[0m", "red"), ("a\nb\x07", "a b"), ("\x1b]0;t", "]0;t")],
)
def test_nothing_steers_the_terminal(text: str, expected: str) -> None:
    """Escape sequences and control characters of others never reach it."""
    assert plain.printable(text) == expected
