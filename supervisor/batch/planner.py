"""What to run so that a user's function lists the items, and how what it says is read.

Owns command, first line and answer of the listing (workers/listing.py); starts no process and opens
no socket, which is the runner's. Invariant: a listing is whole only if it has said so; one that
merely ended may not have named every item.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Final

from supervisor.batch.sources import ITEM_LIMIT, CallableSource, SourceProblem
from workers import protocol
from workers.protocol import LINE_LIMIT_BYTES, LISTING_END

_UNREADY: Final = b"unready "
_NO_ENTRY: Final = "EntryProblem"  # what workers/entry.py raises


def listing_command(python: str) -> tuple[str, ...]:
    """Return the words that start a listing; its end of the channel is named in ENV_CHANNEL_FD."""
    return (python, protocol.WORKERS_FILE, "list")


def listing_setup(source: CallableSource, args: Mapping[str, object] | None = None) -> bytes:
    """Return the line that the listing waits for.

    Raises:
        SourceProblem: the arguments do not fit into a line.
    """
    asked = {"entry": source.entry, "args": dict(args or {}), "out": None, "batch": None}
    text = json.dumps(asked | {"worker": 0}, separators=(",", ":"), allow_nan=False)
    if len(text) > LINE_LIMIT_BYTES // 2:
        raise SourceProblem(f"the arguments of {source.entry} are too long; name a file with them")
    return b"setup " + text.encode("ascii") + b"\n"


class Listing:
    """The answer of a listing, as it arrives."""

    def __init__(self, source: CallableSource) -> None:
        self._entry = source.entry
        self._rest = b""
        self._count = 0
        self.whole = False

    def feed(self, received: bytes) -> Iterator[str]:
        """Give the items that this part of the answer completes, as canonical JSON texts.

        Raises:
            SourceProblem: the function failed, or what it lists is no item.
        """
        *lines, self._rest = (self._rest + received).split(b"\n")
        for line in lines:
            if line == LISTING_END:
                self.whole = True
            elif line.startswith(_UNREADY):
                raise SourceProblem(self._failed(line[len(_UNREADY) :]))
            else:
                yield self._item(line)
        if len(self._rest) > ITEM_LIMIT and not self._rest.startswith(_UNREADY):
            self._item(self._rest)

    def close(self, how_it_ended: str) -> None:
        """See that the answer was whole; `how_it_ended` tells of the process, in words.

        Raises:
            SourceProblem: the listing broke off.
        """
        if not self.whole:
            raise SourceProblem(
                f"{self._entry} did not list its items to the end: {how_it_ended}. "
                "Those that were known before stay known."
            )

    def _item(self, line: bytes) -> str:
        if self.whole:
            raise SourceProblem(f"{self._entry} went on after its end: {_shown(line)}")
        if len(line) > ITEM_LIMIT:
            raise SourceProblem(
                f"{self._entry}: item {self._count + 1} has more than {ITEM_LIMIT} characters. Put "
                "it into a file of its own and let the item name that."
            )
        self._count += 1
        try:
            return line.decode("ascii")
        except UnicodeDecodeError as error:
            raise SourceProblem(f"{self._entry} listed what is no item: {_shown(line)}") from error

    def _failed(self, facts: bytes) -> str:
        try:
            told = json.loads(facts)
            kind, message = str(told["type"]), str(told["message"])
            traceback = str(told["traceback"]).rstrip()
        except (ValueError, TypeError, KeyError, RecursionError):
            return f"{self._entry} failed, and said so in no known words: {_shown(facts)}"
        if kind == _NO_ENTRY:  # the message says all
            return message
        return f"{self._entry} raised {kind}: {message}\n{traceback}"


def _shown(line: bytes, limit: int = 80) -> str:
    return repr(line[:limit])[1:] + ("…" if len(line) > limit else "")
