"""Names of functions in the settings: `pkg:name`.

Owns which field of the settings such a name stood in. Never calls what it found. Invariant: a name
that leads nowhere is a BadConfig that names the field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workers import entry
from workers.gradcam.errors import BadConfig

if TYPE_CHECKING:
    from collections.abc import Callable


def is_callable_name(text: str) -> bool:
    """Tell whether a text is the name of a function, not of a file or a label."""
    return entry.SHAPE.fullmatch(text) is not None


def load_callable(field: str, name: str) -> Callable[..., Any]:
    """Import what a field of the settings names. Raises BadConfig, and what its import raises."""
    try:
        found = entry.load(name)
    except entry.EntryProblem as problem:
        raise BadConfig(f"{field}: {problem}") from None
    if not callable(found):
        raise BadConfig(f"{field}: {name} is a {type(found).__name__}, which cannot be called")
    return found  # type: ignore[no-any-return]  # what was named
