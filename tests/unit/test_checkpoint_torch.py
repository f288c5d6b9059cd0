"""Real torch archives, damaged in every region."""

import io
import os
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.distributed import checkpoint as distributed
from torch.serialization import set_crc32_options

from supervisor.checkpoint import Kind, Layout, Level, Outcome, Verdict, find, verify

Saved = Callable[..., bytes]


def judge(folder: Path, content: bytes, name: str = "ckpt_1.pt") -> Verdict:
    """Write one checkpoint and verify it as between two attempts."""
    (folder / name).write_bytes(content)
    layout = Layout(folder, name)
    (found,) = find(layout).found
    return verify(found, layout, worker_lives=False)


def torch_bytes(**options: bool) -> bytes:
    """Save a small model's state."""
    stream = io.BytesIO()
    torch.save({"step": 7, "a": torch.arange(500), "b": torch.ones(3, 3)}, stream, **options)
    return stream.getvalue()


@pytest.fixture(scope="module")
def saved() -> bytes:
    """Give a torch archive as `torch.save` writes it."""
    return torch_bytes()


def test_good(tmp_path: Path, saved: bytes) -> None:
    """What torch.save wrote is verified, byte for byte."""
    verdict = judge(tmp_path, saved)

    assert (
        verdict.outcome,
        verdict.kind,
        verdict.level,
    ) == (Outcome.OK, Kind.TORCH_ZIP, Level.VERIFIED)
    assert verdict.size_bytes == len(saved)
    assert "checksum" in verdict.reason


def region(saved: bytes, what: str) -> int:
    """Say where in the archive a byte of that region lies."""
    with zipfile.ZipFile(io.BytesIO(saved)) as archive:
        entries = {Path(info.filename).name: info for info in archive.infolist()}
        directory = archive.start_dir
        weights = entries["0"].header_offset
    content = struct.unpack_from("<2H", saved, weights + 26)
    return {
        "magic": 0,
        "local name": 30,
        "pickle": saved.index(b"\x80\x02}"),
        "weights": weights + 30 + sum(content) + 100,
        "last weight": weights + 30 + sum(content) + entries["0"].file_size - 1,
        "descriptor": weights + 30 + sum(content) + entries["0"].file_size + 5,
        "directory magic": directory,
        "directory checksum": directory + 16,
        "directory size": directory + 20,
        "directory offset": directory + 42,
        "directory name": directory + 46,
        "end64": saved.rindex(b"PK\x06\x06") + 40,
        "locator": saved.rindex(b"PK\x06\x07") + 8,
        "locator disks": saved.rindex(b"PK\x06\x07") + 16,
        "directory attributes": directory + 38,
        "end": len(saved) - 22,
        "end count": len(saved) - 12,
    }[what]


@pytest.mark.parametrize(
    "what",
    [
        "magic",
        "local name",
        "pickle",
        "weights",
        "last weight",
        "descriptor",
        "directory magic",
        "directory checksum",
        "directory size",
        "directory offset",
        "directory name",
        "end64",
        "locator",
        "locator disks",
        "directory attributes",
        "end",
        "end count",
    ],
)
def test_flipped_byte(tmp_path: Path, saved: bytes, what: str) -> None:
    """One flipped byte is found in every region that a reader uses."""
    damaged = bytearray(saved)
    damaged[region(saved, what)] ^= 0x55

    verdict = judge(tmp_path, bytes(damaged))

    assert verdict.outcome is Outcome.BAD, what
    assert verdict.reason


def test_torch_itself_does_not_notice(saved: bytes) -> None:
    """The reason for all this: torch loads a flipped weight without a word."""
    damaged = bytearray(saved)
    damaged[region(saved, "weights")] ^= 0x55

    assert not torch.equal(torch.load(io.BytesIO(bytes(damaged)))["a"], torch.arange(500))


def test_zeroed_run_names_the_entry(tmp_path: Path, saved: bytes) -> None:
    """A hole in the weights, as after a power cut, is found, and the reason says where."""
    start = region(saved, "weights")
    verdict = judge(tmp_path, saved[:start] + bytes(512) + saved[start + 512 :])

    assert verdict.outcome is Outcome.BAD
    assert "data/0" in verdict.reason
    assert "checksum" in verdict.reason


