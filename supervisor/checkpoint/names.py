"""Which names are never checkpoints: unfinished ones, and our own.

Owns the spelling of both; touches no file. Invariant: every name this package creates inside the
user's folders is recognised by `is_ours`, so it never counts as a checkpoint again.

Conventions covered: `*.tmp`, `*.part`, `*.incomplete` (most savers), `tmp-checkpoint-500`
(transformers), `500.orbax-checkpoint-tmp-17` (orbax), `.hidden` (savers that rename), `name~`.
"""

import os
import re
from typing import Final

ASIDE_FOLDER: Final = ".set-aside"
RESTORE_SUFFIX: Final = ".supervise-restore"
REMOVED_SUFFIX: Final = ".supervise-removed"
WRITE_SUFFIX: Final = ".supervise-write"

_NAME_BYTES: Final = 255  # NAME_MAX of every file system in use
_OURS: Final = re.compile(
    r"(^\.set-aside$)|(\.set-aside-\d+(\.why\.txt)?$)|(\.supervise-(restore|removed|write)$)",
    re.DOTALL,
)
_TEMPORARY: Final = re.compile(
    r"^te?mp[-_.]"  # tmp-checkpoint-500
    r"|[-_.](te?mp|part|partial|incomplete|writing|unfinished|swp|lock)([-_.]\w*)*$"
    r"|~$",
    re.IGNORECASE | re.DOTALL,
)


def is_ours(name: str) -> bool:
    """Tell whether this package made the file or folder of that name."""
    return _OURS.search(name) is not None


def is_temporary(name: str) -> bool:
    """Tell whether savers use such a name only while they write."""
    return name.startswith(".") or looks_unfinished(name)


def looks_unfinished(name: str) -> bool:
    """Tell whether the name says "not finished", a hidden name alone not being enough."""
    return _TEMPORARY.search(name) is not None


def hidden(name: str, suffix: str) -> str:
    """Make the hidden sibling's name for `name`, shortened where it would be too long."""
    return "." + with_suffix(name.lstrip("."), suffix, spare_bytes=1)


def with_suffix(name: str, suffix: str, *, spare_bytes: int = 0) -> str:
    """Append `suffix`, cutting the name's end where both would not fit a directory entry."""
    room = _NAME_BYTES - len(os.fsencode(suffix)) - spare_bytes
    return os.fsdecode(os.fsencode(name)[:room]) + suffix
