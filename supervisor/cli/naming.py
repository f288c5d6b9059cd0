"""Which job is meant: by name, id, beginning of an id, path, or the folder one stands in.

Owns that choice among jobs that somebody else has read. Invariant: a text that may mean two jobs
means none; the message lists them.
"""

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import click

from supervisor.views.plain import did_you_mean, printable

LISTED = 8  # so many jobs are named in an error message


class NoSuchJob(click.ClickException):
    """JOB means no job, or more than one; the message lists what there is."""

    exit_code = 2


class Named(Protocol):
    """What a job is known by."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def name(self) -> str:
        """Its name, which others may have too."""

    @property
    def folder(self) -> str:
        """The folder of its job file."""

    @property
    def state(self) -> str:
        """Where it is."""


JobT = TypeVar("JobT", bound=Named)


def meant(
    jobs: Sequence[JobT], text: str | None, cwd: Path, source_of: Callable[[JobT], str | None]
) -> JobT:
    """The job that a text means; `jobs` are the oldest first. Without a text, the newest of `cwd`.

    Of several jobs of one name and folder, the newest. `source_of` tells the path of a job file.

    Raises:
        NoSuchJob: none is meant, or more than one.
    """
    if text is None:
        return _newest_of_folder(jobs, cwd)
    matches = (
        [one for one in jobs if one.id == text]
        or [one for one in jobs if one.name == text]
        or _of_path(jobs, cwd / text, source_of)
        or [one for one in jobs if text and one.id.startswith(text)]
    )
    if not matches:
        known = sorted({name for one in jobs for name in (one.name, one.id)})
        raise NoSuchJob(f"no such job: {text}{did_you_mean(text, known)}{listed(jobs)}")
    if len({(one.name, one.folder) for one in matches}) > 1:
        here = [one for one in matches if same_folder(one.folder, cwd)]
        if not here or len({one.name for one in here}) > 1:
            raise NoSuchJob(f"{text} may mean several jobs; say which is meant{listed(matches)}")
        matches = here
    return matches[-1]


def is_path(text: str, cwd: Path) -> bool:
    """Whether there is a file or a folder of this name."""
    try:
        return (cwd / text).exists()
    except (OSError, ValueError):  # none at all: too long, a NUL in it
        return False


def same_folder(folder: str, other: Path) -> bool:
    """Whether two paths lead to one folder."""
    return folder == str(other) or os.path.realpath(folder) == os.path.realpath(other)


def listed(jobs: Sequence[Named]) -> str:
    """The newest of these jobs, for the end of a message."""
    if not jobs:
        return ""
    newest = jobs[: -LISTED - 1 : -1]
    room = max(len(one.id) for one in newest)
    lines = [
        f"\n  {one.id.ljust(room)}  {one.state.ljust(11)}  {printable(one.folder)}"
        for one in newest
    ]
    more = f"\n  and {len(jobs) - LISTED} older: supervise ps" if len(jobs) > LISTED else ""
    return ". There is:" + "".join(lines) + more


def _newest_of_folder(jobs: Sequence[JobT], cwd: Path) -> JobT:
    here = [one for one in jobs if same_folder(one.folder, cwd)]
    if not here:
        raise NoSuchJob(f"no job was started from {cwd}{listed(jobs)}")
    return here[-1]


def _of_path(
    jobs: Sequence[JobT], path: Path, source_of: Callable[[JobT], str | None]
) -> list[JobT]:
    """Jobs of a job file, or of a folder, that a person named by its path."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # no such path, or none at all: too long, a NUL in it
        return []
    if stat.S_ISDIR(mode):
        return [one for one in jobs if same_folder(one.folder, path)]
    beside = [one for one in jobs if same_folder(one.folder, path.parent)]
    return [one for one in beside if Path(source_of(one) or "").name == path.name]
