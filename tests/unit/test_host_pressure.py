"""What is made of the kernel's pressure files."""

from pathlib import Path

from supervisor.host.pressure import Pressure, pressure


def test_the_last_ten_seconds_are_told(tmp_path: Path) -> None:
    """Each resource's share of the last ten seconds is read; cpu has no `full` on older kernels."""
    shares = "{} avg10={} avg60=9.00 avg300=8.00 total=7\n"
    (tmp_path / "cpu").write_text(shares.format("some", "1.50"))
    (tmp_path / "memory").write_text(shares.format("some", "2.00") + shares.format("full", "0.25"))
    (tmp_path / "io").write_text(shares.format("some", "99.99") + shares.format("full", "50.00"))
    assert pressure(tmp_path) == Pressure(1.5, 2.0, 0.25, 99.99, 50.0)


def test_a_kernel_without_it_says_nothing(tmp_path: Path) -> None:
    """What the kernel does not tell is None and not 0."""
    assert pressure(tmp_path / "none") == Pressure(None, None, None, None, None)
    (tmp_path / "io").write_text("")
    assert pressure(tmp_path).io_some is None


def test_this_host_answers_or_does_not() -> None:
    """On whatever host this runs the figures are shares, or missing."""
    seen = pressure()
    figures = (seen.cpu_some, seen.memory_some, seen.memory_full, seen.io_some, seen.io_full)
    assert all(figure is None or 0 <= figure <= 100 for figure in figures)
