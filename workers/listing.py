"""Lists the items of a job whose `items` is a callable: one canonical JSON text a line.

Owns the child that the planner reads from. Never decides what an item is worth; the same item twice
is listed twice. Invariant: the line `end` follows the last item, so a listing that was cut short is
never taken for a whole one.

A source may have millions of items: they are sent as they come, and the next one is asked for only
when the reader has taken what went before.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NoReturn

from workers.channel import Channel, end
from workers.entry import generator_of
from workers.jsonable import json_of
from workers.lines import LineTooLong
from workers.map import prepare, unready
from workers.protocol import LINE_LIMIT_BYTES, LISTING_END, canonical

if TYPE_CHECKING:
    from collections.abc import Iterator

SEND_BYTES = 1 << 16
SEND_EVERY_S = 0.2


def listing(items: Iterator[object]) -> Iterator[bytes]:
    """Yield the lines, in pieces worth sending. Raises as `line_of`, and what the items raise."""
    piece = bytearray()
    due_s = time.monotonic() + SEND_EVERY_S
    for count, item in enumerate(items, start=1):
        piece += line_of(item, count)
        if len(piece) >= SEND_BYTES or time.monotonic() >= due_s:
            yield bytes(piece)
            piece.clear()
            due_s = time.monotonic() + SEND_EVERY_S
    yield bytes(piece) + LISTING_END + b"\n"


def line_of(item: object, count: int) -> bytes:
    """Return the line of an item, the `count`th. Raises BadResult, LineTooLong."""
    try:
        text = canonical(item)
    except (TypeError, ValueError, RecursionError):
        json_of(item, f"item {count}")  # says what is wrong with it
        raise  # only its keys cannot be sorted
    if len(text) > LINE_LIMIT_BYTES:
        raise LineTooLong(f"item {count} has {len(text):,} bytes: name a file with it instead")
    return text.encode("ascii") + b"\n"


def main() -> NoReturn:
    """List, say `end` or what went wrong, and end."""
    prepare()
    channel = Channel.from_environment()
    setup = channel.setup()
    try:
        for piece in listing(generator_of(setup.entry, setup.args)):
            channel.send(piece)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001 - all else is the answer
        unready(channel, error)
    end(0)
