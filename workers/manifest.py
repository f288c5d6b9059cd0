"""The manifest of a checkpoint: what belongs to it, so that a torn one is told from a whole one.

Owns the file manifest.json in a checkpoint's folder: its making, its reading, and the check of the
files against it. Loads no checkpoint. Invariant: a manifest is the last file that is written into
its folder, and covers every other file in it; one that was cut or changed does not read.

    {"format": "supervise-checkpoint", "version": 1, "step": 120, "tier": "disk",
     "metrics": {"loss": 0.5}, "files": {"state.pt": {"bytes": 4096, "crc32": null}}, "crc32": 1}

It is canonical JSON; its own crc32 is that of the same without it. A file of torch's is a zip with
a sum for each of its entries: its crc32 is null, and nothing has to be read twice to write it.
"""

from __future__ import annotations

import json
import math
import os
import stat
import struct
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.protocol import canonical

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MANIFEST = "manifest.json"
FORMAT = "supervise-checkpoint"
VERSION = 1
LIMIT_BYTES = 64 * 1024 * 1024  # of a manifest; one that is longer is none
PIECE_BYTES = 1 << 20
ZIP_START = b"PK\x03\x04"
ZIP_SUFFIX = ".pt"
# What zipfile raises at a file that is none, or none any more.
_BROKEN = (zipfile.BadZipFile, ValueError, EOFError, struct.error, IndexError)


class Torn(Exception):
    """A folder that is no whole checkpoint; says what of it is not as it was written."""

    kind = "bad_checkpoint"


class Unfit(ValueError):
    """What a writer left cannot be a checkpoint; says why, and what to do instead."""


def write_manifest(
    folder: Path, step: int, tier: str, metrics: Mapping[str, float], *, durable: bool
) -> int:
    """Write the manifest of all files in a folder, and return their size in bytes.

    `durable`: everything is on the disk afterwards but the folder's own name.
    Raises: Unfit, OSError.
    """
    files = {}
    for name, path, mode in _entries(folder):
        if not stat.S_ISREG(mode):
            raise Unfit(
                f"{path} is {_kind(mode)}: a checkpoint holds plain files and folders alone"
            )
        if name == MANIFEST:
            raise Unfit(f"the writer left a file {MANIFEST!r}, a name that is ours: take another")
        files[name] = {"bytes": path.stat().st_size, "crc32": _sum_of(path)}
        if durable:
            sync(path)
    if not files:
        raise Unfit(f"nothing was written into {folder}: the writer is given the folder to fill")
    facts: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "step": step,
        "tier": tier,
        "metrics": {name: value for name, value in metrics.items() if math.isfinite(value)},
        "files": files,
    }
    facts["crc32"] = _sum_of_facts(facts)
    manifest = folder / MANIFEST
    manifest.write_bytes(canonical(facts).encode("ascii"))
    if durable:
        sync(manifest)
        for parent, _, _ in os.walk(folder):
            sync(Path(parent))
    return sum(int(one["bytes"] or 0) for one in files.values())


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the manifest of a checkpoint's folder. Raises Torn, also where there is none."""
    path = Path(folder) / MANIFEST
    if path.is_symlink():
        raise Torn(f"{path} is a link, where a file was")
    try:
        with path.open("rb") as file:
            facts = json.loads(file.read(LIMIT_BYTES))
    except OSError as error:
        raise Torn(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise Torn(f"{path} is not JSON: it was cut, or is not ours") from None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise Torn(f"{path} is not the manifest of a checkpoint")
    if facts.get("version") != VERSION:
        raise Torn(f"{path} is of version {facts.get('version')!r}, which this program cannot read")
    told = facts.pop("crc32", None)
    if told != _sum_of_facts(facts):
        raise Torn(f"{path} was changed after it was written")
    return facts | {"crc32": told}


def verify(folder: str | os.PathLike[str]) -> None:
    """Raise Torn where a file of the checkpoint is missing, or not as it was written."""
    facts = read_manifest(folder)
    there = {name: (path, mode) for name, path, mode in _entries(Path(folder))}
    for name, told in facts["files"].items():
        if name not in there:
            raise Torn(f"{name} is missing in {folder}")
        path, mode = there[name]
        if not stat.S_ISREG(mode):
            raise Torn(f"{path} is {_kind(mode)}, where a file was")
        try:
            _check(path, told)
        except OSError as error:
            raise Torn(f"{path}: {error.strerror}") from None


def sync(path: Path) -> None:
    """Have a file, or a folder's list of names, on the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _entries(folder: Path) -> Iterator[tuple[str, Path, int]]:
    """Yield all below a folder but folders: the name with "/", the path, the mode."""
    for parent, folders, names in os.walk(folder):
        for name in sorted(folders + names):
            path = Path(parent, name)
            mode = path.lstat().st_mode
            if not stat.S_ISDIR(mode):
                yield path.relative_to(folder).as_posix(), path, mode


def _kind(mode: int) -> str:
    return "a link" if stat.S_ISLNK(mode) else "no file"


def _check(path: Path, told: dict[str, Any]) -> None:
    size = path.stat().st_size
    if size != told["bytes"]:
        raise Torn(f"{path} has {size:,} bytes instead of {told['bytes']:,}")
    if told["crc32"] is None:
        _check_zip(path)
    elif told["crc32"] != crc32(path):
        raise Torn(f"{path} was changed after it was written: its checksum differs")


def _check_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (*_BROKEN, RuntimeError, zlib.error) as error:
        raise Torn(f"{path} is damaged: {error}") from None
    if bad is not None:
        raise Torn(f"{path} is damaged: the checksum of its entry {bad} differs")


def _sum_of(path: Path) -> int | None:
    """Return the checksum of a file; None for one that holds its own."""
    if path.suffix == ZIP_SUFFIX:
        with path.open("rb") as file, suppress(*_BROKEN):
            if file.read(len(ZIP_START)) == ZIP_START:
                with zipfile.ZipFile(file) as archive:
                    # torch can be told to leave them out.
                    if all(entry.CRC or not entry.file_size for entry in archive.infolist()):
                        return None
    return crc32(path)


def crc32(path: Path) -> int:
    """Return the checksum of a file. Raises OSError."""
    found = 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(PIECE_BYTES):
            found = zlib.crc32(piece, found)
    return found


def _sum_of_facts(facts: dict[str, Any]) -> int:
    return zlib.crc32(canonical(facts).encode("ascii"))
