"""From the argument JOB to whoever can do something about it: the daemon, or the job's own runner.

Owns the way there, for verbs that act. A job that the daemon has goes through the daemon; one that
`supervise run` started is reached directly, with the same verb. Invariant: what a person named is
looked up among their own jobs first, so that another's job of the same name is never meant.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from supervisor.cli.naming import NoSuchJob, is_path, meant
from supervisor.client.errors import Refused
from supervisor.client.find import Found, daemon_or_none, own_shelves, shelf_of
from supervisor.client.index import Known, known_jobs

if TYPE_CHECKING:
    from supervisor.client.calls import Daemon

IS_ID = re.compile(r".-[0-9a-f]{6}(-[0-9]+)?$")  # as supervisor.runner.opening makes them
MAY_BE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # anything else can only be a path
FORBIDDEN, UNKNOWN = "not_yours", "no_such_job"

ENDED = frozenset({"succeeded", "failed", "cancelled", "stopped", "holding"})  # no runner has it

T = TypeVar("T")


class Unserved(click.ClickException):
    """A daemon has the job, and none runs; the message says what to do."""

    exit_code = 3  # as Exit.HOLDING, which takes longer to load


class Reach:
    """A state folder and the daemon that serves it, if one does."""

    def __init__(self, state_dir: Path, found: Found | None) -> None:
        self.state_dir = state_dir
        self.found = found

    @cached_property
    def daemon(self) -> "Daemon | None":
        """The daemon, None where none runs."""
        if self.found is None:
            return None
        from supervisor.client.calls import Daemon  # noqa: PLC0415 - HTTP takes a while to load

        return Daemon(self.found.connection)

    @cached_property
    def shelf(self) -> Path | None:
        """Where this user's jobs of that daemon are, if they are on this host."""
        return None if self.found is None else shelf_of(self.found, self.state_dir)

    @property
    def places(self) -> list[Path]:
        """The state folders that may hold a job of this person; none where the daemon is far."""
        if self.found is not None and self.found.far:
            return []
        shelf = [] if self.shelf is None else [self.shelf]
        return list(dict.fromkeys([*shelf, *own_shelves(self.state_dir)]))

    def another(self) -> "Reach":
        """The same by a connection of its own, for another thread."""
        if self.found is None:
            return Reach(self.state_dir, None)
        found = Found(self.found.connection.another(), self.found.socket, self.found.system)
        return Reach(self.state_dir, found)

    def own(self, text: str | None) -> Known:
        """The job of this person that a text means.

        Raises:
            NoSuchJob: none is meant, or more than one.
        """
        cwd = Path.cwd()
        wants_sources = text is not None and is_path(text, cwd)
        if not self.places:
            raise NoSuchJob("say which job is meant: the daemon does not know this folder")
        jobs = known_jobs(self.places, sources=wants_sources)
        if not jobs:
            if self.state_dir.exists() and not self.state_dir.is_dir():
                raise click.UsageError(f"--state-dir {self.state_dir} is not a folder")
            raise NoSuchJob(f"no jobs yet in {self.state_dir}. Start one: supervise run job.yaml")
        return meant(jobs, text, cwd, lambda one: one.source)

    def act(
        self,
        text: str | None,
        through: "Callable[[Daemon, str], T]",
        direct: Callable[[Known], T],
    ) -> T:
        """Do something to a job: `through` the daemon if that has it, else by `direct` means.

        Raises:
            NoSuchJob: none is meant, or more than one.
            Unserved: it waits for a daemon, and none runs.
            ClientError: the daemon refuses, or went away.
        """
        daemon, refusal = self.daemon, None
        if daemon is not None and text is not None and self._is_its(text):
            try:
                return through(daemon, text)
            except Refused as error:
                if error.kind not in {FORBIDDEN, UNKNOWN} or not self.places:
                    raise
                refusal = error
        try:
            job = self.own(text)
        except NoSuchJob as unknown:
            if refusal is not None and refusal.kind == FORBIDDEN:
                raise refusal from unknown
            if daemon is None or text is None or not MAY_BE_NAME.fullmatch(text):
                raise
            return _others(daemon, text, through, unknown)
        is_new = refusal is None or job.id != text
        if daemon is not None and job.place == self.shelf and is_new:
            try:
                return through(daemon, job.id)
            except Refused as error:
                if error.kind != UNKNOWN:  # else a job of `run` in the same folder
                    raise
        return self._beside(job, direct)

    def _beside(self, job: Known, direct: Callable[[Known], T]) -> T:
        if self.daemon is None:
            refuse_unserved(job)
        return direct(job)

    def _is_its(self, text: str) -> bool:
        """Whether the daemon is asked before anything is read here: of an id, that is quicker."""
        if not self.places:
            return True
        return IS_ID.search(text) is not None and not is_path(text, Path.cwd())


def refuse_unserved(job: Known) -> None:
    """Leave a job to the daemon that it was given to, and that does not run. Raises Unserved."""
    if _waits(job):
        raise Unserved(
            f"{job.id} is in the queue of a daemon that does not run. Start that first: "
            "supervise daemon run"
        )


def _waits(job: Known) -> bool:
    """Whether a daemon was given the job, and has not begun it, or lost its runner."""
    if job.state in ENDED:
        return False
    from supervisor.journal import Journal  # noqa: PLC0415 - only where no daemon runs
    from supervisor.runner.alive import runner_lives  # noqa: PLC0415 - the same
    from supervisor.runner.home import JobFolder  # noqa: PLC0415 - the same

    if not JobFolder.of(job.place, job.id).surroundings.exists():
        return False
    with closing(Journal.open(job.place)) as journal:
        record = journal.job(job.id)
    return record is not None and record.state not in ENDED and not runner_lives(record)


def _others(
    daemon: "Daemon", text: str, through: "Callable[[Daemon, str], T]", unknown: NoSuchJob
) -> T:
    """The same for a job that is none of this person's, but the daemon may know."""
    try:
        return through(daemon, text)
    except Refused as error:
        if error.kind == UNKNOWN:
            raise unknown from error
        raise


@contextmanager
def reached(state_dir: Path) -> Iterator[Reach]:
    """The way to the jobs of a state folder, for as long as a block lasts.

    Raises:
        ClientError: there is a daemon that this user is not to use.
    """
    found = daemon_or_none(state_dir)
    try:
        yield Reach(state_dir, found)
    finally:
        if found is not None:
            found.connection.close()
