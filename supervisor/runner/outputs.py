"""Keeps the outputs of an earlier job apart from those of a fresh start.

Owns the one rename that `--fresh` does. Nothing is overwritten or deleted: the folder with the old
checkpoints gets another name, and the job begins with an empty one.
"""

import itertools
from pathlib import Path

from supervisor.checkpoint import Layout, find


class FreshImpossible(Exception):
    """Old and new outputs cannot be kept apart by themselves; the message says what to do."""


def keep_apart(layout: Layout | None, job_folder: Path) -> Path | None:
    """Give the folder of the old checkpoints another name; the new name, None if there are none.

    Raises:
        FreshImpossible: they lie in the job's own folder or above, or it cannot be renamed.
    """
    if layout is None or not find(layout).found:
        return None
    root = layout.root.resolve()
    if job_folder.resolve().is_relative_to(root):
        raise FreshImpossible(
            f"the old checkpoints lie in {root}, beside job.yaml, and a fresh start would mix with "
            "them. Move them away, or give checkpoint.dir a folder of its own."
        )
    for number in itertools.count(1):
        kept = root.with_name(f"{root.name}.before-{number}")
        if not kept.exists():
            break
    try:
        root.rename(kept)
        if layout.root.is_symlink():  # it led to a larger disk, and shall do so again
            root.mkdir()
    except OSError as error:
        raise FreshImpossible(
            f"the old outputs in {root} cannot be renamed to {kept.name}: {error.strerror}. "
            "Move them away by hand, then run again."
        ) from error
    return kept
