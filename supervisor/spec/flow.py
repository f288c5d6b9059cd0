"""Values written as one line of YAML, for hints and for the plan.

Owns quoting; what is written here, positions.py reads back as the same value.
"""

import json
import re
from collections.abc import Mapping

from supervisor.spec.nodes import plain_value

# Words that YAML reads as themselves inside brackets; with ':' in them only where no space follows.
_SAFE = re.compile(r"(--?)?[A-Za-z0-9_./+][A-Za-z0-9_./+=@*:-]*")
# Words and numbers that other readers of YAML, and people, may take for something else.
_DOUBTFUL = re.compile(r"(?i:y|n|yes|no|on|off)|[-+.]*[0-9](?![0-9]*[A-Za-z]+$).*")


def in_flow(value: object) -> str:
    """Write a value; text is quoted unless it reads back as the same text."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        pairs = (f"{in_flow(str(key))}: {in_flow(inner)}" for key, inner in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(in_flow(inner) for inner in value) + "]"
    return _quoted(value) if isinstance(value, str) else str(value).removesuffix(".0")


def as_key(key: object) -> str:
    """Write a key; `on` is one of ours and stays bare."""
    text = str(key)
    return text if _reads_as_itself(text) else _quoted(text)


def _reads_as_itself(text: str) -> bool:
    is_safe = _SAFE.fullmatch(text) and not text.endswith(":")
    return bool(is_safe) and plain_value(text) == text


def _quoted(text: str) -> str:
    if _reads_as_itself(text) and not _DOUBTFUL.fullmatch(text):
        return text
    if "\\" in text and "'" not in text and text.isprintable():
        return f"'{text}'"  # an expression reads best as it is
    return json.dumps(text, ensure_ascii=not text.isprintable())
