"""Server-sent events: a source of events becomes an answer that does not end by itself.

Owns the format (https://html.spec.whatwg.org/multipage/server-sent-events.html), the heartbeat, and
how a stream ends: its source is exhausted, its client is gone, or the daemon stops. What a client
does not read stays with the source, which is not asked for more meanwhile.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from supervisor.daemon.api.answers import encoded
from supervisor.daemon.api.errors import (
    Stopping,
    TooManyRequests,
    kind,
    response,
)
from supervisor.daemon.api.mistakes import mistake
from supervisor.daemon.contracts import Json, Peer, Refusal
from supervisor.host.lean import structlog

HEARTBEAT_S = 15.0
_ALIVE = b": alive\n\n"
_AGAIN = b"retry: 1000\n\n"  # in milliseconds: when a client that lost the stream asks again


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `id` is what a client sends as Last-Event-ID to go on behind it."""

    name: str
    data: Json
    id: str | None = None

    def encoded(self) -> bytes:
        """The bytes of it. JSON has no line breaks, so its data is one line."""
        head = f"id: {self.id}\n" if self.id is not None else ""
        return f"{head}event: {self.name}\ndata: ".encode("ascii") + encoded(self.data) + b"\n\n"


Source = AsyncGenerator[Event, None]


class Streams:
    """All open streams, counted by user. `closing` is set when the daemon is about to end."""

    def __init__(self, per_user: int, heartbeat_s: float = HEARTBEAT_S) -> None:
        self.closing = asyncio.Event()
        self.heartbeat_s = heartbeat_s
        self._per_user = per_user
        self._open: Counter[int] = Counter()

    def __len__(self) -> int:
        return self._open.total()

    def enter(self, peer: Peer) -> None:
        """Count one in. Raises TooManyRequests or Stopping; then it is not counted."""
        if self.closing.is_set():
            raise Stopping("the daemon is about to stop; ask again when it is back")
        if self._open[peer.uid] >= self._per_user:
            raise TooManyRequests(f"{self._per_user} streams of yours are open; close some")
        self._open[peer.uid] += 1

    def leave(self, peer: Peer) -> None:
        """Count one out."""
        self._open[peer.uid] -= 1
        if not self._open[peer.uid]:
            del self._open[peer.uid]


class EventStream(Response):
    """The answer. It closes its source, whatever happens."""

    def __init__(self, streams: Streams, peer: Peer, source: Source) -> None:
        super().__init__(media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._streams = streams
        self._peer = peer
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until there are no more, or nobody is there."""
        try:
            self._streams.enter(self._peer)
        except Refusal as refusal:
            await response(refusal)(scope, receive, send)
            return
        try:
            start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(start)
            await _send(send, _AGAIN)
            await self._relay(receive, send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await self._source.aclose()
            self._streams.leave(self._peer)

    async def _relay(self, receive: Receive, send: Send) -> None:
        over: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(until_gone(receive)),
            asyncio.ensure_future(self._streams.closing.wait()),
        ]
        following: asyncio.Future[Event] | None = None
        try:
            while True:
                following = following or asyncio.ensure_future(anext(self._source))
                await asyncio.wait(
                    {following, *over},
                    timeout=self._streams.heartbeat_s,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if any(one.done() for one in over):
                    return
                if not following.done():
                    await _send(send, _ALIVE)
                    continue
                done, following = following, None
                piece = _piece(done)
                if piece is None:
                    return
                await _send(send, piece.encoded())
                if piece.name == "error":
                    return
        finally:
            left: list[asyncio.Future[Any]] = [*over, following] if following else over
            for one in left:
                one.cancel()
            await asyncio.gather(*left, return_exceptions=True)


def _piece(done: asyncio.Future[Event]) -> Event | None:
    """The event that came; None at the end. What went wrong is an event too, and the last."""
    error = done.exception()
    if error is None:
        return done.result()
    if isinstance(error, StopAsyncIteration):
        return None
    if not isinstance(error, Refusal):
        error = mistake(error, structlog.get_logger(), where="a stream")
    return Event("error", {"kind": kind(error), "message": str(error)})


async def _send(send: Send, content: bytes) -> None:
    await send({"type": "http.response.body", "body": content, "more_body": True})


async def until_gone(receive: Receive) -> None:
    """Return when the client is gone. What else it sends is nothing to us."""
    message: Any = None
    while message is None or message["type"] != "http.disconnect":
        message = await receive()
