"""Whatever an event holds, it comes back from the journal as it was."""

import json

from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.events import Event
from supervisor.core.every_event import EVENTS
from supervisor.journal.codec import decode, encode

st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))

events = st.sampled_from(list(EVENTS.values())).flatmap(st.from_type)


@given(events)
def test_every_event_survives_the_journal(event: Event) -> None:
    """Text in every script, numbers of every size, nested evidence: equal after the round trip."""
    assert decode(type(event).__name__, encode(event)) == event


@given(events)
def test_the_stored_form_is_plain_json(event: Event) -> None:
    """One object, whose names are the fields: any other program can read it."""
    stored = json.loads(encode(event))
    assert list(stored) == [name for name in type(event).__dataclass_fields__ if name != "durable"]
