"""How much room the file systems of this host have, and whether a file can be written there now.

Owns the facts and their words; decides nothing, and frees nothing. Every call may block for as long
as the file system does (a network one whose server is gone: for ever), so whoever must not wait
calls from a thread that may be lost. Paths are absolute.

Invariant: a folder that does not exist yet is answered for by the nearest one above it that does.
"""

import errno
import math
import os
import secrets
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

_KIB: Final = 1024
_MIB: Final = 1024**2
_GIB: Final = 1024**3
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_PROBE_BYTES: Final = _MIB
_PROBE_PARTS: Final = 16  # of a tiny file system, the probe takes one in so many
_LEAST_PROBE_BYTES: Final = 4 * _KIB
_LOW_SHARE: Final = 20  # one in so many bytes of a disk is kept free, up to a GiB
_WITHOUT_NAME: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.ENOSYS, errno.EINVAL})
_CANNOT_SYNC: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})


@dataclass(frozen=True, slots=True)
class Space:
    """What a file system says of itself; `path` is the folder that was asked.

    `free_bytes` is what a user without privileges may take. `total_bytes` 0 and `free_inodes` None
    mean that this file system does not say.
    """

    path: Path
    free_bytes: int
    total_bytes: int
    free_inodes: int | None


def space(path: Path) -> Space:
    """Ask the file system that holds `path`, or would hold it.

    Raises:
        OSError: it may not be looked at, or the disk fails; never because a folder is missing.
    """
    folder, _ = _nearest(path)
    try:
        found = os.statvfs(folder)
    except FileNotFoundError:  # removed since: the one above answers
        return space(folder.parent)
    # Kernels differ in what "available" is where root's reserve is used up already.
    free_blocks = min(found.f_bavail, found.f_bfree)
    return Space(
        path=folder,
        free_bytes=free_blocks * found.f_frsize,
        total_bytes=found.f_blocks * found.f_frsize,
        free_inodes=found.f_favail if found.f_files else None,
    )


def same_file_system(paths: Iterable[Path]) -> tuple[tuple[Path, ...], ...]:
    """Group paths by the file system that holds them, in the order they came.

    Room in a group is room once, not for each. Subvolumes of btrfs count as file systems of their
    own, although they share one disk.

    Raises:
        OSError: as `space`.
    """
    groups: dict[int, list[Path]] = {}
    for path in paths:
        # Of folders only: on an overlay a file may bear the number of the disk below.
        groups.setdefault(_nearest(path)[1].st_dev, []).append(path)
    return tuple(tuple(group) for group in groups.values())


def room(path: Path, need_bytes: int) -> str | None:
    """Say why `need_bytes` cannot be written at `path` now; None when they can, as far as is known.

    A small file is really written and synced there, which finds what no count tells: a quota, no
    inodes, a remount as read-only, a dying disk. It is removed, and has no name where the file
    system allows that, so that nobody who watches the folder sees it.
    """
    try:
        seen = space(path)
    except OSError as error:
        return f"{path}: it cannot be asked: {_strerror(error)}"
    if seen.total_bytes and seen.free_bytes < need_bytes:
        return f"{_free(seen)}, {_size(need_bytes, math.ceil)} are needed"
    try:
        _write_probe(seen.path, _probe_bytes(seen))
    except FileNotFoundError as error:
        # The folder went away in between, or it is one that takes no files, such as /proc.
        return f"{seen.path}: {_strerror(error)}" if seen.path.exists() else room(path, need_bytes)
    except OSError as error:
        return _refusal(seen, error)
    return None


