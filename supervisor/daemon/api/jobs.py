"""Routes that submit jobs and read them.

Owns these paths, their parameters and their bounds.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from supervisor.core.causes import State
from supervisor.daemon.api import documents
from supervisor.daemon.api.answers import answer, described, listing
from supervisor.daemon.api.asking import Asked, Asker, Job, at_once
from supervisor.daemon.api.errors import Stopping
from supervisor.daemon.api.models import Label, Ordinal, Submission
from supervisor.daemon.api.stream import until_gone
from supervisor.daemon.contracts import Json

router = APIRouter(tags=["jobs"])
PAGE = 10_000
LOG_BYTES = 1024 * 1024
LONGEST_WAIT_S = 300
LogFile = Literal["worker", "runner", "runner_out"]
Attempt = Annotated[int, Query(ge=1, lt=2**31)]
AfterSeq = Annotated[Ordinal, Query(description="Those behind this number alone.")]


@dataclass(frozen=True, slots=True)
class Listing:
    """Which jobs; all of them, where nothing is said."""

    state: State | None = None
    user: Annotated[Label | None, Query(description="Name or number.")] = None
    group: Label | None = None
    limit: Annotated[int | None, Query(ge=1, le=PAGE)] = None
    after_seq: AfterSeq = 0


@dataclass(frozen=True, slots=True)
class Part:
    """Which part of which log."""

    attempt: Attempt | None = None
    offset: Ordinal = 0
    limit: Annotated[int, Query(ge=0, le=LOG_BYTES)] = LOG_BYTES // 4
    file: Annotated[LogFile, Query(description="Whose: the worker's, or its runner's.")] = "worker"


@router.post(
    "/v1/jobs",
    status_code=201,
    responses=described(
        documents.AcceptedJobs, "They are in the queue.", status=201, body=True, job=True
    ),
)
async def submit(peer: Asker, asked: Asked, submission: Submission) -> Response:
    """Submit jobs. All are accepted, or none; accepted means that no crash loses them."""
    jobs = [one.said() for one in submission.jobs]
    surroundings = submission.surroundings.said()
    return answer(await asked.submit(peer, jobs, surroundings), 201)


@router.get("/v1/jobs", responses=described(documents.JobRows, "The jobs."))
async def jobs(
    peer: Asker, asked: Asked, wanted: Annotated[Listing, Depends(at_once(Listing))]
) -> Response:
    """The jobs of all users, oldest first."""
    return await listing("jobs", await asked.jobs(peer, **asdict(wanted)))


@router.get("/v1/jobs/{job}", responses=described(documents.JobDocument, "The job.", job=True))
async def document(peer: Asker, asked: Asked, job: Job) -> Response:
    """A job with its attempts and checkpoints."""
    return answer(await asked.ask(peer, job, "document"))


@router.get("/v1/jobs/{job}/explain", responses=described(documents.Explanation, "Why.", job=True))
async def explain(peer: Asker, asked: Asked, job: Job) -> Response:
    """Why each attempt of a job ended, and what comes next. Its owner's alone, and admins'."""
    return answer(await asked.ask(peer, job, "explain"))


@router.get(
    "/v1/jobs/{job}/report", responses=described(documents.Report, "What it cost.", job=True)
)
async def report(peer: Asker, asked: Asked, job: Job) -> Response:
    """What each attempt's end cost."""
    return answer(await asked.ask(peer, job, "report"))


@router.get("/v1/jobs/{job}/events", responses=described(documents.Events, "The events.", job=True))
async def events(
    peer: Asker,
    asked: Asked,
    job: Job,
    after: AfterSeq = 0,
    limit: Annotated[int, Query(ge=1, le=PAGE)] = 1000,
) -> Response:
    """The events of a job's journal, oldest first. Its owner's alone, and admins'."""
    rows = await asked.ask(peer, job, "events", {"after": after, "limit": limit})
    return await listing("events", rows)


@router.get(
    "/v1/jobs/{job}/log", responses=described(documents.LogPage, "A piece of it.", job=True)
)
async def log(
    peer: Asker, asked: Asked, job: Job, part: Annotated[Part, Depends(at_once(Part))]
) -> Response:
    """What an attempt printed (the last, unless one is named), byte for byte. Its owner's alone."""
    return answer(await asked.ask(peer, job, "log", asdict(part)))


@router.get("/v1/jobs/{job}/wait", responses=described(documents.Waited, "Where it is.", job=True))
async def wait(
    request: Request,
    peer: Asker,
    asked: Asked,
    job: Job,
    timeout_s: Annotated[float, Query(ge=0, le=LONGEST_WAIT_S, allow_inf_nan=False)] = 30.0,
) -> Response:
    """Wait until a job has ended, or for so long; ask again while `ended` is false."""
    return answer(await _unless_gone(request, asked.wait(peer, job, timeout_s)))


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Json]) -> Json:
    """The result, unless the client goes away or the daemon stops before."""
    closing: asyncio.Event = request.app.state.streams.closing
    working = asyncio.ensure_future(work)
    leaving = [
        asyncio.ensure_future(until_gone(request.receive)),
        asyncio.ensure_future(closing.wait()),
    ]
    try:
        await asyncio.wait({working, *leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise Stopping("the daemon is about to stop; ask again when it is back")
    finally:
        for one in (working, *leaving):
            one.cancel()
        await asyncio.gather(working, *leaving, return_exceptions=True)
