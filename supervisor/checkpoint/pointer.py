"""The pointer file by which a script finds its own latest checkpoint.

Owns rewriting it so that it names the checkpoint we chose, in the style the script wrote it:
`global_step100` (DeepSpeed's `latest`), `model_0004999.pth` (detectron2's `last_checkpoint`),
`work_dirs/x/epoch_3.pth` (mmengine's), `1000` (Megatron's), or a link. Invariant: the pointer is
replaced in one step, or left alone.
"""

import os
import re
from pathlib import Path, PurePath
from typing import Final, Protocol

from supervisor.checkpoint.aside import set_aside
from supervisor.checkpoint.errors import PointerUnclear
from supervisor.checkpoint.layout import Layout, StepFromPointer
from supervisor.checkpoint.names import WRITE_SUFFIX, hidden
from supervisor.checkpoint.reading import read_small
from supervisor.checkpoint.verdict import BadBytes
from supervisor.host.durable import fsync_folder, replacing

_LIMIT_BYTES: Final = 64 << 10
_LINE: Final = re.compile(r"(\s*)([^\n]*?)(\s*)", re.DOTALL)


class Target(Protocol):
    """What the pointer is to name: a `Found`, a `Chosen`."""

    @property
    def path(self) -> Path:
        """Where the checkpoint is."""

    @property
    def step(self) -> int:
        """Its step."""


def rewrite_pointer(layout: Layout, target: Target | None) -> None:
    """Make the layout's pointer name `target`; without one, set the pointer aside.

    A layout without a pointer is left alone. A missing or emptied pointer is written as the bare
    name, or as the bare step where the layout takes the step from it.

    Raises:
        PointerUnclear: it holds more than one line, or something unreadable; it is as it was.
        SetAsideFailed, OSError: it could not be written; it is as it was.

    """
    pointer = layout.pointer_path
    if pointer is None:
        return
    if target is None:
        if os.path.lexists(pointer):
            set_aside(pointer, "no checkpoint that verifies is left for it to name")
    elif pointer.is_symlink():
        _relink(pointer, target.path)
    else:
        _rewrite(layout, pointer, target)


def _relink(pointer: Path, target: Path) -> None:
    absolute = pointer.readlink().is_absolute()
    text = os.path.abspath(target) if absolute else os.path.relpath(target, pointer.parent)  # noqa: PTH100 - must not follow links
    temporary = pointer.with_name(hidden(pointer.name, WRITE_SUFFIX))
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(text)
    temporary.rename(pointer)
    fsync_folder(pointer.parent)


def _rewrite(layout: Layout, pointer: Path, target: Target) -> None:
    try:
        content = os.fsdecode(read_small(pointer, _LIMIT_BYTES))
        mode = pointer.stat().st_mode & 0o777
    except FileNotFoundError:
        content, mode = "", 0o644
    except BadBytes as bad:
        raise PointerUnclear(pointer, bad.reason) from bad
    before, old, after = _parts(pointer, content)
    new = _in_style(layout, pointer, old, target)
    if new != old:
        pointer.parent.mkdir(parents=True, exist_ok=True)
        temporary = pointer.with_name(hidden(pointer.name, WRITE_SUFFIX))
        with replacing(pointer, temporary, mode) as file:
            file.write(os.fsencode(before + new + after))


def _parts(pointer: Path, content: str) -> tuple[str, str, str]:
    """Split into white space, the one line, white space; what a crash zeroed counts as empty."""
    match = _LINE.fullmatch(content.strip("\0"))
    if match is None:
        raise PointerUnclear(pointer, "it has more than one line")
    if not match[2].isprintable() and not _is_name(match[2]):
        raise PointerUnclear(pointer, "it is not text")
    return match[1], match[2], match[3]


def _is_name(text: str) -> bool:
    """Printable but for bytes that are not UTF-8, as a file's name may be."""
    return re.sub("[\udc80-\udcff]", "", text).isprintable()


def _in_style(layout: Layout, pointer: Path, old: str, target: Target) -> str:
    is_step = isinstance(layout.step, StepFromPointer) and pointer == layout.root / layout.step.file
    if old.isascii() and old.isdigit():
        return str(target.step).zfill(len(old) if old.startswith("0") else 0)
    if is_step:
        return str(target.step)
    if os.path.isabs(old):  # noqa: PTH117 - a text, not a path of ours
        return _stem(old, target.path, os.path.abspath(target.path))  # noqa: PTH100 - must not follow links
    if os.sep in old:
        return _stem(old, target.path, _relative(layout, pointer, old, target.path))
    inside = PurePath(os.path.relpath(target.path, pointer.parent)).parts
    name = target.path.name if inside[0] == os.pardir else inside[0]
    return _stem(old, target.path, name)


def _relative(layout: Layout, pointer: Path, old: str, target: Path) -> str:
    """Name the target relative to the folder that the old text was relative to."""
    for base in (pointer.parent, layout.root, *layout.root.absolute().parents):
        if (base / old).parent.is_dir():
            return os.path.relpath(target, base)
    for base in (pointer.parent, layout.root):  # the old one's folder is gone: count the levels
        text = os.path.relpath(target, base)
        if len(PurePath(text).parts) == len(PurePath(old).parts):
            return text
    return str(PurePath(old).parent / target.name)


def _stem(old: str, target: Path, new: str) -> str:
    """Leave the suffix away where the old text had none."""
    leaves_it = old and not PurePath(old).suffix and new.endswith(target.suffix)
    return new.removesuffix(target.suffix) if leaves_it and target.is_file() else new
