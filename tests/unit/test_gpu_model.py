"""Values about GPUs, and how they travel between the probe and its parent."""

import json

import pytest

from supervisor.core.gpu import GpuTrouble, Severity, TroubleKind
from supervisor.gpu import wire
from supervisor.gpu.model import Gpu, GpuProcess, Inventory, Reading

WHOLE = Gpu("GPU-a", 0, "NVIDIA H200", "0000:3b:00", 140 << 30, leasable=False, note="MIG is on")
INSTANCE = Gpu("MIG-b", 0, "NVIDIA H200 MIG 1g.18gb", "0000:3b:00", 18 << 30, parent="GPU-a")
INVENTORY = Inventory("580.65.06", (WHOLE, INSTANCE), "GPU 1 cannot be listed")
READINGS = (
    Reading("GPU-a", 5, 99.0, 12.0, 650.5, 700.0, 61.0, (GpuProcess(7, None, "graphics"),)),
    Reading("MIG-b", processes=(), problems=("power: Not Supported",)),
    Reading("GPU-c", processes=None),
)
TROUBLE = GpuTrouble("GPU-a", TroubleKind.XID, 79, "Xid 79: gone", Severity.AVOID, 1.5)


def travelled(value: object) -> wire.Json:
    """Return what the other side unpacks."""
    sent = wire.frame({"answer": wire.pack(value)})
    size = wire.length(sent[: wire.HEADER.size])
    assert size == len(sent) - wire.HEADER.size
    return wire.message(sent[wire.HEADER.size :])["answer"]


def test_find() -> None:
    """A GPU is found by its uuid, an instance too, and an unknown one is None."""
    assert INVENTORY.find("MIG-b") is INSTANCE
    assert INVENTORY.find("GPU-z") is None


def test_values_travel_unchanged() -> None:
    """What is unpacked equals what was packed: also where nothing is known."""
    assert wire.unpack_inventory(travelled(INVENTORY)) == INVENTORY
    assert wire.unpack_readings(travelled(READINGS)) == READINGS
    assert wire.unpack_trouble(travelled(TROUBLE)) == TROUBLE


@pytest.mark.parametrize(
    "garbage",
    [None, 7, "text", [1], [[]], [None, None, None, None], {"gpus": []}, ["", [[]], 1]],
    ids=repr,
)
def test_garbage_is_refused(garbage: wire.Json) -> None:
    """A value of any other shape is refused, and never becomes half a GPU."""
    with pytest.raises(wire.Garbled):
        wire.unpack_inventory(garbage)
    with pytest.raises(wire.Garbled):
        wire.unpack_readings([garbage])
    with pytest.raises(wire.Garbled):
        wire.unpack_trouble(garbage)


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"{", b"[]", b"7", b'"text"'])
def test_a_frame_is_an_object(body: bytes) -> None:
    """What is not a JSON object is refused."""
    with pytest.raises(wire.Garbled):
        wire.message(body)


def test_an_endless_frame_is_refused() -> None:
    """A length that no answer has is refused before anybody waits for that many bytes."""
    with pytest.raises(wire.Garbled, match="4294967295 bytes"):
        wire.length(b"\xff\xff\xff\xff")


def test_a_frame_is_plain_json() -> None:
    """A frame can be read with nothing but a JSON parser."""
    assert json.loads(wire.frame({"id": 1})[wire.HEADER.size :]) == {"id": 1}
