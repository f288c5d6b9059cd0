"""Answers as bytes.

Owns the encoding of documents and how routes describe their answers. Documents are encoded as they
come, unchecked: they are made by us, and a model would cost more than all the rest of a request.
Non-ASCII is escaped, so a path that is no UTF-8 survives the journey.
"""

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from starlette.responses import Response

from supervisor.daemon.api.documents import ErrorAnswer
from supervisor.daemon.api.errors import JSON_TYPE
from supervisor.daemon.contracts import Json, ShelfUnavailable

_EVENT = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"type": "string"},
        "data": {"type": "string", "contentMediaType": JSON_TYPE},
        "id": {"type": "string", "description": "Sent as Last-Event-ID it goes on behind."},
    },
}
ROWS_AT_ONCE = 250  # a few milliseconds of encoding; then it is others' turn
_ALWAYS = {
    400: "Not HTTP, or not JSON.",
    401: "Over TCP: the token is missing or wrong.",
    403: "This user is not served here, or it is somebody else's.",
    408: "The request was not complete in time.",
    421: "Over TCP: the Host header names another host.",
    422: "Something in the request is wrong.",
    429: "Too many requests. Retry-After says when to ask again.",
    431: "The header is too large.",
    500: "A mistake of the daemon's; its log has the id that the message names.",
    503: "The daemon is stopping or full, or the user's folder of jobs cannot be used now.",
}
_BODY = {
    411: "The body's length was not said.",
    413: "The body is too large.",
    415: "The body is not application/json.",
}
_JOB = {404: "No such job.", 409: "Several jobs may be meant, or its state does not allow it."}


def encoded(content: Json) -> bytes:
    """JSON of a document. A number that is none (NaN) becomes null.

    Raises ShelfUnavailable: it is nested so deeply as only a clerk that lies does it.
    """
    try:
        try:
            text = json.dumps(content, separators=(",", ":"), allow_nan=False)
        except ValueError:
            text = json.dumps(_finite(content), separators=(",", ":"), allow_nan=False)
    except RecursionError as error:
        raise ShelfUnavailable("what a clerk answered is nested too deeply") from error
    return text.encode("ascii")


def answer(content: Json, status: int = 200) -> Response:
    """A document as an answer."""
    return Response(encoded(content), status, media_type=JSON_TYPE)


async def listing(name: str, rows: Sequence[Json]) -> Response:
    """`{name: rows}`; others get their turn while a long one is encoded."""
    pieces = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        pieces.append(encoded(rows[start : start + ROWS_AT_ONCE])[1:-1])
        await asyncio.sleep(0)
    content = b'{"%b":[%b]}' % (name.encode("ascii"), b",".join(pieces))
    return Response(content, media_type=JSON_TYPE)


def described(
    model: type[BaseModel], words: str, *, status: int = 200, body: bool = False, job: bool = False
) -> dict[int | str, dict[str, Any]]:
    """The answers of a route, for the published description."""
    more = (_BODY if body else {}) | (_JOB if job else {})
    refusals = sorted((_ALWAYS | more).items())
    found: dict[int | str, dict[str, Any]] = {status: {"model": model, "description": words}}
    return found | {
        code: {"model": ErrorAnswer, "description": meaning} for code, meaning in refusals
    }


def described_text(
    media_type: str, words: str, refusals: Mapping[int, str], schema: Json = None
) -> dict[int | str, dict[str, Any]]:
    """The same for a route that answers with text; `refusals` are those of its own."""
    # FastAPI would describe a model of a refusal as being of the route's own media type.
    error = {JSON_TYPE: {"schema": {"$ref": f"#/components/schemas/{ErrorAnswer.__name__}"}}}
    found: dict[int | str, dict[str, Any]] = {
        code: {"description": meaning, "content": error}
        for code, meaning in sorted((_ALWAYS | dict(refusals)).items())
    }
    text = {media_type: {"schema": schema or {"type": "string"}}}
    return {200: {"description": words, "content": text}} | found


def streamed(words: str) -> dict[int | str, dict[str, Any]]:
    """The same for a stream; the schema is that of one event."""
    return described_text("text/event-stream", words, _JOB, _EVENT)


def _finite(content: Json) -> Json:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
