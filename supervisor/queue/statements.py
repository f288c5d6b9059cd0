"""The SQL of the queue, read from its .sql files once.

Owns their loading; contains no SQL.
"""

import re
import sqlite3
from functools import cache
from importlib import resources


def lacking(version: int) -> list[str]:
    """Statements, in order, that bring a file of this version up to date."""
    found, current = [], ""
    script = "".join(
        part for added, part in _parts("schema.sql", "version") if int(added) > version
    )
    for line in script.splitlines():
        current += line + "\n"
        if sqlite3.complete_statement(current):
            found.append(current)
            current = ""
    return found


@cache
def statements() -> dict[str, str]:
    """Every named statement of statements.sql."""
    return {name: body.strip() for name, body in _parts("statements.sql", "name")}


def _parts(file: str, mark: str) -> list[tuple[str, str]]:
    text = (resources.files(__package__) / file).read_text(encoding="utf-8")
    parts = re.split(rf"^-- {mark}: (\w+)\n", text, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))
