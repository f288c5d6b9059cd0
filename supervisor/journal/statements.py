"""The SQL of the journal, read from its .sql files once.

Owns their loading; contains no SQL.
"""

import re
from functools import cache
from importlib import resources


def schema() -> str:
    """The script that makes an empty journal."""
    return (resources.files(__package__) / "schema.sql").read_text(encoding="utf-8")


@cache
def statements() -> dict[str, str]:
    """Every named statement of statements.sql."""
    text = (resources.files(__package__) / "statements.sql").read_text(encoding="utf-8")
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], (body.strip() for body in parts[1::2]), strict=True))
