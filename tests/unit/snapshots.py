"""Checkpoints with a manifest, written by hand: what the two tiers of a job hold.

Owns a second writing of the format, so that a change of the reader's and the writer's mind at once
is seen.
"""

import io
import json
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.runner import shared_memory


def archive(content: bytes = bytes(range(256))) -> bytes:
    """An archive that passes for a torch file; its last entry is this content."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("x/data.pkl", b"\x80\x02}q\x00.")
        file.writestr("x/version", b"3\n")
        file.writestr("x/data/0", content)
    return stream.getvalue()


def sealed(fields: dict[str, Any]) -> bytes:
    """A manifest of these fields, with the checksum over itself."""
    plain = {key: value for key, value in fields.items() if key != "crc32"}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    whole = plain | {"crc32": zlib.crc32(text.encode())}
    return json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()


def manifest(step: int, files: dict[str, bytes], *, own_crc: bool = False) -> dict[str, Any]:
    """The fields of a manifest, without its checksum; `own_crc` leaves the archives' to them."""
    return {
        "format": "supervise-checkpoint",
        "version": 1,
        "step": step,
        "tier": "disk",
        "metrics": {"loss": 0.1},
        "files": {
            name: {"bytes": len(content), "crc32": None if own_crc else zlib.crc32(content)}
            for name, content in files.items()
        },
    }


def publish(
    root: Path, step: int, files: dict[str, bytes] | None = None, *, own_crc: bool = False
) -> Path:
    """Write a checkpoint as workers.publishing leaves it."""
    files = {"state.pt": archive()} if files is None else files
    folder = root / f"step-{step:09d}"
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "manifest.json").write_bytes(sealed(manifest(step, files, own_crc=own_crc)))
    return folder


def flip(path: Path, position: int) -> None:
    """Change one bit, as a bad disk does; the size stays."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def steps(root: Path) -> list[int]:
    """The steps that lie there under a checkpoint's name."""
    return sorted(int(path.name.partition("-")[2]) for path in root.glob("step-*"))


@pytest.fixture
def shm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a folder of this test's own on the real tmpfs, in the place of /dev/shm."""
    folder = Path(tempfile.mkdtemp(prefix="supervise-test-", dir="/dev/shm"))
    monkeypatch.setattr(shared_memory, "ROOT", folder)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
