"""The application: all routes, their form of refusal, and what a request meets first.

Owns how these are put together. Who asks is found before, by `gate`; the app trusts the peer that
it is given and serves nobody without one.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from supervisor.daemon.api import control, errors, host, jobs, streams
from supervisor.daemon.api.asking import paths, queries
from supervisor.daemon.api.errors import API, API_HEADER, NotJson
from supervisor.daemon.api.facade import Facade
from supervisor.daemon.api.limits import Limits, body_problem
from supervisor.daemon.api.mistakes import mistake
from supervisor.daemon.api.refusals import RefusalLog
from supervisor.daemon.api.sources import Recent
from supervisor.daemon.api.stream import Streams
from supervisor.daemon.contracts import Refusal
from supervisor.host.lean import structlog

Metrics = Callable[[], Awaitable[bytes]]
ROUTERS = (jobs.router, control.router, streams.router, host.router)
_DESCRIPTION = """\
The daemon of `supervise`: it queues jobs and keeps them alive. Served on a Unix socket, where the
kernel says who asks, or over TCP with a bearer token. Everybody who may connect sees all jobs; logs
and control are for a job's owner and for admins. Errors have one form, `{"error": {"kind",
"message"}}`; kinds are stable, messages are for people. Later versions add keys, and never rename
them."""


def make_app(
    daemon: Facade, metrics: Metrics | None = None, limits: Limits | None = None
) -> FastAPI:
    """The API of a daemon. `metrics` makes the Prometheus text."""
    limits = limits or Limits()
    app = FastAPI(
        title="supervise",
        version=API,
        description=_DESCRIPTION,
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.daemon = daemon
    app.state.metrics = metrics
    app.state.limits = limits
    app.state.streams = Streams(limits.streams_per_user)
    app.state.recent = Recent()
    app.state.refusals = RefusalLog()
    app.state.queries = queries(*ROUTERS)
    app.state.paths = paths(*ROUTERS)
    for router in ROUTERS:
        app.include_router(router)
    errors.install(app)
    app.add_middleware(Threshold, limits=limits)
    return app


class Threshold:
    """Reads bodies before they are parsed, and answers for what nobody expected."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limits = limits
        self._log = structlog.get_logger()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def marked(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start" and not begun:
                begun = True
                _mark(message)
            await send(message)

        try:
            if scope["method"] == "POST":
                content = await _content(receive)
                if content is None:
                    return
                self._look_at(scope, content)
                receive = _again(content, receive)
            await self._app(scope, receive, marked)
        except Refusal as refusal:
            await errors.response(refusal)(scope, receive, marked)
        except Exception as error:
            told = mistake(error, self._log, method=scope["method"], path=scope["path"])
            if begun:
                raise ConnectionAbortedError("the answer had begun") from error
            await errors.response(told)(scope, receive, marked)

    def _look_at(self, scope: Scope, content: bytes) -> None:
        if not content:
            return
        types = [value for name, value in scope["headers"] if name == b"content-type"]
        if not types or types[0].split(b";")[0].strip().lower() != b"application/json":
            raise NotJson("the body is not JSON: say `Content-Type: application/json`")
        problem = body_problem(self._limits, content)
        if problem is not None:
            raise problem


def _mark(message: MutableMapping[str, Any]) -> None:
    marked = (API_HEADER.lower().encode(), API.encode())
    headers = list(message.get("headers", ()))
    if marked not in headers:
        message["headers"] = [*headers, marked]


async def _content(receive: Receive) -> bytes | None:
    """The body; None where the client went away before its end."""
    pieces = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(pieces)


def _again(content: bytes, receive: Receive) -> Receive:
    """Give what was read once more."""
    left = [{"type": "http.request", "body": content, "more_body": False}]

    async def given() -> Message:
        return left.pop() if left else await receive()

    return given