def low_water_bytes(total_bytes: int, newest_checkpoint_bytes: int | None) -> int:
    """Below how many free bytes a person should know: two more checkpoints, and some to live on.

    The latter is a GiB, or 5 % of a disk smaller than 20 GiB.
    """
    return max(2 * (newest_checkpoint_bytes or 0), min(_GIB, total_bytes // _LOW_SHARE))


def _nearest(path: Path) -> tuple[Path, os.stat_result]:
    """Return the folder that holds `path`, links followed, or the nearest above it that exists."""
    real = Path(os.path.realpath(path))  # also where a link leads whose target is not made yet
    for folder in (real, *real.parents[:-1]):
        with suppress(FileNotFoundError, NotADirectoryError):
            found = os.stat(folder)  # noqa: PTH116 - Path.stat is no different, and this is the theme
            if stat.S_ISDIR(found.st_mode):
                return folder, found
    root = Path(real.anchor)
    return root, os.stat(root)  # noqa: PTH116 - as above


def _probe_bytes(seen: Space) -> int:
    if not seen.total_bytes:
        return _LEAST_PROBE_BYTES
    return max(_LEAST_PROBE_BYTES, min(_PROBE_BYTES, seen.total_bytes // _PROBE_PARTS))


def _write_probe(folder: Path, count: int) -> None:
    # Random bytes: zeros would cost nothing where the file system compresses.
    left = memoryview(secrets.token_bytes(count))
    writer = _open_probe(folder)
    try:
        while left:
            left = left[os.write(writer, left) :]
        _sync(writer)
    finally:
        os.close(writer)


def _open_probe(folder: Path) -> int:
    """Open a file that is gone once it is closed."""
    flags = os.O_WRONLY | os.O_CLOEXEC
    try:
        return os.open(folder, flags | os.O_TMPFILE, 0o600)
    except OSError as error:
        if error.errno not in _WITHOUT_NAME:
            raise
    named = folder / f".supervise-room-{secrets.token_hex(8)}"
    writer = os.open(named, flags | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        named.unlink()
    except OSError:
        os.close(writer)
        raise
    return writer


def _sync(writer: int) -> None:
    try:
        os.fsync(writer)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:  # then the write itself was all that can be known
            raise


def _refusal(seen: Space, error: OSError) -> str:
    words = _WORDS.get(error.errno or 0)
    return words(seen) if words else f"{seen.path}: no file can be written: {_strerror(error)}"


def _is_full(before: Space) -> str:
    try:
        seen = space(before.path)  # what the probe found, somebody may have filled just now
    except OSError:
        seen = before
    if seen.free_inodes == 0:
        return f"{seen.path}: no inodes left for another file, although {_free_part(seen)}"
    return f"{_free(seen)}, and nothing more can be written"


_WORDS: Final = MappingProxyType[int, Callable[[Space], str]](
    {
        errno.ENOSPC: _is_full,
        errno.EDQUOT: lambda seen: (
            f"{seen.path}: the disk quota is used up, although {_free_part(seen)}; see `quota -s`"
        ),
        errno.EROFS: lambda seen: (
            f"{seen.path}: mounted read-only, which the kernel also does after disk errors; "
            "see `dmesg`"
        ),
        errno.EIO: lambda seen: (
            f"{seen.path}: the disk fails or is unreachable (input/output error); see `dmesg`"
        ),
    }
)


def _free(seen: Space) -> str:
    return f"{seen.path}: {_free_part(seen)}"


def _free_part(seen: Space) -> str:
    if not seen.total_bytes:
        return "how much is free is not told"
    return f"{_size(seen.free_bytes, math.floor)} free of {_size(seen.total_bytes, math.floor)}"


def _size(count: float, rounded: Callable[[float], int]) -> str:
    """Write a size with two digits or more; `rounded` sees to it that 'free' never looks enough."""
    unit = 0
    while count >= _KIB and unit < len(_UNITS) - 1:
        count, unit = count / _KIB, unit + 1
    tenths = rounded(count * 10)
    is_short = unit and tenths < 100  # noqa: PLR2004 - ten, in tenths
    return f"{tenths / 10:.1f} {_UNITS[unit]}" if is_short else f"{rounded(count)} {_UNITS[unit]}"


def _strerror(error: OSError) -> str:
    return (error.strerror or "error").lower()
