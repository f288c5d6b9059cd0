"""One connection to the daemon: requests out, JSON back.

Owns HTTP/1.1 over a Unix socket, or over TCP with a token; knows no route. Invariant: a request is
sent at most once, for it may change something: only one that was refused for its rate, and so was
never looked at, is sent again.
"""

import http.client
import json
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from supervisor import __version__
from supervisor.client.errors import ClientError, DaemonGone, Refused, TooNew, TooOld

if TYPE_CHECKING:
    from supervisor.client.streams import Said

Json = Any  # what json.loads gives
Dial = Callable[[], socket.socket]

API = 1
API_HEADER = "Supervise-Api"  # which versions of the API the daemon speaks: `1`, or `1, 2`
ANSWER_S = 30.0
SILENCE_S = 60.0  # a stream sends at least a comment within this time
END = "end"  # the last event of a stream
BUSY_TURNS = 10
BUSY_LONGEST_S = 10.0
SHOWN = 200


class Connection:
    """Requests to one daemon, over one connection that is kept for the next.

    `dial` connects, or raises a ClientError; `where` names the daemon in messages.
    """

    def __init__(self, dial: Dial, where: str, headers: dict[str, str] | None = None) -> None:
        self.where = where
        self._dial = dial
        self._headers = {"User-Agent": f"supervise/{__version__}"} | (headers or {})
        self._http: _Dialled | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connect(self) -> None:
        """Connect now. Raises what `dial` raises."""
        if self._http is None:
            fresh = _Dialled(self._dial)
            fresh.connect()
            self._http = fresh

    def another(self) -> "Connection":
        """A second connection to the same daemon."""
        return Connection(self._dial, self.where, self._headers)

    def close(self) -> None:
        """Hang up. The next request connects again."""
        if self._http is not None:
            self._http.close()
            self._http = None

    def request(self, method: str, path: str, body: Json = None, limit_s: float = ANSWER_S) -> Json:
        """The daemon's answer, as JSON; None where it is empty.

        Raises:
            NoDaemon, NotAllowed, Untrusted: it was not reached.
            DaemonGone: it went away, or said nothing for `limit_s`.
            Refused: it said no.
            OtherVersion: it speaks another version of the API.
        """
        for turn in range(BUSY_TURNS):
            response, content = self._answer(method, path, body, limit_s)
            wait_s = _asked_to_wait(response) if turn < BUSY_TURNS - 1 else None
            if wait_s is None:
                break
            time.sleep(wait_s)
        return _understood(response, content, self.where)

    def stream(self, path: str, silence_s: float = SILENCE_S) -> "Iterator[Said]":
        """What the daemon tells as it happens, until it has no more to say.

        Raises as `request` does; DaemonGone also when the daemon falls silent.
        """
        from supervisor.client.streams import events_of  # noqa: PLC0415 - few verbs stream

        try:
            response = self._sent("GET", path, None, silence_s)
            if response.status != http.client.OK:
                _understood(response, response.read(), self.where)
            for said in events_of(response):
                yield said
                if said.event == END:
                    return
            # Lines end in the same way where a daemon dies; only it says that it has said all.
            raise DaemonGone("it went away in the middle of its answer", changes=False)
        except (OSError, http.client.HTTPException) as error:
            raise DaemonGone(_words(error, silence_s), changes=False) from error
        finally:
            self.close()

    def _answer(
        self, method: str, path: str, body: Json, limit_s: float
    ) -> tuple[http.client.HTTPResponse, bytes]:
        try:
            response = self._sent(method, path, body, limit_s)
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise DaemonGone(_words(error, limit_s), changes=method != "GET") from error
        except BaseException:  # an interrupt: half an answer is in the way of the next request
            self.close()
            raise
        if response.will_close:
            self.close()
        return response, content

    def _sent(self, method: str, path: str, body: Json, limit_s: float) -> http.client.HTTPResponse:
        http_ = self._ready(limit_s)
        headers = {"Accept": "application/json"} | self._headers
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        with suppress(BrokenPipeError, ConnectionResetError):
            # A daemon that will not read a request to its end may have said why.
            http_.request(method, path, body=data, headers=headers)
        return http_.getresponse()

    def _ready(self, limit_s: float) -> "_Dialled":
        """The connection, a new one where the daemon has hung up meanwhile."""
        if self._http is not None and self._http.hung_up():
            self.close()
        self.connect()
        assert self._http is not None  # noqa: S101 - for the type checker: `connect` sees to it
        self._http.sock.settimeout(limit_s)
        return self._http


class _Dialled(http.client.HTTPConnection):
    """An HTTP connection over a socket that somebody else connects."""

    auto_open = 0  # a request is never sent twice behind our back

    def __init__(self, dial: Dial) -> None:
        super().__init__("localhost")
        self._dial = dial

    def connect(self) -> None:
        """Connect, in the way that was given."""
        self.sock = self._dial()

    def hung_up(self) -> bool:
        """Whether there is nobody any more: between two requests nothing may come but the end."""
        return self.sock is None or bool(select.select([self.sock], [], [], 0)[0])


def _asked_to_wait(response: http.client.HTTPResponse) -> float | None:
    """How long a daemon that was asked too often wants to be left alone."""
    if response.status != http.client.TOO_MANY_REQUESTS:
        return None
    try:
        asked = float(response.headers.get("Retry-After", "1"))
    except ValueError:  # a date, which no daemon of ours sends
        asked = 1.0
    return min(max(asked, 0.05), BUSY_LONGEST_S)


def _understood(response: http.client.HTTPResponse, content: bytes, where: str) -> Json:
    ok = response.status < http.client.MULTIPLE_CHOICES
    if not ok:
        # A daemon of another version may lack the very route; then that is what is wrong.
        _check_version(response.headers.get(API_HEADER))
    try:
        answer = json.loads(content) if content else None
    except ValueError as error:
        raise ClientError(
            f"{where} does not speak as a daemon does: it answered {response.status} with "
            f"{content[:SHOWN]!r}. Is something else listening there?"
        ) from error
    if ok:
        return answer
    told = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(told, dict):
        told = {}
    kind = str(told.get("kind", "unknown"))
    message = str(told.get("message") or f"the daemon answered {response.status} without a reason")
    raise Refused(response.status, kind, message)


def _check_version(spoken: str | None) -> None:
    known = [int(one) for one in (spoken or "").replace(",", " ").split() if one.isdigit()]
    if not known or API in known:
        return
    newer = min(known) > API
    told = f"the daemon speaks version {spoken} of the API, this program version {API}"
    if newer:
        raise TooNew(f"{told}: upgrade the program that you called")
    raise TooOld(f"{told}: upgrade the daemon, and restart it: its jobs go on meanwhile")


def _words(error: Exception, limit_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing came for {limit_s:g} s"
    if isinstance(error, http.client.IncompleteRead):
        return "it went away in the middle of its answer"
    if isinstance(error, (http.client.RemoteDisconnected, ConnectionError)):
        return "it went away"
    return str(error) or type(error).__name__
