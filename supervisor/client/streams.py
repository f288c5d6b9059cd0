"""Server-sent events, read line by line.

Owns the format (https://html.spec.whatwg.org/multipage/server-sent-events.html); opens nothing.
Invariant: an event is told only once its empty line has come, so a half one is never acted on.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

LINE_LIMIT = 8 * 1024 * 1024


class Lines(Protocol):
    """Where lines come from: an HTTP response, a file."""

    def readline(self, limit: int, /) -> bytes:
        """The next line with its end; nothing after the last."""


@dataclass(frozen=True, slots=True)
class Said:
    """One event. `data` is its JSON; `id` is where a later reader goes on, if the daemon said."""

    event: str
    data: Any
    id: str | None = None


def events_of(lines: Lines) -> Iterator[Said]:
    """Every event until the lines end; comments, which only fill silence, are left out."""
    fields: dict[str, list[str]] = {}
    while line := lines.readline(LINE_LIMIT):
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if not text:
            if "data" in fields:
                yield _said(fields)
            fields = {}
        elif not text.startswith(":"):
            name, _, value = text.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))


def _said(fields: dict[str, list[str]]) -> Said:
    text = "\n".join(fields["data"])
    try:
        data = json.loads(text)
    except ValueError:
        data = text
    return Said(fields.get("event", ["message"])[-1], data, fields.get("id", [None])[-1])
