"""What people see, whole. Widths: None is a pipe, where nothing is cut."""

from collections.abc import Callable
from typing import Any

import click
import pytest
from click.testing import Result

from supervisor.cli.main import VERBS, cli
from supervisor.core.causes import Action, Cause, State
from supervisor.core.events import CheckpointChosen, HoldRequired, RejectedCheckpoint
from supervisor.views import next_step

Supervise = Callable[..., Result]
Compare = Callable[[str, str], None]


def test_help(supervise: Supervise, assert_golden: Compare) -> None:
    """The page that a bare `supervise --help` prints."""
    assert_golden("help", supervise("--help").output)


@pytest.mark.parametrize("verb", ["show", "explain", "report", "events"])
def test_a_job_with_three_faults(
    verb: str, three_faults: Any, supervise: Supervise, assert_golden: Compare
) -> None:
    """A crash, a hang, a torn checkpoint and a full GPU, told by every verb at every width."""
    three_faults.at(400)
    for columns in (None, 80, 120):
        result = supervise(verb, "digits", columns=columns)

        assert result.exit_code == 0
        assert_golden(f"{verb}-{columns or 'pipe'}", result.output)


def test_all_logs(three_faults: Any, supervise: Supervise, assert_golden: Compare) -> None:
    """Every attempt's output under its title."""
    assert_golden("logs-all", supervise("logs", "digits", "--all").output)


@pytest.mark.parametrize("columns", [None, 80])
def test_a_list_of_jobs(
    columns: int | None, new_job: Callable[..., Any], supervise: Supervise, assert_golden: Compare
) -> None:
    """Jobs in every kind of state; the folder gives way on a narrow terminal."""
    new_job("held-0a0a0a", name="held", folder="/data/held").runner().saw(
        HoldRequired(Cause.DISK_FULL, "no room for a copy")
    )
    lives = new_job("lives-0b0b0b", name="lives", folder="/data/lives")
    lives.at(60).runner().begins(11).verified(90)
    lost = new_job("lost-0c0c0c", name="lost", folder="/data/lost")
    lost.at(120).runner(pid=2**22 - 1).begins(12)
    lost.journal.show_progress(lost.id, 1234, 90_000)
    new_job("new-0d0d0d", name="new", folder="/data/a/very/deep/folder/of/many/words")
    lost.at(4000)
    assert_golden(f"ps-{columns or 'pipe'}", supervise("ps", columns=columns).output)


ENDS = {
    "failed": (Action.GIVE_UP, "a restart cannot help", "train.py: can't open file"),
    "holding": (Action.HOLD, "a person is needed", "No space left on device"),
    "backing-off": (Action.RESUME, "restart 1 of 5 without progress", "exit code 1"),
}


@pytest.mark.parametrize("name", ENDS)
def test_explain_says_what_to_do(
    name: str, new_job: Callable[..., Any], supervise: Supervise, assert_golden: Compare
) -> None:
    """The last paragraph names the state's way out, with the command to type."""
    action, words, reason = ENDS[name]
    story = new_job(values={"lr": "0.05"}, params={"lr": {"default": 0.1}}).runner()
    story.begins(31).at(3).exits(code=1)
    story.ends(Cause.EXIT_CODE, reason, action=action, words=words, exit_code=1, ran_s=3.0)
    assert_golden(f"explain-{name}", supervise("explain", "digits").output)


def test_explain_of_a_running_and_of_a_lost_job(
    new_job: Callable[..., Any], supervise: Supervise, assert_golden: Compare
) -> None:
    """While it runs there is no cause; when its runner is gone, that is said, with the way out."""
    new_job().runner().begins(31).verified(90)
    new_job("lost-0c0c0c", name="lost").runner(pid=2**22 - 1).begins(12)
    assert_golden("explain-running", supervise("explain", "digits").output)
    assert_golden("explain-lost", supervise("explain", "lost").output)


def test_explain_of_a_stopped_job(
    stopped: Any, supervise: Supervise, assert_golden: Compare
) -> None:
    """A stop on request is no fault, and the same command resumes it."""
    stopped.at(60)
    assert_golden("explain-stopped", supervise("explain", "digits", columns=80).output)


def test_every_state_has_its_next_step() -> None:
    """No state of the contract leaves its owner without an answer."""
    assert set(next_step._BY_STATE) == set(State)


def test_an_attempt_that_never_was(three_faults: Any, supervise: Supervise) -> None:
    """Asking for it is a usage error that says how many there were."""
    result = supervise("explain", three_faults.id, "--attempt", "5")

    assert result.exit_code == 2
    assert "has no attempt 5: it has had 4" in result.stderr


def test_what_was_bad_before_the_last_start_is_history(
    new_job: Callable[..., Any], supervise: Supervise
) -> None:
    """A checkpoint that made the job hold is told while it holds, not after it went on."""
    story = new_job()
    bad = RejectedCheckpoint(story.checkpoint(90), 90, "it is cut short")
    story.runner().saw(CheckpointChosen(None, None, 1, rejected=(bad,)))
    held = supervise("explain", "digits").output
    story.at(5).runner().begins(31, (80, 1))
    went_on = supervise("explain", "digits").output

    assert "checkpoint out/ckpt-000090.pt does not verify: it is cut short" in held
    assert "does not start from zero by itself" in held
    assert "ckpt-000090" not in went_on


@pytest.mark.parametrize(
    ("text", "default", "said"),
    [
        ("0.05", 0.1, " -p lr=0.05"),
        ("0.1", 0.1, ""),
        ("true", True, ""),
        ("a b", "", " -p 'lr=a b'"),
    ],
)
def test_the_command_to_type_has_the_params(
    text: str, default: object, said: str, new_job: Callable[..., Any], supervise: Supervise
) -> None:
    """What differs from its default must be given again, quoted; the rest need not."""
    new_job(values={"lr": text}, params={"lr": {"default": default}}, folder="/data/digits")

    output = supervise("explain", "digits").output
    assert output.splitlines()[-1].endswith(f" run /data/digits/job.yaml{said}")


def test_the_table_of_verbs_is_complete() -> None:
    """Every verb named in the help page can be imported and has a help page of its own."""
    context = click.Context(cli)
    for verb in cli.list_commands(context):
        command = cli.get_command(context, verb)
        assert command is not None
        assert command.help
    assert {verb for section in VERBS.values() for verb in section} == set(
        cli.list_commands(context)
    )
