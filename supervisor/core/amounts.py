"""Amounts as people say them.

Owns their wording. Pure; knows no job.
"""


def seconds(duration_s: float) -> str:
    """A duration as people say it: 0.4 s, 12 s, 3 min 20 s, 2 h 05 min, 3 d 4 h."""
    if duration_s < 9.95:  # noqa: PLR2004 - below ten seconds the tenths are worth a place
        return f"{duration_s:.1f} s"
    whole = round(duration_s)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour} h"
    if hours:
        return f"{hours} h {minute:02} min"
    return f"{minutes} min {second:02} s" if minutes else f"{second} s"


def size(count: float) -> str:
    """Bytes as people say them: 812 B, 1.4 MiB, 20 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:  # noqa: PLR2004 - the binary thousand
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
