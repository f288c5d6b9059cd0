"""Items as people name them, and which one a person means.

Owns the step from an item's canonical JSON text to a name and back. Reads only.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from supervisor.journal import JournalError
from supervisor.journal.items import Ledger
from supervisor.views.plain import did_you_mean, printable
from workers.protocol import canonical

NAME_WIDTH = 200
NameOf = Callable[[int], str]


class NoSuchItem(LookupError):
    """What a person named is no item of the job; the message says what may be meant."""


def name_of(text: str) -> str:
    """An item as people know it: a path as it is, anything else as JSON."""
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    name = printable(value if isinstance(value, str) else text)
    return name if len(name) <= NAME_WIDTH else f"{name[: NAME_WIDTH - 1]}…"


def names_from(ledger: Ledger) -> NameOf:
    """What names items by their numbers; one that cannot be looked up is called by its number."""

    def name(number: int) -> str:
        try:
            return name_of(ledger.texts([number])[0])
        except (KeyError, JournalError):
            return f"item {number}"

    return name


def items_meant(ledger: Ledger, cwd: str, texts: Sequence[str]) -> list[int]:
    """The numbers of items that a person named: by name, by path, by JSON or by number.

    A path may also be given from where the person is, or whole. A number means the item of that
    number, unless an item has this very name.

    Raises:
        NoSuchItem: one of them is none.
    """
    return list(dict.fromkeys(_meant(ledger, cwd, text) for text in texts))


def _meant(ledger: Ledger, cwd: str, text: str) -> int:
    for candidate in _candidates(text, cwd):
        found = ledger.find([candidate])
        if found:
            return found[candidate]
    if text.isascii() and text.isdigit():
        try:
            ledger.texts([int(text)])
        except (KeyError, JournalError, OverflowError):
            raise NoSuchItem(f"there is no item {text}") from None
        return int(text)
    known = [name_of(one.item) for one in ledger.quarantined(limit=1000)]
    named = [one for one in known if Path(one).name == text]
    if len(named) == 1:  # of those set aside, which a person is likely to mean
        return ledger.find([canonical(named[0])])[canonical(named[0])]
    raise NoSuchItem(f"no item is called {text}{did_you_mean(text, known)}")


def _candidates(text: str, cwd: str) -> list[str]:
    """The canonical texts that a person may mean."""
    whole = os.path.normpath(Path.cwd() / text)
    candidates = [text, whole]
    if whole.startswith(f"{cwd}/"):
        candidates.append(os.path.relpath(whole, cwd))
    found = [_canonical(one) for one in candidates]
    try:
        found.append(_canonical(json.loads(text)))
    except (ValueError, RecursionError):
        return found
    return found


def _canonical(value: object) -> str:
    try:
        return canonical(value)
    except (ValueError, TypeError):
        return ""
