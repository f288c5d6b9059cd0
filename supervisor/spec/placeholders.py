"""`{path}`, `{step}` and `{dir}` in what resumes a job.

Owns that small notation: `{{` and `}}` are literal braces, anything else in braces is an error.
"""

import re
from collections.abc import Mapping

from supervisor.spec.problems import BadValue, suggest

PLACEHOLDERS = ("path", "step", "dir")
_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def check_placeholders(text: str) -> str:
    """Return the text; raise BadValue when a brace in it means nothing."""
    for match in _TOKEN.finditer(text):
        name = match[1]
        if name is None and match[0] in ("{", "}"):
            raise BadValue(
                f"a single '{match[0]}' means nothing here", "write {{ and }} for braces"
            )
        if name is not None and name not in PLACEHOLDERS:
            names = [f"{{{known}}}" for known in PLACEHOLDERS]
            hint = suggest(f"{{{name}}}", names)
            raise BadValue(
                f"unknown placeholder {{{name}}}", f"{hint}\nwrite {{{{ and }}}} for braces"
            )
    return text


def fill(text: str, values: Mapping[str, str]) -> str:
    """Put the values of path, step and dir into a text that `check_placeholders` accepted."""

    def replacement(match: re.Match[str]) -> str:
        return match[0][0] if match[1] is None else values[match[1]]

    return _TOKEN.sub(replacement, text)


def protect(text: str) -> str:
    """Return text that `fill` gives back unchanged, whatever braces are in it."""
    return text.replace("{", "{{").replace("}", "}}")
