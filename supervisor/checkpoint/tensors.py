"""Checking a safetensors file: the header against the bytes that follow.

Owns the check of that format; reads no tensor, for the format stores no checksum to compare it
with. Format: u64 little-endian header length (at most 100 MB), a JSON object of
`name: {dtype, shape, data_offsets}`, then the tensors without a gap, then nothing. Invariant: after
`check_tensors` returns, every byte of the file belongs to the header or to exactly one tensor.
"""

import math
from typing import Any, Final

from supervisor.checkpoint.reading import Window, parse_json
from supervisor.checkpoint.verdict import BadBytes, Finding, Kind, Level

_LENGTH_BYTES: Final = 8
_HEADER_LIMIT_BYTES: Final = 100_000_000  # the format's own limit
_METADATA: Final = "__metadata__"
_DTYPE_BITS: Final[dict[str, int]] = {
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}


def looks_like_tensors(window: Window) -> bool:
    """Tell whether the first bytes are those of a safetensors file."""
    if window.size_bytes <= _LENGTH_BYTES:
        return False
    head = window.read(0, _LENGTH_BYTES + 1)
    length = int.from_bytes(head[:_LENGTH_BYTES], "little")
    return head[_LENGTH_BYTES:] == b"{" and len("{}") <= length <= _HEADER_LIMIT_BYTES


def check_tensors(window: Window) -> Finding:
    """Check a safetensors file.

    Raises:
        BadBytes: why it cannot be used.
        OSError: it cannot be read.

    """
    try:
        header = _header(window)
        data_start = _LENGTH_BYTES + int.from_bytes(window.read(0, _LENGTH_BYTES), "little")
        _check_ranges(header, window.size_bytes - data_start)
    except BadBytes as error:
        raise BadBytes(error.reason, Kind.SAFETENSORS) from error
    return Finding(
        Kind.SAFETENSORS,
        Level.VERIFIED,
        f"header and layout of {len(header)} tensors checked; the format stores no checksums",
    )


def _header(window: Window) -> dict[str, Any]:
    if window.size_bytes < _LENGTH_BYTES + 2:
        raise BadBytes("it is too short to be a safetensors file")
    length = int.from_bytes(window.read(0, _LENGTH_BYTES), "little")
    if length > _HEADER_LIMIT_BYTES or _LENGTH_BYTES + length > window.size_bytes:
        raise BadBytes(f"its header claims {length} bytes: the file was cut off or overwritten")
    raw = window.read(_LENGTH_BYTES, length)
    try:
        header = parse_json(raw, object_pairs_hook=_unique)
    except ValueError as error:
        raise BadBytes(f"its header is not valid JSON: {error}") from error
    if not raw.startswith(b"{") or not isinstance(header, dict):
        raise BadBytes("its header is not a JSON object")
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise BadBytes("its metadata is not text")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name occurs twice")
    return fields


def _check_ranges(header: dict[str, Any], data_bytes: int) -> None:
    ranges = sorted(_range(name, tensor) for name, tensor in header.items())
    position = 0
    for start, stop, name in ranges:
        if start != position:
            raise BadBytes(f"the tensor {name[:80]!r} does not begin where the one before it ends")
        position = stop
    if position != data_bytes:
        raise BadBytes(
            f"its tensors need {position} bytes and it has {data_bytes}: "
            f"{'the file was cut off' if position > data_bytes else 'something was appended'}"
        )


def _range(name: str, tensor: object) -> tuple[int, int, str]:
    """Give the tensor's first byte, the byte after its last, and its name."""
    bad = BadBytes(f"the entry of the tensor {name[:80]!r} is damaged")
    if not isinstance(tensor, dict) or set(tensor) != {"dtype", "shape", "data_offsets"}:
        raise bad
    dtype, shape, offsets = tensor["dtype"], tensor["shape"], tensor["data_offsets"]
    if not isinstance(dtype, str) or not _are_sizes(shape) or not _are_sizes(offsets):
        raise bad
    if dtype not in _DTYPE_BITS:
        raise BadBytes(f"the tensor {name[:80]!r} has the unknown type {dtype[:20]!r}")
    bits = math.prod(shape) * _DTYPE_BITS[dtype]
    match offsets:
        case [start, stop] if bits == (stop - start) * 8:
            return start, stop, name
    raise BadBytes(f"the size of the tensor {name[:80]!r} contradicts its shape")


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(
        type(size) is int and 0 <= size < 2**63 for size in value
    )
