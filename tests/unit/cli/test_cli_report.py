"""What a fault cost: the arithmetic alone."""

from typing import Any

import pytest

from supervisor.journal import AttemptRecord
from supervisor.views.losses import losses, totals

FIELDS = dict.fromkeys(AttemptRecord.__slots__)


def attempt(number: int, spawned: float | None, exited: float | None, **more: Any) -> AttemptRecord:
    """An attempt that ran from `spawned` to `exited`, made progress a second after its start."""
    began = {} if spawned is None else {"progress_s": spawned + 1}
    span = {"spawned_s": spawned, "exited_s": exited, "ended_s": exited, "chosen_s": spawned}
    return AttemptRecord(**FIELDS | span | began | {"job_id": "j", "number": number} | more)


def resumed(step: int, written: float | None) -> dict[str, Any]:
    """The fields of an attempt that began from a checkpoint."""
    return {"resumed_step": step, "resumed_written_s": written, "resumed_path": f"{step}.pt"}


def lost(*attempts: AttemptRecord) -> list[tuple[int | None, float | None]]:
    """Steps and seconds lost, row by row."""
    return [(row.steps_lost, row.seconds_lost) for row in losses(attempts)]


def test_nothing_follows_and_nothing_is_lost() -> None:
    """A lone attempt costs nothing, however it ended."""
    assert lost(attempt(1, 0, 100, step=50, cause="signal")) == [(None, None)]
    assert losses([]) == []


def test_from_the_checkpoint_to_the_next_progress() -> None:
    """Lost are the steps behind the checkpoint, and the time from its writing to new progress."""
    crash = attempt(1, 0, 100, step=240, cause="signal")

    assert lost(crash, attempt(2, 110, None, **resumed(180, 80))) == [(60, 31), (None, None)]


def test_from_the_beginning() -> None:
    """Without a checkpoint everything since the start is lost."""
    crash = attempt(1, 5, 100, step=240, cause="signal")

    assert lost(crash, attempt(2, 110, None))[0] == (240, 106)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (resumed(180, -50), (60, 111)),  # not before it was spawned
        (resumed(180, 105), (60, 11)),  # a file touched after the end: from the end on
        (resumed(180, None), (60, 11)),  # nobody knows when it was written
        (resumed(300, 99), (0, 12)),  # a checkpoint beyond the last step seen
    ],
)
def test_bounds(more: dict[str, Any], expected: tuple[int, float]) -> None:
    """Odd times and steps never make a loss negative or longer than the attempt and its gap."""
    assert lost(attempt(1, 0, 100, step=240), attempt(2, 110, None, **more))[0] == expected


def test_an_unknown_step_is_unknown() -> None:
    """Where no step was seen the steps lost are not known, and the total says so."""
    attempts = [attempt(1, 0, 100), attempt(2, 110, 120, **resumed(0, 50))]

    assert lost(*attempts)[0] == (None, 61)
    assert totals(attempts, 0).uncertain


def test_no_sign_of_progress() -> None:
    """A successor that never got going ends the loss at its start, and begins the next there."""
    attempts = (
        attempt(1, 0, 100, step=9),
        attempt(2, 110, 115, progress_s=None, **resumed(5, 60)),
        attempt(3, 120, None, **resumed(5, 60)),
    )

    assert [seconds for _, seconds in lost(*attempts)] == [50, 11, None]


def test_each_second_counts_once() -> None:
    """Two faults after one checkpoint share no second, so rows add up to less than wall time."""
    attempts = [
        attempt(1, 0, 100, step=9, cause="signal"),
        attempt(2, 110, 200, step=9, cause="hang", **resumed(5, 60)),
        attempt(3, 210, 300, step=20, cause="completed", **resumed(5, 60)),
    ]

    assert [seconds for _, seconds in lost(*attempts)] == [51, 100, None]
    all_ = totals(attempts, until_s=0)
    assert (all_.attempts, all_.faults, all_.wall_s, all_.seconds_lost) == (3, 2, 300, 151)
    assert all_.goodput == pytest.approx(149 / 300)
    assert not all_.uncertain


def test_time_stopped_on_request_is_nobodys_loss() -> None:
    """A night between Ctrl-C and the next run is neither wall time nor lost."""
    attempts = [
        attempt(1, 0, 100, step=9, cause="stopped"),
        attempt(2, 40_100, 40_200, step=20, cause="completed", **resumed(8, 90)),
    ]

    assert lost(*attempts)[0] == (1, 11)
    all_ = totals(attempts, until_s=0)
    assert (all_.faults, all_.wall_s, all_.seconds_lost) == (0, 200, 11)


def test_a_lost_runner_is_a_loss_until_somebody_comes() -> None:
    """Unlike a stop, the night after a crash of the runner is lost; its end is its last words."""
    lost_runner = attempt(1, 0, None, ended_s=40_000, ran_s=100, step=9, cause="runner_lost")
    attempts = [lost_runner, attempt(2, 40_001, 40_100, **resumed(8, 500))]

    assert lost(*attempts)[0] == (1, 39_902)


def test_a_running_attempt_ends_now() -> None:
    """Wall time goes on while an attempt runs; a worker that never came to be has no start."""
    attempts = [attempt(1, None, None, chosen_s=10, ended_s=11, ran_s=0.0), attempt(2, 20, None)]

    all_ = totals(attempts, until_s=120)
    assert all_.wall_s == 110
    assert totals([], 0).goodput is None


def test_a_clock_that_was_set_back() -> None:
    """Times in the wrong order give zero, never a negative number."""
    attempts = [attempt(1, 1000, 1100, step=9), attempt(2, 10, 20, **resumed(5, 1050))]

    assert lost(*attempts)[0] == (4, 0)
    assert totals(attempts, 0).wall_s == 0
