"""The arithmetic of the four deadlines."""

import pytest

from supervisor.core.deadlines import Deadlines, Timeouts
from supervisor.core.evidence import DeadlineName

TIMEOUTS = Timeouts(startup_s=10.0, heartbeat_s=20.0, stop_s=5.0, total_s=100.0)
NEVER = Timeouts(startup_s=None, heartbeat_s=None, stop_s=0.0, total_s=None)


def test_a_new_worker_has_startup_and_total() -> None:
    """The heartbeat waits for the first sign of progress."""
    assert Deadlines.at_spawn(TIMEOUTS, 1000.0, 0.0) == Deadlines(startup=1010.0, total=1100.0)


@pytest.mark.parametrize(("spent_s", "total"), [(60.0, 1040.0), (100.0, 1000.0), (999.0, 1000.0)])
def test_earlier_attempts_have_taken_of_the_total(spent_s: float, total: float) -> None:
    """What is left of the total is never less than nothing."""
    assert Deadlines.at_spawn(TIMEOUTS, 1000.0, spent_s).total == total


def test_a_sign_ends_startup_and_moves_the_heartbeat_alone() -> None:
    """At most one of startup and heartbeat is armed, and the total stays where it is."""
    armed = Deadlines.at_spawn(TIMEOUTS, 1000.0, 0.0).on_sign(TIMEOUTS, 1003.0)
    assert armed == Deadlines(heartbeat=1023.0, total=1100.0)
    assert armed.on_sign(TIMEOUTS, 1009.0) == Deadlines(heartbeat=1029.0, total=1100.0)


def test_a_stop_leaves_the_grace_alone() -> None:
    """No sign of progress prolongs a stop, and a second stop starts the grace anew."""
    armed = Deadlines(heartbeat=1.0, total=2.0).on_stop(TIMEOUTS, 1000.0)
    assert armed == Deadlines(stop=1005.0)
    assert armed.on_sign(TIMEOUTS, 1001.0) == armed
    assert armed.on_stop(TIMEOUTS, 1003.0) == Deadlines(stop=1008.0)


def test_what_is_never_is_not_armed() -> None:
    """A timeout of None arms nothing, before and after the first sign."""
    armed = Deadlines.at_spawn(NEVER, 1000.0, 50.0)
    assert armed == Deadlines()
    assert armed.on_sign(NEVER, 1000.0) == Deadlines()
    assert armed.next() is None


@pytest.mark.parametrize(
    ("armed", "first"),
    [
        (Deadlines(startup=3.0, total=9.0), (DeadlineName.STARTUP, 3.0)),
        (Deadlines(heartbeat=9.5, total=9.0), (DeadlineName.TOTAL, 9.0)),
        (Deadlines(heartbeat=8.0, total=9.0), (DeadlineName.HEARTBEAT, 8.0)),
        (Deadlines(stop=0.0), (DeadlineName.STOP, 0.0)),
        (Deadlines(), None),
    ],
)
def test_the_first_to_fire(armed: Deadlines, first: tuple[DeadlineName, float] | None) -> None:
    """The earliest of what is armed; an instant of 0 is armed too."""
    assert armed.next() == first


@pytest.mark.parametrize(
    ("name", "armed_s", "never_s"),
    [
        (DeadlineName.STARTUP, 10.0, 0.0),
        (DeadlineName.HEARTBEAT, 20.0, 0.0),
        (DeadlineName.STOP, 5.0, 0.0),
        (DeadlineName.TOTAL, 100.0, 0.0),
    ],
)
def test_the_duration_that_a_deadline_stands_for(
    name: DeadlineName, armed_s: float, never_s: float
) -> None:
    """Each deadline has its own, and what is never armed stands for none."""
    assert TIMEOUTS.of(name) == armed_s
    assert NEVER.of(name) == never_s


@pytest.mark.parametrize(
    ("armed", "name", "after"),
    [
        (
            Deadlines(startup=1.0, total=9.0),
            DeadlineName.STARTUP,
            Deadlines(startup=5.0, total=9.0),
        ),
        (
            Deadlines(heartbeat=1.0, total=9.0),
            DeadlineName.HEARTBEAT,
            Deadlines(heartbeat=5.0, total=9.0),
        ),
        (Deadlines(heartbeat=1.0), DeadlineName.STARTUP, Deadlines(heartbeat=1.0)),
        (Deadlines(startup=1.0), DeadlineName.HEARTBEAT, Deadlines(startup=1.0)),
        (Deadlines(stop=1.0), DeadlineName.STOP, Deadlines(stop=1.0)),
        (Deadlines(total=1.0), DeadlineName.TOTAL, Deadlines(total=1.0)),
        (Deadlines(), DeadlineName.HEARTBEAT, Deadlines()),
    ],
)
def test_only_patience_with_silence_is_prolonged(
    armed: Deadlines, name: DeadlineName, after: Deadlines
) -> None:
    """Startup and heartbeat, where they are armed; no stop and no total is ever put off."""
    assert armed.deferred(name, 5.0) == after
