"""The log of refusals.

Owns what is written about those who were turned away: who, what for, and where. Invariant: whoever
is refused again and again fills no disk: after some lines only one a second is written of each
user, with how many were left out.
"""

import time
from collections import Counter
from collections.abc import Callable

from supervisor.daemon.api.errors import TooManyRequests, kind
from supervisor.daemon.api.limits import Limits, Rates
from supervisor.daemon.contracts import Refusal
from supervisor.host.lean import structlog

LINES = 20
LINES_PER_S = 1.0


class RefusalLog:
    """Writes refusals down, sparingly."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rates = Rates(Limits(burst=LINES, requests_per_s=LINES_PER_S))
        self._left_out: Counter[int | None] = Counter()

    def tell(self, refusal: Refusal, uid: int | None, **where: object) -> None:
        """Write a refusal; `uid` None is whoever came over TCP without a token."""
        try:
            self._rates.spend(uid, 1, self._clock())
        except TooManyRequests:
            self._left_out[uid] += 1
            return
        left_out = self._left_out.pop(uid, 0)
        more = {"left_out": left_out} if left_out else {}
        structlog.get_logger().warning(
            "refused", kind=kind(refusal), why=str(refusal), uid=uid, **where, **more
        )
