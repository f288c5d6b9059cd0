"""Keeps the outputs of an earlier job apart from those of a fresh start.

Owns the one rename that `--fresh` does. Nothing is overwritten or deleted: the folder with the old
checkpoints (of a training job: its whole `out`) gets another name, and the job begins with an empty
one. What the old job had left in memory goes to the disk before that, where there is room.
"""

import itertools
from contextlib import suppress
from pathlib import Path

from supervisor.checkpoint import Layout, find
from supervisor.runner.tiers import MemoryTier


class FreshImpossible(Exception):
    """Old and new outputs cannot be kept apart by themselves; the message says what to do."""


def keep_apart(layout: Layout | None, job_folder: Path, out: Path | None = None) -> Path | None:
    """Give the folder of the old outputs another name; the new name, None if there are none.

    `out` is a training job's: it holds the checkpoints, and more.

    Raises:
        FreshImpossible: they lie in the job's own folder or above, or it cannot be renamed.
    """
    if layout is None or not (find(layout).found or _holds_something(out)):
        return None
    place = layout.root if out is None else out
    root = place.resolve()
    if job_folder.resolve().is_relative_to(root):
        what, field = ("checkpoints", "checkpoint.dir") if out is None else ("outputs", "train.out")
        raise FreshImpossible(
            f"the old {what} lie in {root}, beside job.yaml, and a fresh start would mix with "
            f"them. Move them away, or give {field} a folder of its own."
        )
    for number in itertools.count(1):
        kept = root.with_name(f"{root.name}.before-{number}")
        if not kept.exists():
            break
    try:
        root.rename(kept)
        if place.is_symlink():  # it led to a larger disk, and shall do so again
            root.mkdir()
    except OSError as error:
        raise FreshImpossible(
            f"the old outputs in {root} cannot be renamed to {kept.name}: {error.strerror}. "
            "Move them away by hand, then run again."
        ) from error
    return kept


def save_memory(layout: Layout | None, state_dir: Path, job_id: str) -> None:
    """Have the newest snapshot of an earlier job join its checkpoints; `layout` is that job's own.

    Call it while no runner has that job.

    Raises:
        FreshImpossible: it cannot be copied.
    """
    tier, root = MemoryTier.at(state_dir, job_id), None if layout is None else layout.root
    try:
        if layout is not None:
            tier.promote(layout)
    except OSError as error:
        raise FreshImpossible(
            f"the old job's newest snapshot, in {tier.folder}, cannot be copied to {root}: "
            f"{error.strerror or error}. Make room there, or remove that folder, then run again."
        ) from error


def empty_memory(state_dir: Path, job_id: str) -> None:
    """Give back the memory that an earlier job's snapshots took."""
    with suppress(OSError):  # the next runner sweeps
        MemoryTier.at(state_dir, job_id).clean()


def _holds_something(folder: Path | None) -> bool:
    with suppress(OSError):
        return folder is not None and any(folder.iterdir())
    return False
