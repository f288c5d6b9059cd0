"""What follows when a runner is gone: the whole table, row by row."""

import pytest

from supervisor.core.causes import State
from supervisor.daemon.ending import LOST_LIMIT, Around, Next, after_runner, lost_after, wait_s
from supervisor.queue.model import Entry, Needs, Phase, Wish

UNFINISHED = [State.QUEUED, State.RUNNING, State.BACKING_OFF, State.STOPPING]


def entry(wish: Wish = Wish.RUN, lost: int = 0) -> Entry:
    """A started job."""
    return Entry(
        id="job-1",
        seq=1,
        uid=0,
        name="job",
        folder="/job",
        needs=Needs(),
        submitted_s=0.0,
        queued_s=0.0,
        phase=Phase.STARTED,
        wish=wish,
        lost=lost,
    )


def follows(state: State, wish: Wish = Wish.RUN, *, leaving: bool = False, lost: int = 0) -> Next:
    """What follows where its journal has it in this state."""
    return after_runner(entry(wish, lost), Around(state, 1.0, leaving))


@pytest.mark.parametrize("leaving", [False, True])
@pytest.mark.parametrize("wish", list(Wish))
@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.CANCELLED, State.HOLDING])
def test_what_is_at_its_end_has_ended(state: State, wish: Wish, *, leaving: bool) -> None:
    """Whatever becomes of the daemon. Only who is to be cancelled must not be resumable."""
    settles = wish is Wish.CANCEL and state in {State.FAILED, State.HOLDING}
    expected = Next.SETTLE if settles else Next.END
    assert follows(state, wish, leaving=leaving) is expected


@pytest.mark.parametrize(
    ("wish", "leaving", "expected"),
    [
        (Wish.RUN, False, Next.END),  # somebody signalled its runner: a person decides
        (Wish.RUN, True, Next.PARK),  # the daemon or the host stopped it: it goes on afterwards
        (Wish.STOP, False, Next.END),
        (Wish.STOP, True, Next.END),  # its owner had stopped it: a reboot does not start it
        (Wish.CANCEL, False, Next.SETTLE),
        (Wish.CANCEL, True, Next.SETTLE),
    ],
)
def test_a_stopped_job(wish: Wish, *, leaving: bool, expected: Next) -> None:
    """Who stopped it decides whether it goes on by itself."""
    assert follows(State.STOPPED, wish, leaving=leaving) is expected


@pytest.mark.parametrize("state", UNFINISHED)
@pytest.mark.parametrize("wish", list(Wish))
def test_a_runner_that_died_is_replaced(state: State, wish: Wish) -> None:
    """Also where the job is to stop: only a runner sees out what the worker left."""
    assert follows(state, wish) is Next.AGAIN


@pytest.mark.parametrize("state", UNFINISHED)
def test_after_a_reboot_a_running_job_takes_its_old_place(state: State) -> None:
    """It is planned with all others, in the old order."""
    assert follows(state, leaving=True) is Next.PARK


@pytest.mark.parametrize("wish", [Wish.STOP, Wish.CANCEL])
def test_after_a_reboot_a_job_that_was_to_stop_is_seen_out(wish: Wish) -> None:
    """A runner concludes the lost attempt, and is told to stop."""
    assert follows(State.STOPPING, wish, leaving=True) is Next.AGAIN


def test_runners_that_die_at_once_are_given_up() -> None:
    """After so many in a row that each lived for less than a minute."""
    assert follows(State.QUEUED, lost=LOST_LIMIT - 2) is Next.AGAIN
    assert follows(State.QUEUED, lost=LOST_LIMIT - 1) is Next.GIVE_UP
    assert follows(State.QUEUED, Wish.CANCEL, lost=LOST_LIMIT - 1) is Next.SETTLE


def test_a_runner_that_lived_long_begins_the_count_anew() -> None:
    """A job of weeks may lose many runners."""
    assert after_runner(entry(lost=9), Around(State.RUNNING, 61.0, leaving=False)) is Next.AGAIN
    assert lost_after(entry(lost=9), 61.0) == 1
    assert lost_after(entry(lost=2), 1.0) == 3


def test_the_wait_grows_to_a_bound() -> None:
    """The first death costs nothing, later ones ever more."""
    assert [wait_s(lost) for lost in (0, 1, 2, 3, 4, 20)] == [0.0, 0.0, 1.0, 2.0, 4.0, 60.0]
