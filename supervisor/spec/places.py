"""Places: paths into the data of a job file, and where the file wrote them.

Owns the vocabulary of positions; reads no file.
Lines and columns count from 1, as editors do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

# A place in the data: mapping keys and list indices from the top.
Where = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of one line: line and column count from 1, width in characters."""

    line: int
    column: int
    width: int = 1


@dataclass(frozen=True, slots=True)
class SourceMap:
    """Where each key and value of a loaded job file was written.

    No field takes part in comparison: where a thing was written never makes two jobs differ.
    `notes` says, for a value nobody wrote, where it came from ("preset hf").
    """

    file: str = field(default="", compare=False)
    lines: tuple[str, ...] = field(default=(), compare=False)
    keys: Mapping[Where, Span] = field(default_factory=dict, compare=False)
    values: Mapping[Where, Span] = field(default_factory=dict, compare=False)
    notes: Mapping[Where, str] = field(default_factory=dict, compare=False)

    def span(self, where: Where, *, key: bool = False) -> Span | None:
        """Position of a key or value; of the nearest thing around it where it was not written."""
        first, second = (self.keys, self.values) if key else (self.values, self.keys)
        found = first.get(where) or second.get(where)
        while found is None and where:
            where = where[:-1]
            found = self.keys.get(where) or self.values.get(where)
        return found


def dotted(where: Where) -> str:
    """Write a place as people do: `restart.on.cuda_oom`, `command[2]`."""
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def matches(pattern: str, where: Where) -> bool:
    """Tell whether a place fits a dotted pattern, in which `*` stands for any one part."""
    parts = _parts(pattern)
    return len(parts) == len(where) and all(
        part in ("*", str(here)) for part, here in zip(parts, where, strict=True)
    )


@lru_cache(maxsize=256)
def _parts(pattern: str) -> tuple[str, ...]:
    return tuple(pattern.split("."))
