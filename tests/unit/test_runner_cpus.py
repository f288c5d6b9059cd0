"""Jobs that say how many cores they want keep out of each other's way, as far as there is room."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from supervisor.gpu.shared_folder import lease_folder
from supervisor.runner.cpus import CpuShare


@pytest.fixture
def share(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int | None], CpuShare]]:
    """Share the four cores of a host; what was taken is given back."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 5, 6, 7})
    with ExitStack() as ends:
        yield lambda count: ends.enter_context(closing(CpuShare(count)))


@pytest.mark.parametrize("count", [None, 4, 9])
def test_who_wants_all_is_bound_to_none(share, count):
    """Nothing is chosen, and no folder is made."""
    assert share(count).numbers == ()
    assert not lease_folder().exists()


def test_two_jobs_get_different_cores(share):
    """The first job of a host makes the folder in which the next one looks."""
    assert (share(2).numbers, share(2).numbers) == ((4, 5), (6, 7))


def test_who_finds_too_few_shares_the_first_ones(share):
    """What is free is used, and the rest is shared: a job never waits for cores."""
    share(3)
    assert share(3).numbers == (4, 5, 7)
    assert share(2).numbers == (4, 5)


def test_cores_come_back(share):
    """With the end of the runner; closing it twice gives back nothing of others'."""
    first = share(2)
    first.close()
    first.close()
    assert share(2).numbers == (4, 5)


def test_a_folder_that_cannot_be_used_keeps_no_job_from_running(share):
    """Then nobody knows of the others, and all use the first cores."""
    lease_folder().parent.mkdir(parents=True)
    lease_folder().write_text("not a folder")
    assert (share(2).numbers, share(2).numbers) == ((4, 5), (4, 5))


def test_a_lock_that_is_no_file_of_ours_counts_as_taken(share, tmp_path: Path):
    """No link is followed: another core is used."""
    lease_folder().mkdir(parents=True)
    (lease_folder() / "cpu-4.lock").symlink_to(tmp_path / "elsewhere")
    assert share(2).numbers == (5, 6)
    assert not (tmp_path / "elsewhere").exists()


def test_anybody_may_read_the_locks(share):
    """Another user's job must be able to see that a core is taken, whatever the umask."""
    before = os.umask(0o077)
    try:
        share(1)
    finally:
        os.umask(before)
    assert (lease_folder() / "cpu-4.lock").stat().st_mode & 0o444 == 0o444
