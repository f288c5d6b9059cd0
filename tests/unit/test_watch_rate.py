import pytest

from supervisor.watch.rate import Pace


def paced(*samples: tuple[int, float], window_s: float = 60.0) -> Pace:
    """A pace that has seen the given (step, time) pairs."""
    pace = Pace(window_s)
    for step, now in samples:
        pace.observe(step, now)
    return pace


def test_a_steady_job_has_its_rate_and_eta() -> None:
    """Ten steps a second leave 90 seconds for 900 steps."""
    pace = paced(*((10 * second, 100.0 + second) for second in range(11)))
    assert pace.steps_per_s(110.0) == pytest.approx(10)
    assert pace.eta_s(1000, 110.0) == pytest.approx(90)


@pytest.mark.parametrize("samples", [[], [(5, 1.0)], [(5, 1.0), (5, 9.0)], [(5, 1.0), (9, 1.0)]])
def test_one_point_makes_no_rate(samples: list[tuple[int, float]]) -> None:
    """Before two different steps at two different times nobody can tell."""
    pace = paced(*samples)
    assert pace.steps_per_s(10.0) is None
    assert pace.eta_s(100, 10.0) is None


def test_old_speed_is_forgotten() -> None:
    """A slow start does not weigh on the rate once it has left the window."""
    pace = paced((0, 0.0), (1, 100.0), *((1 + 10 * n, 100.0 + n) for n in range(1, 70)))
    assert pace.steps_per_s(169.0) == pytest.approx(10, rel=0.05)


def test_a_resume_starts_anew() -> None:
    """A step that goes back is a resume: neither a negative rate nor one across the gap."""
    pace = paced((500, 0.0), (600, 10.0), (540, 60.0))
    assert pace.steps_per_s(60.0) is None
    pace.observe(560, 62.0)
    assert pace.steps_per_s(62.0) == pytest.approx(10)


def test_a_stall_lets_the_rate_sink() -> None:
    """Silence within the usual gap changes nothing; longer silence stretches the ETA."""
    pace = paced((0, 0.0), (10, 1.0), (20, 2.0))
    assert pace.steps_per_s(3.0) == pytest.approx(10)
    assert pace.steps_per_s(13.0) == pytest.approx(20 / 12)
    assert pace.eta_s(120, 13.0) == pytest.approx(60)


def test_a_step_said_again_is_no_progress() -> None:
    """A bar redrawn at the same step is as good as silence."""
    pace = paced((0, 0.0), (10, 1.0), *((10, float(n)) for n in range(2, 30)))
    assert pace.steps_per_s(30.0) == pytest.approx(10 / 29)


def test_a_slow_cadence_has_a_rate() -> None:
    """A job that reports once an hour is not thrown out of a window of one minute."""
    pace = paced((1, 0.0), (2, 3600.0), (3, 7200.0))
    assert pace.steps_per_s(7200.0) == pytest.approx(1 / 3600)


def test_a_fast_job_keeps_few_samples() -> None:
    """A thousand observations a second do not grow the memory, nor bend the rate."""
    pace = paced(*((n, n / 1000) for n in range(100_000)))
    assert len(pace._samples) < 130
    assert pace.steps_per_s(100.0) == pytest.approx(1000, rel=0.01)


def test_the_end_is_now() -> None:
    """At or past the total nothing is left; without a total there is no ETA."""
    pace = paced((990, 0.0), (1000, 1.0))
    assert pace.eta_s(1000, 1.0) == 0.0
    assert pace.eta_s(900, 1.0) == 0.0
    assert pace.eta_s(None, 1.0) is None


def test_a_clock_that_goes_back_does_no_harm() -> None:
    """An instant before the last one counts as the last one."""
    pace = paced((0, 10.0), (10, 11.0), (20, 5.0))
    assert pace.steps_per_s(5.0) == pytest.approx(20)
