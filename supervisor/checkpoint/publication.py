"""Checking a checkpoint that was published whole: every file is what its manifest says.

Owns the reading of `manifest.json` as `workers.publishing` writes it: canonical JSON (sorted keys,
no white space, ASCII) with the CRC-32 of itself without that field. The folder appears under its
name by one rename, so it is whole from its first moment on, or damaged; never half written.
Invariant: no byte is read twice, and nothing outside the folder is opened because the manifest
names it.

    {"crc32": 1, "files": {"state.pt": {"bytes": 9, "crc32": 7}}, "format": "supervise-checkpoint",
     "metrics": {"loss": 0.1}, "step": 120, "tier": "disk", "version": 1}

A file's `crc32` may be null where the file is a zip archive, which has checksums of its own.
"""

import errno
import os
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, TypeGuard

from supervisor.checkpoint.formats import check_part
from supervisor.checkpoint.names import is_ours, looks_unfinished
from supervisor.checkpoint.reading import open_window, parse_json, read_small
from supervisor.checkpoint.verdict import BadBytes, Finding, Kind, Level
from supervisor.checkpoint.walk import Walk
from workers.protocol import canonical

MANIFEST: Final = "manifest.json"
_FORMAT: Final = "supervise-checkpoint"
_VERSION: Final = 1
_STEP_LIMIT: Final = 2**63
_ARCHIVES: Final = frozenset({Kind.TORCH_ZIP, Kind.ZIP})


@dataclass(frozen=True, slots=True)
class Promised:
    """What the manifest says of one file; without a checksum the archive's own count."""

    size_bytes: int
    crc32: int | None


@dataclass(frozen=True, slots=True)
class Publication:
    """A manifest that was read back as it was written."""

    step: int
    files: dict[str, Promised]


def read_publication(folder: Path) -> Publication | None:
    """Read the manifest of a folder; None where it has none of ours.

    Raises:
        BadBytes: it is one of ours, and is damaged.
        OSError: it cannot be read, or is of a version that this program does not know.

    """
    path = folder / MANIFEST
    try:
        fields = parse_json(read_small(path))
    except (FileNotFoundError, NotADirectoryError, ValueError, BadBytes):
        return None  # other savers use the name, too; `require` says whether one must be there
    if not isinstance(fields, dict) or fields.get("format") != _FORMAT:
        return None
    if path.is_symlink():
        raise BadBytes(f"{MANIFEST} is a link; it was published as a file", Kind.PUBLISHED)
    try:
        return _publication(fields)
    except BadBytes as bad:
        raise BadBytes(f"{MANIFEST}: {bad.reason}", Kind.PUBLISHED) from bad


def check_publication(folder: Path, promised: Publication, step: int | None) -> Finding:
    """Check every file that the manifest names; `step` is what the folder's name says, if known.

    Raises:
        BadBytes: which file is not what was published.
        OSError: one cannot be read.

    """
    if step is not None and promised.step != step:
        reason = f"its manifest is that of step {promised.step}: the folder was renamed"
        raise BadBytes(reason, Kind.PUBLISHED)
    walk = Walk()
    there = dict(walk.contents(folder))
    if walk.problems:
        where, why = walk.problems[0]
        raise PermissionError(f"{where} {why}")
    try:
        for name, wanted in promised.files.items():  # the cheap question first, of all of them
            _check_size(name, wanted, there.get(name))
        for name, wanted in promised.files.items():
            _check_content(folder / name, name, wanted)
    except BadBytes as bad:
        raise BadBytes(bad.reason, Kind.PUBLISHED) from bad
    return Finding(Kind.PUBLISHED, Level.VERIFIED, _reason(promised, set(there)))


def _publication(fields: dict[str, Any]) -> Publication:
    version, crc32 = fields.get("version"), fields.pop("crc32", None)
    if isinstance(version, int) and version > _VERSION:
        reason = f"its manifest has version {version}, which needs a newer supervise"
        raise OSError(errno.ENOTSUP, reason)
    if version != _VERSION or crc32 != _crc32(fields):
        raise BadBytes("it is not what was written")
    step, files = fields.get("step"), fields.get("files")
    if not _is_count(step, _STEP_LIMIT) or not (isinstance(files, dict) and files):
        raise BadBytes("it names no step, or no files")
    return Publication(step, {name: _promised(name, files[name]) for name in files})


def _crc32(fields: dict[str, Any]) -> int | None:
    try:
        return zlib.crc32(canonical(fields).encode())
    except (ValueError, RecursionError):  # figures that JSON does not have, or too deep
        return None


def _promised(name: str, wanted: object) -> Promised:
    if name.startswith("/") or ".." in PurePosixPath(name).parts:
        raise BadBytes(f"it names {name[:80]!r}, which lies outside the checkpoint")
    match wanted:
        case {"bytes": size_bytes, "crc32": crc32} if _is_count(size_bytes, _STEP_LIMIT) and (
            crc32 is None or _is_count(crc32, 2**32)
        ):
            return Promised(size_bytes, crc32)
    raise BadBytes(f"its entry of {name[:80]!r} is damaged")


def _is_count(value: object, limit: int) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < limit


def _check_size(name: str, wanted: Promised, entry: os.DirEntry[str] | None) -> None:
    if entry is None:
        raise BadBytes(f"{name[:80]} is missing")
    if not entry.is_file(follow_symlinks=False):
        raise BadBytes(f"{name[:80]} is a link or no file; it was published as a file")
    size_bytes = entry.stat(follow_symlinks=False).st_size
    if size_bytes != wanted.size_bytes:
        raise BadBytes(
            f"{name[:80]} has {size_bytes} bytes and was published with {wanted.size_bytes}"
        )


def _check_content(path: Path, name: str, wanted: Promised) -> None:
    if wanted.crc32 is None:
        try:
            finding = check_part(path)
        except BadBytes as bad:
            raise BadBytes(f"{name[:80]}: {bad.reason}") from bad
        if finding.kind not in _ARCHIVES:
            raise BadBytes(f"{name[:80]} has no checksum, and is no archive that has its own")
        return
    with open_window(path) as window:
        crc32 = window.crc32(0, window.size_bytes)
    if crc32 != wanted.crc32:
        raise BadBytes(
            f"the bytes of {name[:80]} do not have their checksum "
            f"(published {wanted.crc32:08x}, found {crc32:08x})"
        )


def _reason(promised: Publication, there: set[str]) -> str:
    count = len(promised.files)
    more = [
        name
        for name in there - {MANIFEST, *promised.files}
        if not is_ours(PurePosixPath(name).name) and not looks_unfinished(PurePosixPath(name).name)
    ]
    said = "1 file is" if count == 1 else f"{count} files are"
    return f"{said} what the manifest says" + (f"; {len(more)} more not in it" if more else "")
