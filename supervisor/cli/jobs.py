"""Which job a person means, and whether anybody is looking after it.

Owns the meaning of the argument JOB and the check that a runner lives. Reads only; a journal that
does not exist yet is never made here.
"""

import os
import select
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from supervisor.cli.main import did_you_mean
from supervisor.cli.text import printable
from supervisor.core.causes import State
from supervisor.host import identity
from supervisor.journal import JobRecord, Journal, JournalUnavailable
from supervisor.runner.home import JobFolder

# States in which a runner has work to do. In any other, none is expected to live.
ATTENDED = frozenset({State.QUEUED, State.RUNNING, State.BACKING_OFF, State.STOPPING})
LISTED = 8  # so many jobs are named in an error message

job_argument = click.argument("job", required=False, metavar="[JOB]")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/json.md).")


class NoSuchJob(click.ClickException):
    """JOB means no job, or more than one; the message lists what there is."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Chosen:
    """The job that a verb is about."""

    state_dir: Path
    journal: Journal
    record: JobRecord

    @property
    def folder(self) -> JobFolder:
        """Where the job keeps its logs and copies."""
        return JobFolder.of(self.state_dir, self.record.id)


@contextmanager
def opened(state_dir: Path) -> Iterator[Journal | None]:
    """The journal of a state folder, None where no job ever ran.

    Raises:
        JournalError: it cannot be used.
        click.UsageError: that is no folder at all.
    """
    try:
        journal = Journal.open_existing(state_dir)
        if journal is None and state_dir.exists() and not state_dir.is_dir():
            raise click.UsageError(f"--state-dir {state_dir} is not a folder")
    except OSError as error:
        raise JournalUnavailable(
            f"the state folder {state_dir} cannot be read: {error.strerror}. "
            "Name another with --state-dir."
        ) from error
    try:
        yield journal
    finally:
        if journal is not None:
            journal.close()


@contextmanager
def chosen_job(state_dir: Path, text: str | None) -> Iterator[Chosen]:
    """The job that a person means, with its journal open.

    Raises:
        NoSuchJob: none is meant, or more than one.
        JournalError: the journal cannot be used.
    """
    with opened(state_dir) as journal:
        if journal is None or not journal.jobs():
            raise NoSuchJob(no_jobs(state_dir))
        yield Chosen(state_dir, journal, find_job(journal, text, Path.cwd()))


def no_jobs(state_dir: Path) -> str:
    """What to say where no job ever ran."""
    return f"no jobs yet in {state_dir}. Start one: supervise run job.yaml"


def find_job(journal: Journal, text: str | None, cwd: Path) -> JobRecord:
    """The job meant by a name, an id, the beginning of an id, or the path of its job.yaml.

    Without a text, the newest job of the folder `cwd`. Of several jobs of one name and folder
    (`run --fresh`), the newest.

    Raises:
        NoSuchJob: none is meant, or more than one.
    """
    jobs = journal.jobs()
    if text is None:
        return _of_folder(jobs, cwd)
    matches = (
        [one for one in jobs if one.id == text]
        or [one for one in jobs if one.name == text]
        or _of_path(jobs, cwd / text)
        or [one for one in jobs if text and one.id.startswith(text)]
    )
    if not matches:
        known = sorted({name for one in jobs for name in (one.name, one.id)})
        raise NoSuchJob(f"no such job: {text}{did_you_mean(text, known)}{_listed(jobs)}")
    if len({(one.name, one.folder) for one in matches}) > 1:
        here = [one for one in matches if _same_folder(one.folder, cwd)]
        if not here or len({one.name for one in here}) > 1:
            raise NoSuchJob(f"{text} may mean several jobs; say which is meant{_listed(matches)}")
        matches = here
    return matches[-1]


def _of_folder(jobs: Sequence[JobRecord], cwd: Path) -> JobRecord:
    here = [one for one in jobs if _same_folder(one.folder, cwd)]
    if not here:
        raise NoSuchJob(f"no job was started from {cwd}{_listed(jobs)}")
    return here[-1]


def _of_path(jobs: Sequence[JobRecord], path: Path) -> list[JobRecord]:
    """Jobs of a job file, or of a folder, that a person named by its path."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # no such path, or none at all: too long, a NUL in it
        return []
    if stat.S_ISDIR(mode):
        return [one for one in jobs if _same_folder(one.folder, path)]
    from supervisor.cli.frozen import said  # noqa: PLC0415 - only where a path was given

    beside = [one for one in jobs if _same_folder(one.folder, path.parent)]
    return [one for one in beside if Path(said(one).source).name == path.name]


def _same_folder(folder: str, other: Path) -> bool:
    return folder == str(other) or os.path.realpath(folder) == os.path.realpath(other)


def _listed(jobs: Sequence[JobRecord]) -> str:
    newest = jobs[: -LISTED - 1 : -1]
    room = max(len(one.id) for one in newest)
    lines = [
        f"\n  {one.id.ljust(room)}  {one.state.ljust(11)}  {printable(one.folder)}"
        for one in newest
    ]
    more = f"\n  and {len(jobs) - LISTED} older: supervise ps" if len(jobs) > LISTED else ""
    return ". There is:" + "".join(lines) + more


def runner_lives(record: JobRecord) -> bool:
    """Whether the runner that the journal names is still the process that it was."""
    if record.runner_pid is None or record.boot_id != identity.boot_id():
        return False
    try:
        pidfd = os.pidfd_open(record.runner_pid)
    except OSError:  # gone
        return False
    try:
        # Readable once it has exited, also while its parent has not reaped it.
        ended, _, _ = select.select([pidfd], [], [], 0)
        return not ended and identity.start_ticks(record.runner_pid) == record.runner_ticks
    finally:
        os.close(pidfd)


def runner_gone(record: JobRecord) -> bool:
    """Whether the job's state promises a runner that is no longer there."""
    return record.state in ATTENDED and not runner_lives(record)
