"""What must hold between the fields that speak to the queue.

Owns these relations; semantics.py owns all others. Works on data of any shape, so that a slip in
one place does not keep the others from being reported.
"""

from collections.abc import Iterator

from supervisor.spec.problems import Finding, shown
from supervisor.spec.raw import Data

# Lists in which a repetition is a slip -> what an entry is.
_ONCE_EACH = {"after": "this job", "env_keep": "this variable"}


def queue_relations(data: Data) -> Iterator[Finding]:
    """Yield every contradiction that has to do with the queue."""
    yield from _a_group_is_held(data)
    for name, what in _ONCE_EACH.items():
        yield from _named_once(data, name, what)


def _a_group_is_held(data: Data) -> Iterator[Finding]:
    has_group = data.get("group") is not None or bool(data.get("array"))
    if data.get("hold_after") is not None and not has_group:
        message = "hold_after: failures in a row are counted in a group, and this job is in none"
        hint = "add group: NAME, the same in every job that is meant; or remove it"
        yield Finding(("hold_after",), message, hint, key=True)


def _named_once(data: Data, name: str, what: str) -> Iterator[Finding]:
    entries = data.get(name)
    seen: dict[str, int] = {}
    for at, entry in enumerate(entries if isinstance(entries, list) else ()):
        if not isinstance(entry, str):
            continue
        first = seen.setdefault(entry, at)
        if first != at:
            message = f"{name}[{at}]: {what} is named already, by {name}[{first}]: {shown(entry)}"
            yield Finding((name, at), message, "remove one of them")
