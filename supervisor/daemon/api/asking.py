"""Who asks, whom, and about which job: what routes begin with.

Owns the parameters that routes share. The peer was found before the request came here; a request
without one is refused.
"""

import re
from collections.abc import Awaitable, Callable, Iterator
from inspect import signature
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Path, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from supervisor.daemon.api.errors import InvalidRequest, Unauthorized
from supervisor.daemon.api.facade import Facade
from supervisor.daemon.contracts import Peer

T = TypeVar("T")

PEER = "peer"  # where the connection's owner stands in the state of a request


async def _peer(request: Request) -> Peer:
    """Who asks. Also refuses what the query says and this route does not know."""
    if request.scope["query_string"]:
        _refuse_unknown(request)
    found = request.scope.get("state", {}).get(PEER)
    if not isinstance(found, Peer):
        raise Unauthorized("nobody knows who asks")
    return found


async def _daemon(request: Request) -> Facade:
    found: Facade = request.app.state.daemon
    return found


Asker = Annotated[Peer, Depends(_peer)]
Asked = Annotated[Facade, Depends(_daemon)]
Job = Annotated[
    str,
    Path(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=128,
        description="An id, or a name or a beginning of an id that is unique; one's own first.",
        examples=["digits-1a2b3c"],
    ),
]


def at_once(kind: type[T]) -> Callable[..., Awaitable[T]]:
    """A dependency that makes a `kind` of its parameters, here: FastAPI calls a class in a thread.

    Two hops between threads cost a request more than all else that is done for it.
    """

    async def made(**given: Any) -> T:  # noqa: ANN401 - whatever fields `kind` has
        return kind(**given)

    made.__signature__ = signature(kind)  # type: ignore[attr-defined] # what FastAPI looks at
    return made


def queries(*routers: APIRouter) -> dict[str, frozenset[str]]:
    """What the query of each path may say."""
    found: dict[str, frozenset[str]] = {}
    for router in routers:
        for route in router.routes:
            if isinstance(route, APIRoute):
                names = frozenset(_names(route.dependant))
                found[route.path] = found.get(route.path, frozenset()) | names
    return found


def paths(*routers: APIRouter) -> list[tuple[re.Pattern[str], frozenset[str]]]:
    """What paths look like, each with the methods of one route."""
    found = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    return [(route.path_regex, frozenset(route.methods or ())) for route in found]


def _names(dependant: Dependant) -> Iterator[str]:
    yield from (one.alias for one in dependant.query_params)
    for part in dependant.dependencies:
        yield from _names(part)


def _refuse_unknown(request: Request) -> None:
    known = request.app.state.queries.get(request.scope["route"].path, frozenset())
    seen = set()
    for name, _ in request.query_params.multi_items():
        if name not in known:
            may = ", ".join(sorted(known)) or "nothing"
            raise InvalidRequest(f"query: {ascii(name)[:80]} is not known here; may be said: {may}")
        if name in seen:
            raise InvalidRequest(f"query: {name} is said twice")
        seen.add(name)
