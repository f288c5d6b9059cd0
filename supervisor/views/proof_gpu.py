"""What the evidence of an attempt says of GPUs, memory and disks, in lines for `explain`.

Owns the wording. Works on stored JSON, of which any part may be missing.
"""

from collections.abc import Iterator
from typing import Any

from supervisor.core.amounts import seconds, size

Raw = dict[str, Any]

BARS = "▁▂▃▄▅▆▇█"
MOST_BARS = 40


def held(raw: Raw) -> str | None:
    """The GPUs it had."""
    gpus = raw.get("gpus") or ()
    return f"it held {', '.join(map(str, gpus))}" if gpus else None


def curve(raw: Raw) -> str | None:
    """How its GPU memory went, as a line of bars, with the first and the highest value."""
    points = [(one["after_s"], one["used_bytes"]) for one in raw.get("gpu_curve") or ()]
    if len(points) < 2 or not any(used for _, used in points):  # noqa: PLR2004 - a line has two ends
        return None
    step = -(-len(points) // MOST_BARS)
    shown = [max(used for _, used in points[at : at + step]) for at in range(0, len(points), step)]
    top = max(shown)
    bars = "".join(BARS[round(used / top * (len(BARS) - 1))] for used in shown)
    over = seconds(points[-1][0] - points[0][0])
    return f"GPU memory {bars} up to {size(top)} in {over}"


def troubles(raw: Raw) -> str | None:
    """What the driver or the kernel said of its GPUs meanwhile."""
    found = list(dict.fromkeys(_trouble(one) for one in raw.get("gpu_troubles") or ()))
    return f"GPU trouble: {'; '.join(found)}" if found else None


def _trouble(one: Raw) -> str:
    return f"{one.get('text')} ({one.get('uuid')})"


def oom(raw: Raw) -> str | None:
    """What the kernel killed of it."""
    found = raw.get("oom")
    if not found:
        return None
    facts = ", ".join(_figures(found))
    return f"the kernel killed {found.get('kills')} of its processes for memory ({facts})"


def _figures(found: Raw) -> Iterator[str]:
    yield str(found.get("source"))
    for key, word in (("peak_bytes", "at most"), ("limit_bytes", "limit")):
        if found.get(key) is not None:
            yield f"{word} {size(found[key])}"


def no_room(raw: Raw) -> str | None:
    """Which disk was full when it ended."""
    return f"disk: {raw['no_room']}" if raw.get("no_room") else None
