import math

import pytest

from supervisor.spec.problems import BadValue
from supervisor.spec.units import read_duration, read_size, write_duration, write_size

HOUR_S = 3600


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("2h", 2 * HOUR_S),
        ("7d", 7 * 24 * HOUR_S),
        ("1w", 7 * 24 * HOUR_S),
        ("1h30m", 1.5 * HOUR_S),
        ("1h 30m", 1.5 * HOUR_S),
        ("1.5h", 1.5 * HOUR_S),
        ("250ms", 0.25),
        ("0s", 0),
        ("45", 45),
        (45, 45),
        (0.5, 0.5),
    ],
)
def test_a_duration_is_read(text: object, seconds: float) -> None:
    """Every notation that people use becomes float seconds."""
    assert (float, seconds) == (type(read_duration(text)), read_duration(text))


@pytest.mark.parametrize(
    "value",
    [
        *("", "s", "10x", "m10", "1h-30m", "-1s", "1,5h", "1e3s", "\u0663s", "\u0663"),
        *("1h" * 99, "4000d", "9" * 999),
        *(-1, math.nan, math.inf, -math.inf, 1e300),
        *(True, None, [], {}),
    ],
)
def test_what_is_no_duration_is_refused(value: object) -> None:
    """Negative, endless, absurd and misspelt durations are errors with a hint."""
    with pytest.raises(BadValue) as caught:
        read_duration(value)

    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("10 minutes", "write 10m"),
        ("2 Hours", "write 2h"),
        ("1hr30min", "write 1h30m"),
        ("1:30:00", "write 1h30m0s"),
    ],
)
def test_a_misspelt_duration_is_corrected(text: str, hint: str) -> None:
    """The hint says exactly what to write where that is clear."""
    with pytest.raises(BadValue) as caught:
        read_duration(text)

    assert hint == caught.value.hint


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (90, "1m30s"), (1800, "30m"), (604800, "7d"), (0.1, "100ms"), (1.5, "1.5s")],
)
def test_a_duration_is_written_as_people_do(seconds: float, text: str) -> None:
    """Plans and diffs show no bare seconds."""
    assert text == write_duration(seconds)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("512MiB", 512 * 1024**2),
        ("20GiB", 20 * 1024**3),
        ("1GB", 10**9),
        ("1.5 KiB", 1536),
        ("7B", 7),
        (1024, 1024),
    ],
)
def test_a_size_is_read(text: object, count: int) -> None:
    """Sizes become int bytes; GB and GiB are told apart."""
    assert (int, count) == (type(read_size(text)), read_size(text))


@pytest.mark.parametrize(
    "value", ["", "20", "20G", "-1GiB", "GiB", "1Gib", "2000TB", -1, 1.5, True, None]
)
def test_what_is_no_size_is_refused(value: object) -> None:
    """A size without its unit, negative, or beyond all disks is an error with a hint."""
    with pytest.raises(BadValue) as caught:
        read_size(value)

    assert caught.value.hint


def test_an_ambiguous_size_names_both_readings() -> None:
    """`20G` is not guessed at."""
    with pytest.raises(BadValue) as caught:
        read_size("20G")

    assert caught.value.hint == "write 20GiB (1024-based) or 20GB (1000-based)"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0B"), (1, "1B"), (1536, "1536B"), (20 * 1024**3, "20GiB"), (10**9, "1GB")],
)
def test_a_size_is_written_exactly(count: int, text: str) -> None:
    """The largest unit that loses nothing."""
    assert text == write_size(count)
