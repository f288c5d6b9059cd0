"""The two mistakes a person can make here: in the job's settings, and in an image.

Owns the exceptions, and the suggestion of a name that was meant. Never catches one. Invariant: the
text of each names what is wrong and where, and what to do about it.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

SHOWN = 12
"""As many names are listed in a message; the rest is counted."""


class BadConfig(ValueError):
    """The settings of the job cannot work, whatever the image is."""

    kind = "bad_config"


class BadImage(ValueError):
    """This file is not an image that can be read."""

    kind = "error"


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return a sentence with the names that may have been meant, else with those there are."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(close)}?"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"there are: {', '.join(names[-SHOWN:])}{more}" if names else "there are none"
