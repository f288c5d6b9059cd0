"""One connection: uvicorn's HTTP/1.1 protocol, with bounds on all that a client may do to it.

Owns what happens before there is a request, and when there is none: a head that is too large, a
client that stalls, one that does not read, one too many. Each is refused in words where HTTP still
allows it, then cut off. Invariant: one call here takes a few milliseconds at most, whatever was
sent, for it is the event loop that waits.
"""

import asyncio
import logging
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import h11
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from supervisor.daemon.api.errors import (
    BadRequest,
    HeadTooLarge,
    RequestTimeout,
    raw_response,
)
from supervisor.daemon.api.gate import CREDENTIALS
from supervisor.daemon.api.limits import Crowd, Limits, head_problem
from supervisor.daemon.api.refusals import RefusalLog
from supervisor.daemon.contracts import Refusal
from supervisor.daemon.peers import credentials
from supervisor.host.lean import structlog

SLICE = 16 * 1024  # so much is parsed at once: a head in it takes 6 ms at worst
_BEFORE_ANSWER = (h11.IDLE, h11.SEND_RESPONSE)
_RECEIVED = (h11.DONE, h11.MUST_CLOSE, h11.CLOSED)


@dataclass(frozen=True, slots=True)
class Listening:
    """What all connections of a server share."""

    config: Config
    state: ServerState
    limits: Limits
    crowd: Crowd
    refusals: RefusalLog
    log: logging.Logger


class Refused(h11.RemoteProtocolError):
    """A head that is HTTP, and refused all the same."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal), error_status_hint=refusal.status)
        self.refusal = refusal


class Strict(h11.Connection):
    """h11, with an opinion on heads."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(h11.SERVER, limits.head_bytes)
        self._limits = limits

    def next_event(self) -> Any:  # noqa: ANN401 - as h11 declares its events
        """The next event. Raises Refused where the head of a request is beyond a bound."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            problem = head_problem(self._limits, event.target, event.headers)
            if problem is not None:
                raise Refused(problem)
        return event


class Connection(H11Protocol):
    """The server's end."""

    def __init__(self, shared: Listening) -> None:
        super().__init__(shared.config, shared.state, {})
        self.logger = shared.log
        self.conn = Strict(shared.limits)
        # uvicorn's own would wait for ever until what it wrote is read.
        self.timeout_keep_alive_handler = self._idle  # type: ignore[method-assign] # see above
        self._shared = shared
        self._limits = shared.limits
        self._uid: int | None = None
        self._counted = False
        self._deaf = False  # refused: what still comes is thrown away
        self._unparsed = b""
        self._waiting_for = ""  # which part of a request is due
        self._due: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's own
        """Find out who that is, and whether there is room."""
        super().connection_made(transport)
        try:
            seen = credentials(transport.get_extra_info("socket"))
        except OSError:
            transport.abort()
            return
        self._uid = None if seen is None else seen.uid
        self.app_state = {CREDENTIALS: seen}
        try:
            self._shared.crowd.enter(self._uid)
        except Refusal as refusal:
            # Nothing is awaited of this one: to linger would hold what there is too little of.
            self._shared.refusals.tell(refusal, self._uid)
            self._deaf = True
            transport.write(raw_response(refusal))
            transport.close()
            return
        self._counted = True
        self._expect("head", self._limits.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        for timer in (self._due, self._unread):
            if timer is not None:
                timer.cancel()
        if self._counted:
            self._counted = False
            self._shared.crowd.leave(self._uid)

    def data_received(self, data: bytes) -> None:
        """Parse it, a slice at a time; the next request waits until this one is answered."""
        if self._deaf:
            return
        self._unparsed += data
        self._parse()

    def _parse(self) -> None:
        while self._unparsed and not self._deaf and not self.transport.is_closing():
            if self.conn.their_state in _RECEIVED:
                self.flow.pause_reading()
                break
            part, self._unparsed = self._unparsed[:SLICE], self._unparsed[SLICE:]
            super().data_received(part)
        self._watch()

    def on_response_complete(self) -> None:
        """Go on with what came meanwhile."""
        super().on_response_complete()
        if self._unparsed:
            self._parse()

    def _watch(self) -> None:
        """Set the time for what is due; a request that is complete is not waited for any more."""
        if self._deaf or self.transport.is_closing():
            return
        if self.conn.their_state is h11.SEND_BODY:
            self._expect("body", self._limits.body_s)
        elif self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._expect("head", self._limits.head_s)
        elif self._due is not None:
            self._due.cancel()
            self._due, self._waiting_for = None, ""

    def _expect(self, part: str, within_s: float) -> None:
        if self._waiting_for == part:
            return  # the time runs from the first byte: a trickle does not stretch it
        if self._due is not None:
            self._due.cancel()
        self._waiting_for = part
        self._due = self.loop.call_later(within_s, self._overdue, part, within_s)

    def _overdue(self, part: str, within_s: float) -> None:
        self._due = None
        self._refuse(
            RequestTimeout(f"the {part} of the request was not complete in {within_s:g} s")
        )

    def send_400_response(self, msg: str) -> None:
        """Refuse what was just parsed; uvicorn calls this where h11 has raised."""
        error = sys.exc_info()[1]
        if isinstance(error, Refused):
            self._refuse(error.refusal)
        elif getattr(error, "error_status_hint", 0) == HeadTooLarge.status:
            most = self._limits.head_bytes // 1024
            self._refuse(HeadTooLarge(f"the header is larger than {most} KiB"))
        else:
            self._refuse(BadRequest(f"this is not HTTP/1.1: {error or msg}"))

    def _refuse(self, refusal: Refusal) -> None:
        """Say why, if no answer has begun, and close; what still comes is thrown away.

        Closing at once would lose the words: a socket with unread data is reset.
        """
        self._shared.refusals.tell(refusal, self._uid)
        can_answer = self.conn.our_state in _BEFORE_ANSWER
        self._deaf, self._unparsed = True, b""
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if not can_answer:
            self._close()
            return
        self.transport.write(raw_response(refusal))
        self.transport.write_eof()
        self.flow.resume_reading()
        self.loop.call_later(self._limits.linger_s, self.transport.abort)

    def _close(self) -> None:
        """Close, and do not wait for ever until what was written is read."""
        self.transport.close()
        self.loop.call_later(self._limits.linger_s, self.transport.abort)

    def _idle(self) -> None:
        if not self._deaf:
            self._close()

    def pause_writing(self) -> None:
        """The client does not read: it has some time to begin."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self._limits.unread_s, self._abandon)

    def resume_writing(self) -> None:
        """It has read."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _abandon(self) -> None:
        self._shared.refusals.tell(RequestTimeout("it reads nothing of what is sent"), self._uid)
        self.transport.abort()

    def shutdown(self) -> None:
        """End it after the answer that is being given."""
        if self._deaf:
            self.transport.abort()
            return
        with suppress(h11.LocalProtocolError):  # a request was half there
            super().shutdown()
        if self.cycle is None or self.cycle.response_complete:
            self._close()


class ToStructlog(logging.Handler):
    """What uvicorn logs, in the daemon's own log."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write it; that a task was cancelled is how streams end, and no news."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, asyncio.CancelledError | ConnectionAbortedError):
            told = repr(error) if error else None
            structlog.get_logger().error("http", text=record.getMessage().strip(), error=told)


def own_logger() -> logging.Logger:
    """A logger that belongs to nobody else: uvicorn's has the whole process for its audience."""
    logger = logging.Logger("supervise.http", logging.ERROR)  # noqa: LOG001 - see above
    logger.addHandler(ToStructlog())
    return logger
