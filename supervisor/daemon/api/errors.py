"""How a request is refused: a status, a kind for programs, and words for people.

Owns the form of every answer that says no, whoever says it: the daemon, FastAPI, or the connection
before there was a request. Invariant: a client never sees a traceback.
"""

import json
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from supervisor.daemon.contracts import Peer, Refusal

API_HEADER = "Supervise-Api"
API = "1"
SHOWN_ERRORS = 5
SHOWN_INPUT = 60
JSON_TYPE = "application/json"
_TAGS = frozenset({"frozen", "file"})  # which kind of job was meant: no part of what was sent


class BadRequest(Refusal):
    """It is not HTTP, or not JSON."""

    status = 400


class Unauthorized(Refusal):
    """Nobody knows who asks."""

    status = 401


class NotAllowed(Refusal):
    """This user is not served here."""

    status = 403


class NoSuchRoute(Refusal):
    """There is nothing at this path."""

    status = 404


class NoSuchVersion(Refusal):
    """A version of the API that this daemon does not speak."""

    status = 404


class MethodNotAllowed(Refusal):
    """The path is right, the method is not."""

    status = 405


class RequestTimeout(Refusal):
    """The client began a request and did not finish it in time."""

    status = 408


class LengthRequired(Refusal):
    """A body whose length is not said beforehand."""

    status = 411


class TooLarge(Refusal):
    """The body is too large."""

    status = 413


class TargetTooLong(Refusal):
    """The path and its query are too long."""

    status = 414


class NotJson(Refusal):
    """A body of another type."""

    status = 415


class WrongHost(Refusal):
    """The request was meant for another host: perhaps a page in a browser was misled."""

    status = 421


class InvalidRequest(Refusal):
    """The request is understood, and something in it is wrong."""

    status = 422


class TooManyRequests(Refusal):
    """This user asks more often than one may. `retry_s`: when to ask again."""

    status = 429

    def __init__(self, words: str, retry_s: float = 1.0) -> None:
        super().__init__(words)
        self.retry_s = retry_s


class HeadTooLarge(Refusal):
    """The header is too large."""

    status = 431


class InternalError(Refusal):
    """A mistake of ours."""

    status = 500


class TooManyConnections(Refusal):
    """So many are open that no more are taken."""

    status = 503


class Stopping(Refusal):
    """The daemon is about to end."""

    status = 503


def kind(refusal: Refusal) -> str:
    """The name of its class, for programs: `no_such_job`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(refusal).__name__).lower()


def body(refusal: Refusal) -> bytes:
    """The JSON of an answer that says no."""
    told = {"error": {"kind": kind(refusal), "message": str(refusal)}}
    return json.dumps(told).encode("ascii")


def headers(refusal: Refusal) -> dict[str, str]:
    """What stands beside it."""
    found = {API_HEADER: API}
    if isinstance(refusal, TooManyRequests):
        found["Retry-After"] = f"{max(1, round(refusal.retry_s))}"
    if isinstance(refusal, Unauthorized):
        found["WWW-Authenticate"] = "Bearer"
    return found


def response(refusal: Refusal, extra: Mapping[str, str] | None = None) -> Response:
    """The whole answer."""
    more = headers(refusal) | dict(extra or {})
    return Response(body(refusal), refusal.status, more, JSON_TYPE)


def raw_response(refusal: Refusal) -> bytes:
    """The same as bytes, for a connection that is closed after it."""
    content = body(refusal)
    fields = headers(refusal) | {
        "Content-Type": JSON_TYPE,
        "Content-Length": str(len(content)),
        "Connection": "close",
    }
    lines = [f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + content


def install(app: FastAPI) -> None:
    """Answer in this form, whatever refuses."""

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> Response:
        if error.status == HTTPStatus.FORBIDDEN:  # somebody reached for what is another's
            peer: Peer = request.scope["state"]["peer"]
            request.app.state.refusals.tell(error, peer.uid, path=request.url.path)
        return response(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return response(invalid_request(error.errors()))

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        wrong_method = error.status_code == HTTPStatus.METHOD_NOT_ALLOWED
        allow = {"Allow": ", ".join(_methods(request))} if wrong_method else None
        return response(_translated(request, error), allow)


def invalid_request(errors: Sequence[Mapping[str, Any]]) -> Refusal:
    """What FastAPI found wrong with a request, in words."""
    if errors and errors[0]["type"] == "json_invalid":
        where, what = errors[0]["loc"][-1], errors[0]["ctx"]["error"]
        return BadRequest(f"the body is not JSON: {what}, at character {where}")
    told = [_sentence(one) for one in errors[:SHOWN_ERRORS]]
    more = len(errors) - len(told)
    return InvalidRequest("; ".join(told) + (f"; and {more} more" if more else ""))


def _sentence(error: Mapping[str, Any]) -> str:
    part, *path = error["loc"]
    where = ""
    for one in path:
        if isinstance(one, int):
            where += f"[{one}]"
        elif one not in _TAGS:
            name = one if len(one) <= SHOWN_INPUT else f"{one[:SHOWN_INPUT]}..."
            where += f".{name}" if where else name
    place = f"{part}: {where}" if where else str(part)
    if error["type"] == "extra_forbidden":
        return f"{place}: there is no such field"
    if error["type"] == "missing":
        return f"{place}: is required"
    message = str(error["msg"]).removeprefix("Value error, ")
    given = error.get("input")
    shown = "" if isinstance(given, dict | list | None) else f" (given: {_short(given)})"
    return f"{place}: {message[:1].lower()}{message[1:]}{shown}"


def _short(value: object) -> str:
    text = ascii(value[: SHOWN_INPUT + 1] if isinstance(value, str) else value)
    return text if len(text) <= SHOWN_INPUT else text[:SHOWN_INPUT] + "..."


def _methods(request: Request) -> list[str]:
    """The methods of all routes at this path; the router names those of the first alone."""
    path = request.scope["path"]
    found: set[str] = set()
    for looks_like, methods in request.app.state.paths:
        if looks_like.match(path):
            found |= methods
    return sorted(found)


def _translated(request: Request, error: HTTPException) -> Refusal:
    path = request.url.path
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        may = ", ".join(_methods(request))
        return MethodNotAllowed(f"{path} is not for {request.method}: use {may}")
    if error.status_code == HTTPStatus.NOT_FOUND:
        asked = re.match(r"/v(\d+)(?:/|$)", path)
        if asked and asked[1] != API:
            return NoSuchVersion(
                f"version {_short(asked[1])} of the API is not spoken here, version {API} is: use "
                f"/v{API}, or a daemon that is {'newer' if asked[1] > API else 'older'}"
            )
        return NoSuchRoute(f"there is nothing at {_short(path)}; /openapi.json lists all there is")
    # All that is left is a body at which the parser gave up.
    return BadRequest("the body cannot be read: it is nested too deeply, or has too long a number")
