"""`heartbeat: auto`: what a job's own rhythm teaches."""

import pytest

from supervisor.core.cadence import ENOUGH_GAPS, LONGEST_S, SHORTEST_S, WARM_UP_GAPS, Cadence


def signs(gaps_s: list[float], cadence: Cadence | None = None, start: float = 0.0) -> Cadence:
    """What is known after signs with these gaps between them."""
    cadence = (cadence or Cadence()).sign(start)
    for gap_s in gaps_s:
        start += gap_s
        cadence = cadence.sign(start)
    return cadence


WARM_UP = [1.0] * WARM_UP_GAPS


@pytest.mark.parametrize(
    ("longest_s", "timeout_s"),
    [(30.0, SHORTEST_S), (120.0, 600.0), (130.0, 650.0), (200.0, 1000.0), (900.0, LONGEST_S)],
)
def test_five_times_the_longest_gap(longest_s: float, timeout_s: float) -> None:
    """Within the bounds, the timeout is five times the longest gap that was seen."""
    learned = signs([*WARM_UP, *[30.0] * (ENOUGH_GAPS - 1), longest_s])

    assert learned.timeout_s == timeout_s


def test_little_is_known_at_first() -> None:
    """Until enough gaps were seen, the warm-up not counted, the long timeout holds."""
    known = signs([*WARM_UP, *[60.0] * (ENOUGH_GAPS - 1)])

    assert Cadence().timeout_s == known.timeout_s == LONGEST_S
    assert known.sign(60.0 * ENOUGH_GAPS + sum(WARM_UP)).timeout_s == SHORTEST_S


def test_many_lines_in_a_minute_are_no_cadence() -> None:
    """A chatty start does not shorten what a quiet phase after it may take."""
    assert signs([0.1] * 500).timeout_s == LONGEST_S
    assert signs([0.1] * 500 + [1.0] * 600).timeout_s == SHORTEST_S


def test_a_long_warm_up_counts() -> None:
    """A first step that compiles for minutes will come again with every attempt."""
    learned = signs([200.0, 1.0, 1.0, *[40.0] * ENOUGH_GAPS])

    assert learned.timeout_s == 1000.0


def test_what_one_attempt_taught_holds_for_the_next() -> None:
    """The longest gap is the job's; the pause between two attempts is none."""
    first = signs([*WARM_UP, *[40.0] * ENOUGH_GAPS, 180.0])
    second = first.interrupted().sign(100_000.0)

    assert first.timeout_s == second.timeout_s == 900.0
    assert signs([*[400.0] * WARM_UP_GAPS], first.interrupted()).gaps == first.gaps


def test_a_clock_that_steps_back_teaches_nothing() -> None:
    """A gap is never negative."""
    assert Cadence().sign(100.0).sign(90.0).longest_s == 0.0
