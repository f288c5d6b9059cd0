"""The lines of the batch channel, for both of its ends: how messages are written and read.

Owns the text of the messages; messages.py says what they mean. Does no I/O and decides nothing.
Invariant: a line either parses to exactly one message or raises ProtocolBroken, wherever the
stream was cut.

An item's result crosses as the bytes of its JSON text, which the runner never parses: at tens of
thousands of items a second that would be all it does.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, TypeVar

from workers.messages import (
    Begun,
    Do,
    Done,
    Failed,
    Failure,
    Leave,
    Left,
    Memory,
    Order,
    Ready,
    Report,
    Setup,
    Unready,
)
from workers.protocol import FAILURE_KINDS, LINE_LIMIT_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

M = TypeVar("M")

LEAVE = b"leave\n"
LEFT = b"left\n"
SHOWN_BYTES = 80


class ProtocolBroken(Exception):
    """A line that no sound peer sends; says in words which and why."""


class LineTooLong(ValueError):
    """What is to be sent does not fit into one line."""


class Lines:
    """Cuts a stream into its lines. Raises ProtocolBroken at a line beyond the limit."""

    def __init__(self, limit_bytes: int = LINE_LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that this chunk, itself no longer than the limit, completes."""
        *lines, rest = chunk.split(b"\n")
        if lines and self._parts:
            self._add(lines[0])
            lines[0] = b"".join(self._parts)
            self._parts, self._size = [], 0
        if rest:
            self._add(rest)
        return lines

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._limit_bytes:
            raise ProtocolBroken(f"a line is longer than {self._limit_bytes} bytes")
        self._parts.append(part)


def encode_setup(setup: Setup) -> bytes:
    """Return the first line to a worker. Raises LineTooLong, TypeError, ValueError."""
    return _facts(b"setup", setup._asdict())


def encode_do(items: Iterable[tuple[int, str]], batch: int | None = None) -> bytes:
    """Return the order for items, each its number and canonical JSON text. Raises LineTooLong."""
    numbered = ",".join([f"[{number},{text}]" for number, text in items])
    return _line(b"do", f'{{"batch":{json.dumps(batch)},"items":[{numbered}]}}'.encode("ascii"))


def encode_ready(setup_s: float) -> bytes:
    """Return the line that says the entry is loaded."""
    return _facts(b"ready", {"setup_s": round(setup_s, 6)})


def encode_unready(failure: Failure) -> bytes:
    """Return the report of an entry that cannot be had."""
    return _facts(b"unready", _failure_facts(failure))


def encode_begin(numbers: Sequence[int]) -> bytes:
    """Return the announcement of a call."""
    return b"begin " + b" ".join([b"%d" % number for number in numbers]) + b"\n"


def encode_done(number: int, ms: float, result: bytes) -> bytes:
    """Return the acknowledgement of an item. Raises LineTooLong."""
    return _line(b"done", b"%d %.3f %b" % (number, ms, result))


def encode_failed(numbers: Sequence[int], failure: Failure) -> bytes:
    """Return the report of a call that raised."""
    word = b"failed " + b",".join([b"%d" % number for number in numbers])
    return _facts(word, _failure_facts(failure))


def encode_memory(memory: Memory) -> bytes:
    """Return the report of what the process holds."""
    return _facts(b"memory", memory._asdict())


def parse_order(line: bytes) -> Order:
    """Return what the runner says with a line. Raises ProtocolBroken."""
    return _parsed(line, _ORDERS)


def parse_report(line: bytes) -> Report:
    """Return what a worker says with a line. Raises ProtocolBroken."""
    return _parsed(line, _REPORTS)


def _line(word: bytes, body: bytes) -> bytes:
    line = b"%b %b\n" % (word, body)
    if len(line) > LINE_LIMIT_BYTES + 1:
        raise LineTooLong(f"{len(line):,} bytes, more than the {LINE_LIMIT_BYTES:,} of a line")
    return line


def _facts(word: bytes, facts: Mapping[str, object]) -> bytes:
    text = json.dumps(facts, separators=(",", ":"), allow_nan=False)
    return _line(word, text.encode("ascii"))


