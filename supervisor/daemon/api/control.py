"""Routes that change what becomes of a job.

Owns these paths. Only its owner and admins may; the daemon sees to that.
"""

from fastapi import APIRouter
from starlette.responses import Response

from supervisor.daemon.api.answers import answer, described
from supervisor.daemon.api.asking import Asked, Asker, Job
from supervisor.daemon.api.documents import Told
from supervisor.daemon.api.models import Retry

router = APIRouter(tags=["control"])
_TOLD = described(Told, "What was done.", job=True)


@router.post("/v1/jobs/{job}/stop", responses=_TOLD)
async def stop(peer: Asker, asked: Asked, job: Job) -> Response:
    """Ask it to stop at the next batch boundary; it can be resumed."""
    return answer(await asked.stop(peer, job))


@router.post("/v1/jobs/{job}/kill", responses=_TOLD)
async def kill(peer: Asker, asked: Asked, job: Job) -> Response:
    """End its worker by force; it can be resumed."""
    return answer(await asked.stop(peer, job, kill=True))


@router.post("/v1/jobs/{job}/cancel", responses=_TOLD)
async def cancel(peer: Asker, asked: Asked, job: Job) -> Response:
    """End it for good."""
    return answer(await asked.cancel(peer, job))


@router.post("/v1/jobs/{job}/resume", responses=_TOLD)
async def resume(peer: Asker, asked: Asked, job: Job) -> Response:
    """Let it wait for its turn again; it goes on from its newest checkpoint that verifies."""
    return answer(await asked.resume(peer, job))


@router.post(
    "/v1/jobs/{job}/retry", responses=described(Told, "What was done.", body=True, job=True)
)
async def retry(peer: Asker, asked: Asked, job: Job, retrying: Retry | None = None) -> Response:
    """Try a failed job again, or items of a batch job that were set aside."""
    return answer(await asked.retry(peer, job, None if retrying is None else retrying.items))


@router.delete("/v1/jobs/{job}", responses=_TOLD)
async def remove(peer: Asker, asked: Asked, job: Job) -> Response:
    """Forget an ended job, with its folder of logs; checkpoints and outputs stay."""
    return answer(await asked.remove(peer, job))
