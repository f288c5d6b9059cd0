"""The job that a reading verb is about, with its journal open.

Owns the argument JOB of verbs that take one; what it means is `naming`'s. Reads only: a journal
that does not exist yet is never made here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from supervisor.cli.arguments import complete_job
from supervisor.cli.naming import NoSuchJob, meant
from supervisor.journal import JobRecord, Journal, JournalUnavailable
from supervisor.journal.journal import FILE_NAME
from supervisor.views.chosen import Chosen

job_argument = click.argument("job", required=False, metavar="[JOB]", shell_complete=complete_job)
__all__ = [
    "NoSuchJob",
    "chosen_job",
    "find_job",
    "job_argument",
    "json_option",
    "no_jobs",
    "opened",
]

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/json.md).")


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
    place, meant_id = _elsewhere(state_dir, text) or (state_dir, text)
    with opened(place) as journal:
        if journal is None or not journal.jobs():
            raise NoSuchJob(no_jobs(state_dir))
        here = Path.cwd()
        yield Chosen(place, journal, find_job(journal, meant_id, here), here)


def _elsewhere(state_dir: Path, text: str | None) -> tuple[Path, str] | None:
    """The folder and the id of a job that the daemon of this host keeps for this user."""
    from supervisor.client.find import own_shelves  # noqa: PLC0415 - a listing needs none of it

    others = [one for one in own_shelves(state_dir)[1:] if (one / FILE_NAME).exists()]
    if not others:
        return None
    from supervisor.client.index import known_jobs  # noqa: PLC0415 - only where that daemon is

    jobs = known_jobs([state_dir, *others], sources=text is not None)
    if not jobs:
        return None
    found = meant(jobs, text, Path.cwd(), lambda one: one.source)
    return found.place, found.id


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
    return meant(journal.jobs(), text, cwd, _source)


def _source(record: JobRecord) -> str:
    from supervisor.views.frozen import said  # noqa: PLC0415 - only where a path was given

    return said(record).source
