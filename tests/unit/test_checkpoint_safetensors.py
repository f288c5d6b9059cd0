"""safetensors files: the real thing, and everything the header can get wrong."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from supervisor.checkpoint.formats import check_file
from supervisor.checkpoint.verdict import BadBytes, Kind, Level


def raw(header: object, data: bytes = b"") -> bytes:
    """Write a file with this header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def reason(tmp_path: Path, content: bytes) -> str | None:
    """Write a file and say why it is refused; None when it is not."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    return refusal(path)


def refusal(path: Path) -> str | None:
    """Say why a file is refused; None when it is not."""
    try:
        finding = check_file(path)
    except BadBytes as bad:
        return bad.reason
    assert (finding.kind, finding.level) == (Kind.SAFETENSORS, Level.VERIFIED)
    return None


def tensor(start: int = 0, stop: int = 8, shape: Any = (2,), dtype: Any = "F32") -> dict[str, Any]:
    """Describe one tensor."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


@pytest.fixture(scope="module")
def saved() -> bytes:
    """Give a file as the library writes it."""
    tensors = {"a": np.arange(60, dtype=np.float32), "b": np.ones((2, 3)), "none": np.zeros((0, 4))}
    return save(tensors, {"step": "5"})


def test_good(tmp_path: Path, saved: bytes) -> None:
    """What the library wrote is verified, under its suffix or any other."""
    assert reason(tmp_path, saved) is None
    (tmp_path / "model.bin").write_bytes(saved)
    assert check_file(tmp_path / "model.bin").kind is Kind.SAFETENSORS


def test_every_truncation(tmp_path: Path, saved: bytes) -> None:
    """No prefix passes, and nothing may follow."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(saved)
    passed = []
    for length in reversed(range(len(saved))):
        os.truncate(path, length)
        if refusal(path) is None:
            passed.append(length)

    assert passed == []
    assert "appended" in (reason(tmp_path, saved + b"\0") or "")


def test_zeroed_start(tmp_path: Path, saved: bytes) -> None:
    """A header that was never written is found."""
    assert reason(tmp_path, bytes(64) + saved[64:]) is not None


@pytest.mark.parametrize(
    ("header", "data_bytes"),
    [
        ([], 0),
        ("text", 0),
        (b"{", 0),
        (b"{}x", 0),
        (b'{"a": NaN}', 0),
        (b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},' * 2 + b'"b":1}', 0),
        (b"[" * 100_000, 0),
        (b'{"a":' * 100_000, 0),
        (b'{"a":' + b"9" * 10_000 + b"}", 0),
        ({"a": 5}, 0),
        ({"a": None}, 8),
        ({"a": tensor(dtype="F31")}, 8),
        ({"a": tensor(dtype=5)}, 8),
        ({"a": tensor(shape=3)}, 8),
        ({"a": tensor(shape=[2, -1])}, 8),
        ({"a": tensor(shape=[2.0])}, 8),
        ({"a": tensor(shape=[True, 2])}, 8),
        ({"a": tensor(shape=[3])}, 8),
        ({"a": tensor(shape=[2**62, 2**62])}, 8),
        ({"a": tensor(8, 0)}, 8),
        ({"a": tensor(0, 8), "b": tensor(4, 12)}, 12),
        ({"a": tensor(0, 8), "b": tensor(12, 20)}, 20),
        ({"a": tensor(4, 12)}, 12),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0]}}, 8),
        ({"a": tensor() | {"more": 1}}, 8),
        ({"a": tensor(), "__metadata__": {"a": 1}}, 8),
        ({"a": tensor(), "__metadata__": []}, 8),
    ],
    ids=lambda value: str(value)[:50],
)
def test_bad_header(tmp_path: Path, header: object, data_bytes: int) -> None:
    """A header that contradicts itself or the bytes after it is refused."""
    assert reason(tmp_path, raw(header, bytes(data_bytes))) is not None


def test_good_header(tmp_path: Path) -> None:
    """The same helpers make a file that passes: scalars, sub-byte types, metadata, no tensor."""
    good = {
        "a": tensor(0, 8),
        "scalar": tensor(8, 12, ()),
        "half": tensor(12, 13, (2,), "F4"),
        "__metadata__": {"format": "pt"},
    }
    assert reason(tmp_path, raw(good, bytes(13))) is None
    assert reason(tmp_path, raw({})) is None


def test_claimed_length(tmp_path: Path) -> None:
    """A header that claims more than the format allows, or than the file has, is not read."""
    for length in (2**63, 2**40, 100_000_001, 60):
        assert "claims" in (reason(tmp_path, struct.pack("<Q", length) + b"{" + bytes(50)) or "")


@pytest.mark.timeout(20)
def test_many_values(tmp_path: Path) -> None:
    """A header of millions of values is refused before it becomes objects."""
    assert "values" in (reason(tmp_path, raw(b'{"a":[' + b"[]," * 5_000_000 + b"0]}")) or "")
