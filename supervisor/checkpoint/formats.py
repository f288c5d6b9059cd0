"""What a single file is, and whether its bytes are whole.

Owns telling formats apart by content (names only decide what a file should have been); reads
through `Window` alone, never unpickles. Invariant: random bytes give a `Finding` or `BadBytes`,
never another error.

Sources of the magics: pickle protocol (PEP 3154), torch's legacy `_legacy_save` (a pickled magic
number first), PKWARE APPNOTE 6.3.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from supervisor.checkpoint.reading import Window, open_window, parse_json
from supervisor.checkpoint.tensors import check_tensors, looks_like_tensors
from supervisor.checkpoint.verdict import BadBytes, Finding, Kind, Level
from supervisor.checkpoint.zipcheck import check_archive, check_archives
from supervisor.checkpoint.zipindex import END_MAGIC, LOCAL_MAGIC, has_end

TORCH_SUFFIXES: Final = frozenset({".pt", ".pth", ".ckpt", ".bin"})
_NEVER_EMPTY: Final = TORCH_SUFFIXES | {".safetensors", ".distcp", ".pkl", ".json", ".npz"}
_LEGACY_MAGIC: Final = bytes.fromhex("80028a0a6cfc9c46f920")
_PICKLE_PROTOCOLS: Final = frozenset(range(2, 6))
_HEAD_BYTES: Final = 4096
_JSON_LIMIT_BYTES: Final = 4 << 20  # parsed whole below, judged by its ends above


def check_file(path: Path) -> Finding:
    """Check one file.

    Raises:
        BadBytes: why it cannot be used.
        OSError: it cannot be read, or is not a regular file.

    """
    with open_window(path) as window:
        if window.size_bytes == 0:
            raise BadBytes("it is empty")
        head = window.read(0, min(_HEAD_BYTES, window.size_bytes))
        if not any(head):
            raise BadBytes("it begins with nothing but zeros: it was never fully written")
        return _check(window, head, path.suffix)


def check_part(path: Path) -> Finding:
    """Check one file inside a directory checkpoint, where a JSON file is a format of its own and
    an empty file may be meant.

    Raises:
        BadBytes, OSError: as `check_file`.

    """  # noqa: D205 - one sentence
    with open_window(path) as window:
        if window.size_bytes == 0 and path.suffix not in _NEVER_EMPTY:
            return Finding(Kind.PLAIN, Level.STABLE, "an empty file")
        if path.suffix == ".json" and window.size_bytes:
            return _check_json(window)
    return check_file(path)


def _check(window: Window, head: bytes, suffix: str) -> Finding:
    if any(magic.startswith(head) for magic in (LOCAL_MAGIC, _LEGACY_MAGIC)):
        raise BadBytes(f"it was cut off after {len(head)} bytes")
    for matches, check in _FORMATS:
        if matches(window, head, suffix):
            return check(window)
    if has_end(window):
        raise BadBytes("its end is a zip archive's, its beginning is not: it was overwritten")
    return Finding(Kind.PLAIN, Level.STABLE, "not empty; its format has nothing to check")


def _check_pickle(window: Window) -> Finding:
    if window.read(window.size_bytes - 1, 1) != b".":
        raise BadBytes("the pickle does not end with its stop mark: it was cut off", Kind.PICKLE)
    return Finding(Kind.PICKLE, Level.STABLE, "it ends as a pickle does; a pickle has no checksum")


def _check_legacy(_window: Window) -> Finding:
    return Finding(
        Kind.TORCH_LEGACY, Level.STABLE, "not empty; torch's old format cannot be checked"
    )


def _check_json(window: Window) -> Finding:
    if window.size_bytes <= _JSON_LIMIT_BYTES:
        try:
            parse_json(window.read(0, window.size_bytes))
        except ValueError as error:
            raise BadBytes("it is not valid JSON") from error
        return Finding(Kind.PLAIN, Level.STABLE, "valid JSON")
    first = window.read(0, 64).lstrip()[:1]
    last = window.read(window.size_bytes - 64, 64).rstrip()[-1:]
    if first + last not in (b"{}", b"[]"):
        raise BadBytes("the JSON was cut off")
    return Finding(Kind.PLAIN, Level.STABLE, "JSON that ends as it should")


_Test = Callable[[Window, bytes, str], bool]
_FORMATS: Final[tuple[tuple[_Test, Callable[[Window], Finding]], ...]] = (
    (lambda _, head, suffix: suffix == ".distcp" and head.startswith(LOCAL_MAGIC), check_archives),
    (lambda _, head, __: head.startswith((LOCAL_MAGIC, END_MAGIC)), check_archive),
    (
        lambda window, _, suffix: suffix == ".safetensors" or looks_like_tensors(window),
        check_tensors,
    ),
    (lambda _, head, __: head.startswith(_LEGACY_MAGIC), _check_legacy),
    (
        lambda window, head, _: (
            head[:1] == b"\x80"
            and head[1:2] != b""
            and head[1] in _PICKLE_PROTOCOLS
            and not has_end(window)
        ),
        _check_pickle,
    ),
)
