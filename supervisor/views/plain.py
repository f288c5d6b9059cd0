"""Text that came from elsewhere, made fit to be shown: one line, nothing that steers a terminal.

Owns these few conversions; knows nothing of jobs, terminals or colour.
"""

import re
from collections.abc import Sequence
from pathlib import Path

_STYLES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # ECMA-48, 5.4: control sequences


def printable(text: str) -> str:
    """The text in one line, without anything that would steer a terminal."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else " " for one in _STYLES.sub("", text)).strip()


def short(path: str | Path, folder: str) -> str:
    """A path as people read it: relative to a folder where it lies within."""
    whole = Path(path)
    return printable(str(whole.relative_to(folder) if whole.is_relative_to(folder) else whole))


def counted(number: int, what: str = "item") -> str:
    """`1 item`, `12 items`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """` (did you mean X?)`, or nothing where nothing known is like the word."""
    import difflib  # noqa: PLC0415 - only after a mistake

    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""
