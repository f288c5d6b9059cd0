"""Whatever stands in a manifest: a verdict, never another error, and never a lie believed."""

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supervisor.checkpoint import Kind, Layout, Outcome, find, verify
from tests.unit.snapshots import archive, manifest, publish, sealed

CONTENT = {"state.pt": archive(), "more.bin": b"more"}
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
ANY = st.recursive(
    PLAIN,
    lambda it: st.lists(it, max_size=3) | st.dictionaries(st.text(max_size=9), it, max_size=3),
)
ENTRY = st.fixed_dictionaries({"bytes": PLAIN, "crc32": PLAIN})
NAMES = st.sampled_from(["state.pt", "more.bin", "../x", "/x", "", ".", "a/b", "\ud800", "\0"])
FIELDS = st.fixed_dictionaries(
    {"format": st.just("supervise-checkpoint"), "version": st.just(1) | PLAIN},
    optional={
        "step": st.just(7) | ANY,
        "files": st.dictionaries(NAMES, ENTRY | ANY, max_size=4) | ANY,
        "metrics": ANY,
        "crc32": ANY,
    },
)
QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=150)


def outcome(text: bytes) -> tuple[Outcome, Kind | None]:
    """What becomes of a good checkpoint whose manifest has these bytes."""
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(Path(folder), "step-*", require=("manifest.json",))
        (publish(layout.root, 7, CONTENT) / "manifest.json").write_bytes(text)
        (found,) = find(layout).found
        verdict = verify(found, layout, expect=Kind.PUBLISHED, worker_lives=False)
        assert verdict.reason
        return verdict.outcome, verdict.kind


@QUICK
@given(fields=FIELDS, seal=st.booleans())
def test_any_fields_give_a_verdict(fields: dict[str, Any], *, seal: bool) -> None:
    """Sealed with a right checksum or not; what is believed is what is there."""
    text = sealed(fields) if seal else json.dumps(fields).encode()
    found, _ = outcome(text)
    assert found in (Outcome.BAD, Outcome.UNREADABLE) or set(fields["files"]) <= set(CONTENT)


@QUICK
@given(st.integers(0, 8 * 400), st.sampled_from(["flip", "cut", "insert"]))
def test_no_damaged_manifest_is_believed(place: int, way: str) -> None:
    """One flipped bit, an end that is missing, a byte too many."""
    whole = sealed(manifest(7, CONTENT))
    position = place // 8 % len(whole)
    changed = bytearray(whole)
    if way == "flip":
        changed[position] ^= 1 << place % 8
    elif way == "cut":
        del changed[position:]
    else:
        changed.insert(position, 48 + place % 10)
    found, _ = outcome(bytes(changed))
    assert found is not Outcome.OK or _means_the_same(bytes(changed), whole)


def _means_the_same(one: bytes, other: bytes) -> bool:
    """A zero too many behind a fraction, for example, changes no figure."""
    return bool(json.loads(one) == json.loads(other))
