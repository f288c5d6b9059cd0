"""Routes that stream: a job's log, its progress, what happens in the queue.

Owns these paths and where a client goes on. The first look is taken before the answer begins, so
that a refusal has its status.
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request
from starlette.responses import Response

from supervisor.daemon.api.answers import streamed
from supervisor.daemon.api.asking import Asked, Asker, Job, at_once
from supervisor.daemon.api.jobs import AfterSeq, Attempt
from supervisor.daemon.api.models import Ordinal
from supervisor.daemon.api.sources import (
    LOG_BYTES,
    Following,
    Place,
    log_events,
    progress_events,
    queue_events,
)
from supervisor.daemon.api.stream import EventStream

router = APIRouter(tags=["streams"])
LastEventId = Annotated[
    str | None, Header(max_length=64, description="The id of the last event seen: goes on there.")
]


@dataclass(frozen=True, slots=True)
class Start:
    """Where a log is read from."""

    attempt: Attempt | None = None
    offset: Ordinal = 0
    only: Annotated[bool, Query(description="Of this attempt alone.")] = False
    last_event_id: LastEventId = None

    def place(self) -> Place:
        """The place; the id of an event goes before what the query says."""
        place = Place.parse(self.last_event_id) if self.last_event_id else None
        place = place or Place(self.attempt, self.offset)
        place.only = self.only
        return place


@router.get(
    "/v1/jobs/{job}/log/stream",
    response_class=EventStream,
    status_code=200,
    responses=streamed("Events `attempt`, `log` (attempt, offset, next, text, data), `end`."),
)
async def log_stream(
    request: Request,
    peer: Asker,
    asked: Asked,
    job: Job,
    start: Annotated[Start, Depends(at_once(Start))],
) -> Response:
    """What a job prints, as it comes, across attempts, until it has ended. Its owner's alone.

    It begins with the last attempt, or at `attempt` and `offset`, or behind Last-Event-ID.
    """
    place = start.place()
    following = Following(asked, request.app.state.recent, peer, job)
    await following.ask("log", attempt=place.attempt, offset=place.offset, limit=LOG_BYTES)
    return EventStream(request.app.state.streams, peer, log_events(following, place))


@router.get(
    "/v1/jobs/{job}/progress",
    response_class=EventStream,
    status_code=200,
    responses=streamed("Events `progress` (id, state, step, total, attempt, updated_s), `end`."),
)
async def progress(
    request: Request, peer: Asker, asked: Asked, job: Job, last_event_id: LastEventId = None
) -> Response:
    """How far a job is: at once, and whenever that changes, at most four times a second."""
    following = Following(asked, request.app.state.recent, peer, job)
    await following.now()
    return EventStream(request.app.state.streams, peer, progress_events(following, last_event_id))


@router.get(
    "/v1/events",
    response_class=EventStream,
    status_code=200,
    responses=streamed("Events `happening` (seq, at_s, job, kind, ...)."),
)
async def events(
    request: Request,
    peer: Asker,
    asked: Asked,
    after: AfterSeq | None = None,
    last_event_id: LastEventId = None,
) -> Response:
    """What happens in the queue from now on, or behind a sequence number."""
    if last_event_id and last_event_id.isascii() and last_event_id.isdigit():
        after = min(int(last_event_id[:18]), 2**62)
    source = queue_events(asked, peer, after)
    return EventStream(request.app.state.streams, peer, source)
