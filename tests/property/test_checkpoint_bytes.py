"""Any bytes at all: a verdict, and a right one."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from supervisor.checkpoint import Layout, Outcome, Verdict, find, verify
from supervisor.checkpoint.formats import check_file
from supervisor.checkpoint.verdict import BadBytes, Kind

MODEL = {"step": 7, "a": torch.arange(40), "b": torch.ones(3, 3)}
FAST = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def torch_bytes() -> bytes:
    """Save a small model."""
    stream = io.BytesIO()
    torch.save(MODEL, stream)
    return stream.getvalue()


SAVED = torch_bytes()
TENSORS = save({"a": np.arange(40, dtype=np.float32), "b": np.ones((3, 3))}, {"step": "7"})


@st.composite
def mutations(draw: st.DrawFn, original: bytes) -> bytes:
    """Cut off the end, zero a run, flip one bit, or repeat a part."""
    size = len(original)
    start = draw(st.integers(0, size - 1))
    match draw(st.sampled_from(["cut", "zero", "flip", "repeat", "swap"])):
        case "cut":
            return original[:start]
        case "zero":
            stop = draw(st.integers(start + 1, size))
            return original[:start] + bytes(stop - start) + original[stop:]
        case "flip":
            flipped = original[start] ^ (1 << draw(st.integers(0, 7)))
            return original[:start] + bytes([flipped]) + original[start + 1 :]
        case "repeat":
            stop = draw(st.integers(start + 1, size))
            return original[:stop] + original[start:]
        case _:
            return original[:start] + draw(st.binary(max_size=40)) + original[start:]


@given(content=mutations(SAVED))
@FAST
def test_mutated_torch_archive(tmp_path: Path, content: bytes) -> None:
    """A mutation is detected, or it hit bytes that mean nothing: torch then loads equal tensors.

    The bytes that mean nothing are the alignment padding and time stamps of the headers, the
    versions and attributes in the table of contents, and a stored checksum where the content is
    the original's anyway.
    """
    path = tmp_path / "m.pt"
    path.write_bytes(content)
    try:
        finding = check_file(path)
    except BadBytes:
        return
    assert finding.kind is Kind.TORCH_ZIP, "it passed as something else"
    loaded = torch.load(io.BytesIO(content))
    assert loaded["step"] == MODEL["step"]
    assert torch.equal(loaded["a"], MODEL["a"])
    assert torch.equal(loaded["b"], MODEL["b"])


@given(content=mutations(TENSORS))
@FAST
def test_mutated_tensors(tmp_path: Path, content: bytes) -> None:
    """A mutation that passes left the file's size and every tensor's place as they were.

    The format has no checksum, so a changed weight or name is beyond anyone's knowledge.
    """
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    try:
        check_file(path)
    except BadBytes:
        return
    assert len(content) == len(TENSORS)


HEADS = st.sampled_from(
    [
        b"",
        SAVED[:200],
        TENSORS[:120],
        b"PK\x03\x04",
        b"\x80\x02",
        bytes.fromhex("80028a0a6cfc9c46f920"),
        (50).to_bytes(8, "little") + b"{",
    ]
)
TAILS = st.sampled_from(
    [b"", b".", SAVED[-22:], SAVED[-98:], SAVED[-600:], b"PK\x05\x06" + bytes(18)]
)
NAMES = st.sampled_from(["c_1.pt", "c_1.bin", "c_1.safetensors", "c_1.distcp", "c_1.json", "c_1"])


@given(head=HEADS, middle=st.binary(max_size=300), tail=TAILS, name=NAMES)
@FAST
def test_any_bytes(tmp_path: Path, head: bytes, middle: bytes, tail: bytes, name: str) -> None:
    """Whatever a file holds, the answer is a verdict with a reason, never an exception."""
    for old in tmp_path.iterdir():
        old.unlink()
    (tmp_path / name).write_bytes(head + middle + tail)
    layout = Layout(tmp_path, "c_*")
    (found,) = find(layout).found

    verdict = verify(found, layout, worker_lives=False)

    assert verdict.outcome in (Outcome.OK, Outcome.BAD)
    assert verdict.reason
    assert Verdict.from_dict(verdict.to_dict()) == verdict


@given(name=st.text(min_size=1, max_size=60))
@FAST
def test_any_name(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    """Whatever a file is called, it is found with a step, passed over, or ours to ignore."""
    folder = tmp_path_factory.mktemp("names")
    if "/" in name or "\0" in name or name in (".", ".."):
        return
    try:
        (folder / name).write_bytes(b"x")
    except (OSError, UnicodeEncodeError):
        return
    listing = find(Layout(folder, "*"))

    assert len(listing.found) + len(listing.skipped) <= 1