def _failure_facts(failure: Failure) -> dict[str, object]:
    facts = failure._asdict()
    facts["type"] = facts.pop("type_name")
    return facts


# The readers below raise ValueError; `_parsed` says in which line.


def _parsed(line: bytes, readers: Mapping[bytes, Callable[[bytes], M]]) -> M:
    word, _, body = line.partition(b" ")
    try:
        return readers[word](body)
    except KeyError as error:
        raise ProtocolBroken(f"no such message: {_shown(line)}") from error
    except (ValueError, RecursionError) as error:
        raise ProtocolBroken(f"{error}: {_shown(line)}") from error


def _shown(line: bytes) -> str:
    return repr(line[:SHOWN_BYTES])[1:] + ("…" if len(line) > SHOWN_BYTES else "")


def _object(body: bytes, shape: Mapping[str, tuple[type, ...]]) -> list[Any]:
    facts = json.loads(body)
    if type(facts) is not dict:
        raise ValueError("not a JSON object")
    for name, types in shape.items():
        if type(facts.get(name)) not in types:
            raise ValueError(f"{name!r} is missing or of another type")
    return [facts.get(name) for name in shape]


def _number(text: bytes) -> int:
    if not text.isdigit():
        raise ValueError("not the number of an item")
    return int(text)


def _numbers(text: bytes, separator: bytes) -> tuple[int, ...]:
    return tuple([_number(number) for number in text.split(separator)])


def _read_do(body: bytes) -> Do:
    batch, entries = _object(body, {"batch": (int, _NONE), "items": (list,)})
    pairs = [tuple(entry) for entry in entries if type(entry) is list]
    if len(pairs) < len(entries) or any(len(pair) != len(Do._fields) for pair in pairs):
        raise ValueError("not pairs of a number and an item")
    return Do(pairs, batch)


def _read_failure(body: bytes) -> Failure:
    words = ("kind", "type", "message", "traceback")
    failure = Failure(*_object(body, {**dict.fromkeys(words, (str,)), "fatal": (bool,)}))
    if failure.kind not in FAILURE_KINDS:
        raise ValueError(f"{failure.kind!r} is no kind of failure")
    return failure


def _read_done(body: bytes) -> Done:
    number, _, rest = body.partition(b" ")
    text, _, result = rest.partition(b" ")
    ms = float(text)
    if not (result and 0 <= ms < math.inf and number.isdigit()):
        raise ValueError("not a number, milliseconds and a result")
    return Done(int(number), ms, result)


def _read_failed(body: bytes) -> Failed:
    numbers, _, failure = body.partition(b" ")
    return Failed(_numbers(numbers, b","), _read_failure(failure))


def _alone(message: M) -> Callable[[bytes], M]:
    def read(body: bytes) -> M:
        if body:
            raise ValueError("nothing may follow this word")
        return message

    return read


_NONE = type(None)
_SETUP = {
    "entry": (str,),
    "args": (dict,),
    "out": (str, _NONE),
    "batch": (int, _NONE),
    "worker": (int,),
}
_MEMORY = {
    "rss_bytes": (int,),
    "gpu_bytes": (int, _NONE),
    "gpu_peak_bytes": (int, _NONE),
    "items": (int,),
}
_ORDERS: Mapping[bytes, Callable[[bytes], Order]] = {
    b"setup": lambda body: Setup(*_object(body, _SETUP)),
    b"do": _read_do,
    b"leave": _alone(Leave()),
}
_REPORTS: Mapping[bytes, Callable[[bytes], Report]] = {
    b"ready": lambda body: Ready(*_object(body, {"setup_s": (float, int)})),
    b"unready": lambda body: Unready(_read_failure(body)),
    b"begin": lambda body: Begun(_numbers(body, b" ")),
    b"done": _read_done,
    b"failed": _read_failed,
    b"memory": lambda body: Memory(*_object(body, _MEMORY)),
    b"left": _alone(Left()),
}
