"""What the probe and its parent say to each other: frames of JSON over a stream socket.

Owns the framing and the shape of every value on it; does no input or output. A frame is its length
in four bytes, and a JSON object. Invariant: what `unpack_*` returns equals what `pack` was given.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from supervisor.core.gpu import GpuTrouble, Severity, TroubleKind
from supervisor.gpu.model import Gpu, GpuProcess, Inventory, Reading

HEADER = struct.Struct("!I")
MAX_FRAME_BYTES = 64 << 20

Json = Any
"""A value of JSON: of the other side's making, so anything until it was unpacked."""

NOTE_BYTES = 256
"""Size of the memory that both see, in which the probe says what it is asking right now."""


class Garbled(ValueError):
    """The other side does not speak this protocol, or no longer."""


def frame(message: Mapping[str, Json]) -> bytes:
    """Return a message as it goes over the socket."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return HEADER.pack(len(body)) + body


def length(header: bytes) -> int:
    """Return how many bytes follow a header. Raises Garbled when that cannot be."""
    size = int(HEADER.unpack(header)[0])
    if size > MAX_FRAME_BYTES:
        raise Garbled(f"a frame of {size} bytes")
    return size


def message(body: bytes) -> dict[str, Json]:
    """Return the message in a frame. Raises Garbled."""
    try:
        value = json.loads(body)
    except ValueError as error:
        raise Garbled(f"not JSON: {body[:80]!r}") from error
    if not isinstance(value, dict):
        raise Garbled(f"not an object: {body[:80]!r}")
    return value


def pack(value: object) -> Json:
    """Return a value in JSON's types: a dataclass is the list of its fields."""
    if is_dataclass(value):
        return [pack(getattr(value, one.name)) for one in fields(value)]
    return [pack(one) for one in value] if isinstance(value, (tuple, list)) else value


def unpack_inventory(packed: Json) -> Inventory:
    """Return the inventory that was packed. Raises Garbled."""
    try:
        driver, gpus, problem = packed
        return Inventory(driver, tuple(Gpu(*one) for one in gpus), problem)
    except (TypeError, ValueError) as error:
        raise _garbled(packed, "an inventory") from error


def unpack_driver(packed: Json) -> tuple[Inventory, int]:
    """Return the inventory without GPUs that was packed, and their number. Raises Garbled."""
    try:
        inventory, count = packed
        return unpack_inventory(inventory), int(count)
    except (TypeError, ValueError) as error:
        raise _garbled(packed, "a driver") from error


def unpack_lines(packed: Json) -> tuple[str, ...]:
    """Return the sentences that were packed. Raises Garbled."""
    if not isinstance(packed, list):
        raise _garbled(packed, "a list")
    return tuple(map(str, packed))


def unpack_readings(packed: Json) -> tuple[Reading, ...]:
    """Return the readings that were packed. Raises Garbled."""
    try:
        return tuple(_reading(*one) for one in packed)
    except (TypeError, ValueError) as error:
        raise _garbled(packed, "readings") from error


def unpack_trouble(packed: Json) -> GpuTrouble:
    """Return the trouble that was packed. Raises Garbled."""
    try:
        uuid, kind, code, text, severity, at_s = packed
        return GpuTrouble(uuid, TroubleKind(kind), code, text, Severity(severity), at_s)
    except (TypeError, ValueError) as error:
        raise _garbled(packed, "a trouble") from error


def _reading(*packed: Json) -> Reading:
    uuid, used, busy, memory_busy, power, limit, temperature, processes, problems = packed
    listed = None if processes is None else tuple(GpuProcess(*one) for one in processes)
    figures = (used, busy, memory_busy, power, limit, temperature)
    return Reading(uuid, *figures, processes=listed, problems=tuple(problems))


def _garbled(packed: Json, what: str) -> Garbled:
    return Garbled(f"not {what}: {str(packed)[:80]}")
