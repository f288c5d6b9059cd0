"""What a job file may say that is not built yet, and what to do instead.

One table. A value it names is refused, never ignored; all else in the schema is acted upon.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from supervisor.spec.places import Where, dotted, matches
from supervisor.spec.problems import Finding, shown


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A place (`*` for any one part), which values of it are meant, and what to do instead."""

    where: str
    instead: str
    meant: Callable[[object], bool] = lambda value: value is not None
    by_value: bool = False


def _one_of(*values: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and value in values


_FILES = "print progress to the output, and use parse: tqdm or parse: regex"
UNSUPPORTED = (
    Unsupported("rules", "leave it out; `timeouts.heartbeat` watches the output"),
    Unsupported(
        "resume.mode", "use append, replace, env or inplace", _one_of("shim"), by_value=True
    ),
    Unsupported("progress.parse", _FILES, _one_of("jsonl", "csv", "json"), by_value=True),
    Unsupported("progress.file", _FILES),
    Unsupported("progress.step", _FILES),
)


def unsupported(data: Mapping[str, object]) -> Iterator[Finding]:
    """Yield a finding for every value that is not built yet."""
    for where, value in _values(data, ()):
        for entry in UNSUPPORTED:
            if matches(entry.where, where) and entry.meant(value):
                what = f" {shown(value)}" if entry.by_value else ""
                message = f"{dotted(where)}{what} is not supported yet"
                yield Finding(where, message, entry.instead, key=not entry.by_value)


def is_built(where: Where, value: object) -> bool:
    """Tell whether a value may be given at a place."""
    return not any(matches(entry.where, where) and entry.meant(value) for entry in UNSUPPORTED)


def is_supported(where: Where) -> bool:
    """Tell whether a whole field, not only some values of it, is acted upon."""
    return not any(not entry.by_value and matches(entry.where, where) for entry in UNSUPPORTED)


def _values(value: object, where: Where) -> Iterator[tuple[Where, object]]:
    if where:
        yield where, value
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _values(inner, (*where, key))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from _values(inner, (*where, at))
