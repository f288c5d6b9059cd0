"""How much one client, and all of them, may take of the daemon.

Owns the bounds and the counting; refuses in words, closes nothing. Pure: the time is an argument.
Invariant: what a user takes is counted by uid, so nobody is bounded by what others do, except where
the host itself is full; root gets in even then.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from supervisor.daemon.api.errors import (
    BadRequest,
    HeadTooLarge,
    LengthRequired,
    TargetTooLong,
    TooLarge,
    TooManyConnections,
    TooManyRequests,
)
from supervisor.daemon.contracts import Refusal

KIB = 1024
MIB = 1024 * KIB
DIGITS = 18  # longer numbers are not even read
FORGET_ABOVE = 1000  # so many users are remembered before full buckets are forgotten


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """All bounds; `..._s` in seconds.

    A request must be complete within `head_s` and then `body_s`; what is sent must be taken within
    `unread_s`; after a refusal the rest of a request is thrown away for `linger_s`. `values` bounds
    brackets and commas of a body, which is what parsing it costs.
    """

    head_bytes: int = 16 * KIB
    target_bytes: int = 4 * KIB
    fields: int = 100
    body_bytes: int = 4 * MIB
    values: int = 150_000
    head_s: float = 10.0
    body_s: float = 30.0
    unread_s: float = 30.0
    idle_s: float = 75.0
    linger_s: float = 2.0
    connections: int = 800
    reserved: int = 32
    connections_per_user: int = 400
    streams_per_user: int = 64
    requests_per_s: float = 5000.0
    burst: float = 10_000.0
    cost_bytes: int = 16 * KIB
    stop_s: float = 3.0


def head_problem(
    limits: Limits, target: bytes, fields: Iterable[tuple[bytes, bytes]]
) -> Refusal | None:
    """What is wrong with the head of a request; None if nothing is.

    `fields` are header names, in lower case, and values.
    """
    if len(target) > limits.target_bytes:
        return TargetTooLong(f"the path and its query are longer than {limits.target_bytes} bytes")
    if not target.startswith(b"/"):
        return BadRequest("the request does not name a path: one begins with /")
    count = 0
    for name, value in fields:
        count += 1
        if name == b"transfer-encoding":
            return LengthRequired(
                "say the length of the body (Content-Length): chunks are not read"
            )
        if name == b"content-length" and (len(value) > DIGITS or int(value) > limits.body_bytes):
            return TooLarge(
                f"the body is larger than {limits.body_bytes // MIB} MiB. Submit fewer jobs at once"
            )
    if count > limits.fields:
        return HeadTooLarge(f"the header has {count} fields; {limits.fields} are the most")
    return None


def body_problem(limits: Limits, content: bytes) -> Refusal | None:
    """What would make JSON too costly to parse; None if nothing does."""
    values = sum(content.count(one) for one in (b"[", b"{", b","))
    if values > limits.values:
        return TooLarge(f"the body holds more than {limits.values} values. Submit fewer at once")
    return None


class Crowd:
    """Who is connected, counted by uid; None stands for those who come over TCP."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._by_user: Counter[int | None] = Counter()
        self._all = 0

    def enter(self, uid: int | None) -> None:
        """Count one in. Raises TooManyConnections; then it is not counted."""
        limits = self._limits
        if self._by_user[uid] >= limits.connections_per_user:
            raise TooManyConnections(
                f"{limits.connections_per_user} connections of yours are open; close some"
            )
        if self._all >= limits.connections + (limits.reserved if uid == 0 else 0):
            raise TooManyConnections(f"{self._all} connections are open, as many as are served")
        self._by_user[uid] += 1
        self._all += 1

    def leave(self, uid: int | None) -> None:
        """Count one out."""
        self._all -= 1
        self._by_user[uid] -= 1
        if not self._by_user[uid]:
            del self._by_user[uid]


class Rates:
    """How often each user may ask: a token bucket for each."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._left: dict[int | None, tuple[float, float]] = {}

    def spend(self, uid: int | None, cost: float, now_s: float) -> None:
        """Take `cost` from a user's bucket. Raises TooManyRequests when it is empty."""
        limits = self._limits
        left, seen_s = self._left.get(uid, (limits.burst, now_s))
        left = min(limits.burst, left + (now_s - seen_s) * limits.requests_per_s)
        if left < min(cost, limits.burst):
            self._left[uid] = (left, now_s)
            raise TooManyRequests(
                f"more than {limits.requests_per_s:g} requests a second; wait a moment",
                (cost - left) / limits.requests_per_s,
            )
        self._left[uid] = (left - cost, now_s)
        if len(self._left) > FORGET_ABOVE:
            self._forget(now_s)

    def _forget(self, now_s: float) -> None:
        full_after_s = self._limits.burst / self._limits.requests_per_s
        self._left = {
            uid: (left, seen_s)
            for uid, (left, seen_s) in self._left.items()
            if now_s - seen_s < full_after_s
        }
