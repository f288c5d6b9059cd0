"""Wall-clock instants as people and as machines read them.

Owns their formats. All arguments are epoch seconds; nothing here measures a duration.
"""

import time
from datetime import UTC, datetime

from supervisor.core.amounts import seconds

JUST_NOW_S = 1.0
MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400


def now() -> float:
    """This instant."""
    return time.time()


def iso(at_s: float | None) -> str | None:
    """ISO 8601 in UTC, to the millisecond: 2026-03-01T12:03:04.250Z."""
    if at_s is None:
        return None
    text = datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def clock(at_s: float | None) -> str:
    """Local time of day; with the date where that is not today's."""
    if at_s is None:
        return "-"
    then, today = time.localtime(at_s), time.localtime(now())
    pattern = "%H:%M:%S" if then[:3] == today[:3] else "%Y-%m-%d %H:%M:%S"
    return time.strftime(pattern, then)


def instant(at_s: float) -> str:
    """As `clock`, to the millisecond: for what follows upon one another closely."""
    whole_s, thousandths = divmod(round(at_s * 1000), 1000)
    return f"{clock(whole_s)}.{thousandths:03}"


def ago(at_s: float) -> str:
    """How long since, in one unit: 12 s ago, 3 min ago, 2 h ago, 5 d ago."""
    past_s = now() - at_s
    if past_s < JUST_NOW_S:  # also where the clock was set back
        return "just now"
    for unit_s, unit in ((DAY_S, "d"), (HOUR_S, "h"), (MINUTE_S, "min")):
        if past_s >= unit_s:
            return f"{past_s // unit_s:.0f} {unit} ago"
    return f"{past_s:.0f} s ago"


def lasting(duration_s: float | None) -> str:
    """A duration in words, `-` where it is not known."""
    return "-" if duration_s is None else seconds(duration_s)
