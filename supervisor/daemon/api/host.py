"""Routes about the host: the daemon, groups, GPUs, metrics.

Owns these paths. Reading is for everybody who may connect.
"""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import PlainTextResponse, Response

from supervisor.daemon.api.answers import answer, described, described_text, listing
from supervisor.daemon.api.asking import Asked, Asker
from supervisor.daemon.api.documents import DaemonStatus, Gpus, Groups, Released
from supervisor.daemon.api.errors import NoSuchRoute

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
router = APIRouter(tags=["host"])
GroupName = Annotated[str, Path(pattern=r"^[^\x00-\x1f\x7f/]+$", max_length=200)]
GpuUuid = Annotated[
    str,
    Path(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9/_-]*$",
        max_length=128,
        examples=["GPU-8f6e1c2a-0000-0000-0000-000000000000"],
    ),
]


@router.get("/v1/daemon", responses=described(DaemonStatus, "The daemon."))
async def daemon(peer: Asker, asked: Asked) -> Response:  # noqa: ARG001 - asking is for known peers
    """The daemon itself: version, state folder, how many jobs it has."""
    return answer(await asked.status())


@router.get("/v1/groups", responses=described(Groups, "The groups."))
async def groups(peer: Asker, asked: Asked) -> Response:
    """One's own groups; an admin sees all."""
    return await listing("groups", await asked.groups(peer))


@router.post(
    "/v1/groups/{name}/release", responses=described(Released, "It is released.", job=True)
)
async def release_group(peer: Asker, asked: Asked, name: GroupName) -> Response:
    """Let a held group start jobs again."""
    return answer(await asked.release_group(peer, name))


@router.get("/v1/gpus", responses=described(Gpus, "The GPUs."))
async def gpus(peer: Asker, asked: Asked) -> Response:
    """The GPUs of the host, and who has them."""
    return await listing("gpus", await asked.gpus(peer))


@router.post(
    "/v1/gpus/{uuid:path}/release", responses=described(Released, "It is released.", job=True)
)
async def release_gpu(peer: Asker, asked: Asked, uuid: GpuUuid) -> Response:
    """Let a GPU that was set aside be used again."""
    return answer(await asked.release_gpu(peer, uuid))


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses=described_text(
        "text/plain", "Prometheus text.", {404: "This daemon keeps no metrics."}
    ),
)
async def metrics(peer: Asker, request: Request) -> Response:  # noqa: ARG001 - as above
    """Prometheus text."""
    source = request.app.state.metrics
    if source is None:
        raise NoSuchRoute("this daemon keeps no metrics")
    return Response(await source(), media_type=METRICS_TYPE)
