"""Events to JSON and back.

Owns the stored form: field names are the contract. A field that a newer program added is ignored by
an older one, a field that an older journal lacks takes its default.
"""

from typing import TYPE_CHECKING, Any

from supervisor.core.events import Event
from supervisor.core.every_event import EVENTS
from supervisor.core.evidence import Evidence
from supervisor.journal.errors import JournalUnusable

if TYPE_CHECKING:
    from pydantic import TypeAdapter


_ADAPTERS: "dict[type[Any], TypeAdapter[Any]]" = {}


def _adapter(kind: type[Any]) -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter  # noqa: PLC0415 - reading verbs decode nothing and stay quick

    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def encode(fact: Event | Evidence) -> str:
    """The fields of an event, or of its evidence, as JSON."""
    text: str = _adapter(type(fact)).dump_json(fact).decode()
    return text


def decode(kind: str, body: str) -> Event:
    """The event that was stored.

    Raises:
        JournalUnusable: the kind is unknown, or the fields do not fit it.
    """
    known = EVENTS.get(kind)
    if known is None:
        raise JournalUnusable(f"the journal holds an event that this version does not know: {kind}")
    try:
        event: Event = _adapter(known).validate_json(body)
    except ValueError as error:
        raise JournalUnusable(f"a stored {kind} cannot be read: {error}") from error
    return event
