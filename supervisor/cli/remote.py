"""A job that is none of this person's, or whose fate the daemon knows better than its journal.

Owns the way from the API's documents to what the pages read: a journal that asks. Nothing of
another user's is opened here, whatever rights this process has. Invariant: one's own jobs are
looked up first, and a refusal of the daemon is told in its own words.
"""

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from supervisor.cli.jobs import NoSuchJob, chosen_job
from supervisor.cli.remote_rows import NOWHERE, FarJournal, Fields, made, record_of
from supervisor.journal.records import AttemptRecord
from supervisor.runner.home import JobFolder
from supervisor.views.chosen import Chosen

if TYPE_CHECKING:
    from supervisor.client.calls import Daemon
    from supervisor.journal import Journal
    from supervisor.views.losses import Row, Totals
    from supervisor.views.next_step import NextStep
    from supervisor.views.proof import Proof, Start

UNKNOWN = "no_such_job"


@contextmanager
def job_of_anyone(state_dir: Path, text: str | None) -> Iterator[Chosen]:
    """The job that a person means: one of theirs, or else, as a `Far`, one that the daemon has.

    Raises:
        NoSuchJob: none is meant, or more than one.
        JournalError: the journal cannot be used.
        ClientError: the daemon refuses, or went away.
    """
    with ExitStack() as stack:
        try:
            found = stack.enter_context(chosen_job(state_dir, text))
        except NoSuchJob as unknown:
            found = _asked_for(stack, state_dir, text, unknown)
        yield found


def _asked_for(stack: ExitStack, state_dir: Path, text: str | None, unknown: NoSuchJob) -> "Far":
    # All of it is loaded only where a job is none of this person's.
    from supervisor.cli.reach import MAY_BE_NAME  # noqa: PLC0415 - see above
    from supervisor.client.errors import ClientError, Refused  # noqa: PLC0415 - see above
    from supervisor.client.find import daemon_or_none  # noqa: PLC0415 - see above

    if text is None or not MAY_BE_NAME.fullmatch(text):
        raise unknown
    try:
        found = daemon_or_none(state_dir)
    except ClientError:  # there is a daemon, and it is not for this person
        raise unknown from None
    if found is None:
        raise unknown
    stack.callback(found.connection.close)
    from supervisor.client.calls import Daemon  # noqa: PLC0415 - as above

    daemon = Daemon(found.connection)
    try:
        return Far.of(daemon, state_dir, daemon.document(text))
    except Refused as error:
        if error.kind == UNKNOWN:
            raise unknown from error
        raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Far(Chosen):
    """A job that only the daemon may read. `document` is its `show --json`, with the queue's."""

    source: FarJournal
    document: Fields

    @classmethod
    def of(cls, daemon: "Daemon", state_dir: Path, document: Fields) -> "Far":
        """The job of a document, and whoever is asked for more."""
        source = FarJournal(daemon, document)
        journal = cast("Journal", source)  # as far as pages read one
        return cls(
            state_dir,
            journal,
            record_of(document),
            Path.cwd(),
            source=source,
            document=document,
        )

    @property
    def user(self) -> str:
        """Whose it is."""
        return str(self.document.get("user"))

    @property
    def folder(self) -> JobFolder:
        """Nowhere: what is there is its owner's."""
        return JobFolder(NOWHERE)

    @property
    def submitted(self) -> bool:
        """Always."""
        return True

    @property
    def note(self) -> str | None:
        """As `views.next_step.note`."""
        from supervisor.runner.alive import ATTENDED  # noqa: PLC0415 - not for --json
        from supervisor.views.next_step import QUEUED, TAKEN_UP  # noqa: PLC0415 - the same

        if self.document.get("phase") == "waiting":
            return QUEUED
        gone = self.record.state in ATTENDED and self.document.get("runner_alive") is False
        return TAKEN_UP if gone else None

    @property
    def next_step(self) -> "NextStep":
        """As `views.next_step.next_step`, where that may be known."""
        from supervisor.views.next_step import NextStep  # noqa: PLC0415 - not for --json

        told = self.source.explanation
        if told is None:
            return NextStep(f"It is a job of {self.user}: only they, and admins, may act on it.")
        return made(NextStep, told.get("next") or {"words": "-"})

    def read(self, part: str) -> Fields:
        """Another document of it. Raises Refused where that is not for this person."""
        return cast("Fields", self.source.daemon.document(self.record.id, part))

    def require_explanation(self) -> None:
        """Raise Refused, in the daemon's words, where the evidence is not for this person."""
        if self.source.explanation is None:
            self.read("explain")

    def explanation(self, numbers: Collection[int]) -> Fields:
        """Its `explain --json`, of these attempts."""
        told = dict(self.source.explanation or {})
        attempts = [one for one in told.get("attempts", ()) if one["number"] in numbers]
        return told | {"attempts": attempts}

    def costs(self) -> "tuple[list[Row], Totals]":
        """As `views.losses` counts them."""
        from supervisor.views.losses import Row, Totals  # noqa: PLC0415 - of `report` alone

        told = self.read("report")
        return [made(Row, one) for one in told["rows"]], made(Totals, told["totals"])

    def starts(self) -> dict[int | None, "Start"]:
        """As `views.proof.starts_of`."""
        from supervisor.views.proof import Start  # noqa: PLC0415 - of `explain` alone

        return {
            int(one["number"]): Start(
                bool(one["start"].get("restored")), tuple(one["start"].get("rejected") or ())
            )
            for one in (self.source.explanation or {}).get("attempts", ())
        }

    def proof(self, one: AttemptRecord) -> "Proof":
        """As `views.proof.proof_of`; of its files, where they are."""
        from supervisor.views.proof import proof_of  # noqa: PLC0415 - of `explain` alone

        told = self.source.explained(one.number)
        return replace(
            proof_of(self, one),
            log=told.get("log"),
            stack=told.get("stack"),
            hang=tuple(told.get("hang") or ()),
        )
