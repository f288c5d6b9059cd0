"""The SQL of the journal, read from its .sql files once.

Owns their loading; contains no SQL.
"""

import re
from functools import cache
from importlib import resources


def schema() -> dict[int, str]:
    """The script of each version, oldest first; all of them make an empty journal."""
    parts = _parts("schema.sql", r"^-- version: (\d+)\n")
    return {int(version): script for version, script in parts}


@cache
def statements() -> dict[str, str]:
    """Every named statement of statements.sql and tally.sql."""
    files = ("statements.sql", "tally.sql")
    named = [part for file in files for part in _parts(file, r"^-- name: (\w+)\n")]
    return {name: body.strip() for name, body in named}


def _parts(file: str, mark: str) -> list[tuple[str, str]]:
    text = (resources.files(__package__) / file).read_text(encoding="utf-8")
    parts = re.split(mark, text, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))
