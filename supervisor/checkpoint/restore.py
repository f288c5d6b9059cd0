"""Putting a pinned copy back where the script looks for it.

Owns the way back; the pin is only read. The copy is made and checked under a hidden name in the
destination's folder; what stands in its place is set aside; one rename puts it there. A crash
anywhere leaves the pin whole, so the next run does it again. Invariant: no other file is
overwritten, and no byte that differs from the manifest gets a checkpoint's name.
"""

import os
import shutil
from pathlib import Path

from supervisor.checkpoint.aside import set_aside
from supervisor.checkpoint.copying import Copying, Part, damage, free_bytes
from supervisor.checkpoint.errors import DiskFull, PinDamaged, RestoreFailed
from supervisor.checkpoint.layout import Layout
from supervisor.checkpoint.manifest import Pin
from supervisor.checkpoint.names import RESTORE_SUFFIX, hidden
from supervisor.checkpoint.verdict import BadBytes
from supervisor.checkpoint.walk import Walk
from supervisor.host.durable import FULL, fsync_folder


def restore(pin: Pin, layout: Layout) -> Path:
    """Put a pin back at its original place, with the file that tells its step; give the place.

    Raises:
        PinDamaged: the copy no longer has the bytes its manifest promises; nothing was changed.
        DiskFull: no room beside the destination; the pin is intact.
        SetAsideFailed: what stands in the way could not be moved.
        RestoreFailed: reading or writing failed; the pin is intact.

    """
    target = layout.root / pin.relative
    placements = [(pin.payload, target, pin.parts)]
    if pin.step_file is not None and pin.step_part is not None:
        # Placed first: an older checkpoint under a later step would be a lie.
        placements.insert(0, (pin.step_payload, layout.root / pin.step_file, (pin.step_part,)))
    try:
        staged = [(_stage(pin, *placement), placement[1]) for placement in placements]
        for source, place in staged:
            if source is not None:
                _put(source, place, pin.step)
    except OSError as error:
        if error.errno in FULL:
            free = free_bytes(layout.root)
            raise DiskFull(pin.size_bytes, free, target.parent) from error
        raise RestoreFailed(target, error.strerror or str(error)) from error
    return target


def _stage(pin: Pin, payload: Path, target: Path, parts: tuple[Part, ...]) -> Path | None:
    """Copy beside the target and check what was copied; None where the target has these bytes."""
    if _is_same(target, parts):
        return None
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.with_name(hidden(target.name, RESTORE_SUFFIX))
    _remove(staged)  # a killed run's
    try:
        _copy_checked(pin, payload, staged, parts)
    except BaseException:
        _remove(staged)
        raise
    return staged


def _copy_checked(pin: Pin, payload: Path, staged: Path, parts: tuple[Part, ...]) -> None:
    if not payload.exists():
        raise PinDamaged(pin.folder, "its copy is missing")
    try:
        copied = Copying(payload, staged, sum(part.size_bytes for part in parts)).run()
    except BadBytes as bad:
        raise PinDamaged(pin.folder, bad.reason) from bad
    if copied != parts:
        raise PinDamaged(pin.folder, "its bytes do not have the checksums of its manifest")


def _put(staged: Path, target: Path, step: int) -> None:
    if os.path.lexists(target):
        set_aside(target, f"the pinned copy of step {step} took its place")
    staged.rename(target)
    fsync_folder(target.parent)


def _is_same(target: Path, parts: tuple[Part, ...]) -> bool:
    if target.is_dir():
        names = {relative for relative, entry in Walk().contents(target) if not entry.is_dir()}
        if not {part.path for part in parts} >= names:
            return False
    elif not target.is_file() or target.is_symlink():
        return False
    return damage(target, parts) is None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
