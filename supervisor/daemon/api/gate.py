"""Who comes in.

Owns finding out who asks, before anything else is looked at: by the credentials that the kernel
gives of a Unix connection, over TCP by a bearer token, and there only where the Host header names
this host, so that a page in somebody's browser cannot be made to ask (DNS rebinding). Invariant: a
request passes with a peer in its state, or not at all.
"""

import hmac
import ipaddress
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Receive, Scope, Send

from supervisor.daemon.api.asking import PEER
from supervisor.daemon.api.errors import Unauthorized, WrongHost, response
from supervisor.daemon.api.limits import Limits, Rates
from supervisor.daemon.api.refusals import RefusalLog
from supervisor.daemon.contracts import Peer, Refusal
from supervisor.daemon.peers import Credentials, Peers, owner

CREDENTIALS = "credentials"  # where those of the connection stand in the state of a request


@dataclass(frozen=True, slots=True)
class Entry:
    """What is demanded. `token` None: nobody comes in over TCP. `hosts` are names of this host."""

    peers: Peers
    limits: Limits = field(default_factory=Limits)
    token: str | None = None
    hosts: frozenset[str] = frozenset()
    refusals: RefusalLog = field(default_factory=RefusalLog)


class Gate:
    """The application behind it serves those alone who may."""

    def __init__(
        self, app: ASGIApp, entry: Entry, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._entry = entry
        self._clock = clock
        self._rates = Rates(entry.limits)
        self._hosts = entry.hosts | {"localhost", *own_names()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer that it may not."""
        if scope["type"] != "http":
            return
        try:
            scope["state"][PEER] = await self._peer(scope)
        except Refusal as refusal:
            seen: Credentials | None = scope["state"].get(CREDENTIALS)
            uid = None if seen is None else seen.uid
            self._entry.refusals.tell(refusal, uid, path=scope["path"])
            await response(refusal)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _peer(self, scope: Scope) -> Peer:
        seen: Credentials | None = scope["state"].get(CREDENTIALS)
        cost = 1 + _length(scope["headers"]) // self._entry.limits.cost_bytes
        self._rates.spend(None if seen is None else seen.uid, cost, self._clock())
        if seen is not None:
            return await self._entry.peers.of(seen)
        self._see_host(scope["headers"])
        self._see_token(scope["headers"])
        return owner()

    def _see_host(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        named = [value.decode("latin-1") for name, value in headers if name == b"host"]
        if len(named) != 1 or not is_this_host(named[0], self._hosts):
            given = ascii(named[0])[:80] if named else "nothing"
            raise WrongHost(
                f"the Host header names {given}, which is not known as this host. Ask by its "
                "address, or as localhost"
            )

    def _see_token(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        given = [value for name, value in headers if name == b"authorization"]
        scheme, _, token = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        wanted = (self._entry.token or "").encode()
        same = hmac.compare_digest(token.strip(), wanted)
        if scheme.lower() != b"bearer" or not wanted or not same:
            raise Unauthorized("over TCP a token is wanted: `Authorization: Bearer TOKEN`")


def is_this_host(text: str, names: frozenset[str]) -> bool:
    """Whether a Host header can only mean us: an address, or one of these names.

    An address is no name that somebody else could have pointed here.
    """
    host = text.rpartition(":")[0] if text.rpartition(":")[2].isdigit() else text
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if host.lower().rstrip(".") in names:
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def own_names() -> frozenset[str]:
    """What this host calls itself."""
    name = socket.gethostname().lower()
    return frozenset({name, name.partition(".")[0]}) - {""}


def _length(headers: Iterable[tuple[bytes, bytes]]) -> int:
    return next((int(value) for name, value in headers if name == b"content-length"), 0)
