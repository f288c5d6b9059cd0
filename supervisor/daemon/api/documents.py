"""What the API answers with, for the published description.

Owns the shapes of answers as they are documented; the documents themselves are `views`' and the
daemon's. Nothing is converted by these models when a request is served. Later versions only add
keys, so all of them allow more.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from supervisor.core.causes import State
from supervisor.queue.model import Phase

Instant = Annotated[
    str, Field(description="ISO 8601 in UTC.", examples=["2031-05-01T12:00:00.000Z"])
]
Seconds = Annotated[float, Field(description="Epoch seconds.")]


class Document(BaseModel):
    """An answer; later versions may add keys."""

    model_config = ConfigDict(extra="allow")


class Problem(Document):
    """Why not: `kind` for programs, `message` for people."""

    kind: str = Field(examples=["no_such_job"])
    message: str = Field(examples=["the queue has no job digits-1a2b3c"])


class ErrorAnswer(Document):
    """Every answer that says no."""

    error: Problem


class DaemonStatus(Document):
    """The daemon itself."""

    version: str
    api: int = Field(examples=[1])
    pid: int
    state_dir: str
    system: bool = Field(description="It serves every user of the host.")
    launcher: str = Field(examples=["systemd"])
    jobs: dict[str, int] = Field(description="How many jobs are in each phase.")


class Accepted(Document):
    """A job that was taken in. `new` is false where its key was known already."""

    id: str
    name: str
    state: State
    new: bool


class AcceptedJobs(Document):
    """One for each job of the request, in order."""

    jobs: list[Accepted]
    left_out: list[str] = Field(
        description="Variables that are not stored with all of them, as they look like secrets."
    )


class JobRow(Document):
    """A job as `supervise ps --json` has it (docs/json.md), with what the queue knows."""

    id: str
    name: str
    state: State
    why: str | None = None
    step: int | None = None
    total: int | None = None
    user: str
    uid: int
    phase: Phase
    priority: int
    group: str | None = None
    waits: str | None = Field(default=None, description="Why it has not been started yet.")
    position: int | None = Field(default=None, description="Its place among those that wait.")


class JobRows(Document):
    """Jobs, oldest first."""

    jobs: list[JobRow]


class JobDocument(JobRow):
    """A job as `supervise show --json` has it: with its attempts and checkpoints."""

    attempts: list[dict[str, Any]] = Field(default_factory=list)
    checkpoints: list[dict[str, Any]] = Field(default_factory=list)


class Explanation(Document):
    """As `supervise explain --json`: why each attempt ended, and what comes next."""

    id: str
    attempts: list[dict[str, Any]]


class Report(Document):
    """As `supervise report --json`: what each attempt's end cost."""

    id: str
    rows: list[dict[str, Any]]
    totals: dict[str, Any]


class Events(Document):
    """Events of a job's journal, oldest first."""

    events: list[dict[str, Any]]


class LogPage(Document):
    """A piece of what an attempt printed. `next` is the offset behind it."""

    attempt: int | None
    offset: int
    next: int
    size: int
    data: str = Field(description="Base64.", json_schema_extra={"contentEncoding": "base64"})
    ended: bool = Field(description="The attempt has ended: nothing more will be added.")


class Waited(Document):
    """Where the job is now. `exit_code` is what `supervise run` would have ended with."""

    id: str
    state: State
    exit_code: int | None
    ended: bool


class Told(Document):
    """What was done about it, in words."""

    id: str
    state: State
    words: str


class GroupRow(Document):
    """Jobs that are held together."""

    name: str
    uid: int
    hold_after: int | None
    failures: int
    held: bool


class Groups(Document):
    """The groups of the one who asks; an admin's are all."""

    groups: list[GroupRow]


class Gpus(Document):
    """The GPUs of the host (docs/json.md)."""

    gpus: list[dict[str, Any]]


class Released(Document):
    """It may be used again."""

    words: str
