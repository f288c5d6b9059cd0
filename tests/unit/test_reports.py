"""The messages of a session: each survives its packet, and no packet ends a reader."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers import reports

EVERY = [
    reports.Hello(7, 1, 2),
    reports.Progressed(3),
    reports.Progressed(3, 9, {"loss": 0.5}, 1 << 30),
    reports.Listens(),
    reports.PhaseBegan(1, "compile"),
    reports.PhaseBegan(2, "save", 60.5),
    reports.PhaseEnded(1),
    reports.Published("/out/step-1", 1, "memory", 10),
    reports.Errored("error", "KeyError", "'x'", "Traceback", 4, {"indices": [1, 2]}),
    reports.Outcome("stopped", 5),
    reports.Outcome("finished"),
    reports.StopAsked("Ctrl-C", 60.0),
]


@pytest.mark.parametrize("report", EVERY, ids=lambda one: type(one).__name__)
def test_each_message_survives_its_packet(report: Any) -> None:
    """What was said is what is heard, of the same type."""
    heard = reports.decode(reports.encode(report))
    assert heard == report
    assert type(heard) is type(report)


def test_a_figure_that_is_no_number_is_still_said() -> None:
    """A loss that is nan crosses: it is what a person needs to see."""
    heard = reports.decode(reports.encode(reports.Progressed(1, None, {"loss": float("nan")})))
    assert str(heard.metrics["loss"]) == "nan"


def test_a_field_of_a_newer_version_is_passed_over() -> None:
    """A later session may say more."""
    packet = json.dumps({"is": "Listens", "loudly": True}).encode()
    assert reports.decode(packet) == reports.Listens()


@pytest.mark.parametrize(
    "fields",
    [
        {"is": "Unheard"},
        {"is": "Progressed"},
        {"is": "Progressed", "step": 1.5},
        {"is": "Progressed", "step": True},
        {"is": "Progressed", "step": 1, "metrics": {"loss": "low"}},
        {"is": "Progressed", "step": 1, "metrics": [1]},
        {"is": "PhaseBegan", "number": 1, "name": "x", "limit_s": -1},
        {"is": "PhaseBegan", "number": 1, "name": "x", "limit_s": "inf"},
        {"is": "PhaseBegan", "number": 1, "name": 5},
        {"is": "PhaseBegan", "number": 1, "name": "x", "limit_s": 10**400},
        {"is": "Progressed", "step": 2**63},
        {"is": "Progressed", "step": 1, "metrics": {"loss": 10**400}},
        {"is": ["Hello"]},
        ["is"],
        7,
    ],
)
def test_what_is_no_message_is_none(fields: object) -> None:
    """A field that is missing, or of another type, makes no message."""
    assert reports.decode(json.dumps(fields).encode()) is None


@given(st.binary(max_size=200))
def test_no_packet_ends_a_reader(packet: bytes) -> None:
    """Whatever arrives is a message or None."""
    assert reports.decode(packet) is None or packet[:1] == b"{"


@given(
    st.dictionaries(
        st.text(max_size=5), st.text() | st.integers() | st.none() | st.lists(st.text())
    )
)
def test_no_fields_end_a_reader(fields: dict[str, object]) -> None:
    """Of a message with the right name, any fields are taken or refused."""
    heard = reports.decode(json.dumps(fields | {"is": "Errored"}).encode())
    assert heard is None or isinstance(heard.kind, str)
