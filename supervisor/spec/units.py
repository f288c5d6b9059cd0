"""Durations and sizes as people write them.

Owns the two notations, in both directions; knows no field. What `write_*` writes, `read_*` reads.
"""

import math
import re

from supervisor.spec.problems import BadValue, shown

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_BYTES = {
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("KMGTP", start=1)},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGTP", start=1)},
}
DURATION_PATTERN = r"^\s*([0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d|w)\s*)+$"
SIZE_PATTERN = r"^\s*[0-9]+(\.[0-9]+)?\s*([KMGTP]i?)?B\s*$"

_PART = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")
_LONGEST_TEXT = 60
MAX_DURATION_S = 3650 * 86400.0  # ten years; what is longer is a slip of the unit
MAX_SIZE_BYTES = 1024**5  # one PiB, for the same reason

# What people write instead, and what they mean by it.
_OTHER_TIMES = {
    **dict.fromkeys(("millis", "milliseconds", "msec", "msecs"), "ms"),
    **dict.fromkeys(("sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), "m"),
    **dict.fromkeys(("hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("day", "days"), "d"),
    **dict.fromkeys(("week", "weeks"), "w"),
}


def read_duration(value: object) -> float:
    """Return seconds for `90s`, `1h30m`, or a plain number of seconds; BadValue otherwise."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _in_reach(value)
    if not isinstance(value, str):
        raise BadValue(f"{shown(value)} is not a duration", "write one such as 90s, 10m, 2h or 7d")
    if value.strip().isdigit() and value.isascii() and len(value) < _LONGEST_TEXT:
        return _in_reach(int(value))
    parts = _parts(value)
    if not parts or any(unit not in _SECONDS for _, unit in parts):
        raise BadValue(f"{shown(value)} is not a duration", _meant_duration(value))
    return _in_reach(round(sum(float(count) * _SECONDS[unit] for count, unit in parts), 6))


def _in_reach(seconds: float) -> float:
    if not math.isfinite(seconds) or seconds < 0:
        raise BadValue(
            f"{shown(seconds)} is not a duration", "a duration is a finite number, not negative"
        )
    if seconds > MAX_DURATION_S:
        raise BadValue("this is longer than ten years", "check the unit: ms, s, m, h, d, w")
    return float(seconds)


def _parts(text: str) -> list[tuple[str, str]]:
    """Split `1h30m` into counts and units; nothing when the text has any other shape."""
    found, at = [], 0
    if len(text) > _LONGEST_TEXT:
        return []
    while at < len(text):
        match = _PART.match(text, at)
        if match is None:
            return []
        found.append((match[1], match[2]))
        at = match.end()
    return found


def _meant_duration(text: str) -> str:
    clock = re.fullmatch(r"\s*([0-9]{1,3}):([0-9]{2}):([0-9]{2})\s*", text)
    if clock:
        return f"write {int(clock[1])}h{int(clock[2])}m{int(clock[3])}s"
    parts = [(count, _OTHER_TIMES.get(unit.lower(), unit.lower())) for count, unit in _parts(text)]
    if parts and all(unit in _SECONDS for _, unit in parts):
        return f"write {''.join(count + unit for count, unit in parts)}"
    return "write one such as 90s, 10m, 2h, 7d or 1h30m"


def write_duration(seconds: float) -> str:
    """Write seconds as `1h30m`, `90s` as `1m30s`, `0.1` as `100ms`."""
    if 0 < seconds < 1:
        return f"{_trimmed(seconds * 1000)}ms"
    text, rest = "", round(seconds, 6)
    for unit in ("d", "h", "m"):
        count, rest = divmod(rest, _SECONDS[unit])
        text += f"{int(count)}{unit}" if count else ""
    return text + f"{_trimmed(rest)}s" if round(rest, 6) or not text else text


def _trimmed(number: float) -> str:
    text = f"{number:.6f}"
    return text.rstrip("0").rstrip(".")


def read_size(value: object) -> int:
    """Return bytes for `512MiB`, `1.5GB`, or a plain number of bytes; BadValue otherwise."""
    if isinstance(value, int) and not isinstance(value, bool):
        return _fitting(value)
    parts = _parts(value) if isinstance(value, str) else []
    if len(parts) != 1 or parts[0][1] not in _BYTES:
        raise BadValue(f"{shown(value)} is not a size", _meant_size(parts))
    count, unit = parts[0]
    return _fitting(round(float(count) * _BYTES[unit]))


def _fitting(count: int) -> int:
    if count < 0:
        raise BadValue(f"{shown(count)} is not a size", "a size is not negative")
    if count > MAX_SIZE_BYTES:
        raise BadValue("this is more than a PiB", "check the unit: B, KiB, MiB, GiB, TiB")
    return count


def _meant_size(parts: list[tuple[str, str]]) -> str:
    if len(parts) == 1:
        count, unit = parts[0]
        letter = unit[:1].upper()
        if letter and letter in "KMGTP":
            return f"write {count}{letter}iB (1024-based) or {count}{letter}B (1000-based)"
    return "write one such as 512MiB, 20GiB or 1GB"


def write_size(count: int) -> str:
    """Write bytes in the largest unit that divides them exactly."""
    fitting = [unit for unit, factor in _BYTES.items() if count and count % factor == 0]
    unit = max(fitting, key=lambda name: _BYTES[name], default="B")
    return f"{count // _BYTES[unit]}{unit}"