def test_torn_tail_and_head(tmp_path: Path, saved: bytes) -> None:
    """Half an archive is bad, whichever half it is."""
    tail = judge(tmp_path, saved[: len(saved) // 2])
    head = judge(tmp_path, bytes(range(1, 101)) + saved[100:])
    pickle = judge(tmp_path, b"\x80\x02" + saved[2:])

    assert tail.outcome is head.outcome is pickle.outcome is Outcome.BAD
    assert "cut off" in tail.reason
    assert "overwritten" in head.reason


def test_every_truncation(tmp_path: Path, saved: bytes) -> None:
    """No prefix of an archive passes, not even one of a single byte."""
    layout = Layout(tmp_path, "ckpt_1.pt")
    (tmp_path / "ckpt_1.pt").write_bytes(saved)
    passed = []
    for length in reversed(range(len(saved))):
        os.truncate(tmp_path / "ckpt_1.pt", length)
        (found,) = find(layout).found
        if verify(found, layout, worker_lives=False).outcome is not Outcome.BAD:
            passed.append(length)

    assert passed == []


def test_appended_bytes(tmp_path: Path, saved: bytes) -> None:
    """An archive with bytes after its end, as two interleaved writers leave it, is refused."""
    assert judge(tmp_path, saved + bytes(100)).outcome is Outcome.BAD
    assert judge(tmp_path, saved + saved).outcome is Outcome.BAD


def test_without_checksums(tmp_path: Path) -> None:
    """With `set_crc32_options(False)` nothing can be compared: structure counts."""
    set_crc32_options(False)
    try:
        content = torch_bytes()
    finally:
        set_crc32_options(True)

    verdict = judge(tmp_path, content)

    assert (verdict.outcome, verdict.level) == (Outcome.OK, Level.VERIFIED)
    assert "no checksums" in verdict.reason
    assert judge(tmp_path, content[:-1]).outcome is Outcome.BAD


def test_one_zeroed_checksum_is_damage(tmp_path: Path, saved: bytes) -> None:
    """A checksum of 0 means "not computed" only where all are 0; one alone was overwritten."""
    start = region(saved, "directory checksum")
    verdict = judge(tmp_path, saved[:start] + bytes(4) + saved[start + 4 :])

    assert verdict.outcome is Outcome.BAD


def test_legacy_format(tmp_path: Path) -> None:
    """Torch's old format has no checksum and no end mark: good, but only as `stable`."""
    verdict = judge(tmp_path, torch_bytes(_use_new_zipfile_serialization=False))

    assert (
        verdict.outcome,
        verdict.kind,
        verdict.level,
    ) == (Outcome.OK, Kind.TORCH_LEGACY, Level.STABLE)
    assert "cannot be checked" in verdict.reason


def test_torchscript(tmp_path: Path) -> None:
    """A scripted module's archive is a torch archive like any other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces the end of TorchScript
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / "m_1.pt"))
    layout = Layout(tmp_path, "m_*.pt")
    (found,) = find(layout).found

    assert verify(found, layout).kind is Kind.TORCH_ZIP


def test_missing_version(tmp_path: Path, saved: bytes) -> None:
    """A torch archive without its version entry, which torch refuses, is refused here, too."""
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(saved)) as old,
        zipfile.ZipFile(stream, "w") as new,
    ):
        for info in old.infolist():
            if not info.filename.endswith("/version"):
                new.writestr(info.filename, old.read(info))

    verdict = judge(tmp_path, stream.getvalue())

    assert verdict.outcome is Outcome.BAD
    assert "version" in verdict.reason


@pytest.fixture
def distributed_checkpoint(tmp_path: Path) -> Path:
    """Give a distributed checkpoint as torch writes it."""
    folder = tmp_path / "step-5"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that there is one process only
        distributed.save(
            {"a": torch.arange(1000), "b": torch.ones(9), "step": 5},
            checkpoint_id=str(folder),
            no_dist=True,
        )
    return folder


def test_distributed(distributed_checkpoint: Path) -> None:
    """A `.distcp` file, several archives in a row, is verified to the last byte."""
    layout = Layout(distributed_checkpoint.parent, "step-*")
    (shard,) = distributed_checkpoint.glob("*.distcp")
    whole = shard.read_bytes()

    def judged() -> Verdict:
        (found,) = find(layout).found
        return verify(found, layout, worker_lives=False)

    assert (judged().outcome, judged().level) == (Outcome.OK, Level.VERIFIED)
    for damaged in (
        whole[:-1],
        whole[: whole.index(b"PK\x05\x06") + 22] + bytes(100),
        whole[1:],
        bytes(b ^ 1 if i == len(whole) // 2 else b for i, b in enumerate(whole)),
    ):
        shard.write_bytes(damaged)
        assert judged().outcome is Outcome.BAD
    shard.write_bytes(whole)
    assert judged().ok
    (distributed_checkpoint / ".metadata").unlink()
    assert ".metadata is missing" in judged().reason
