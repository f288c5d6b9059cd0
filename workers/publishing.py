"""Publishes checkpoints: a folder is visible under its name when it is whole, and not before.

Owns a folder of checkpoints `step-000000120`, which of them stay, and the links `last` and `best`
to two of them. Never opens a file that a writer wrote but to sum it up. Invariant: whenever the
process or the host dies, each visible folder is a whole checkpoint, and the newest that was ever
published is there, or one that was published in its place.

    publisher = Publisher("checkpoints", keep=3, best=Best("accuracy", "max"))
    publisher.publish(lambda folder: torch.save(state, folder / "state.pt"), 120, {"accuracy": 0.9})

What is published: all files are written into a hidden folder, synced, then listed in its manifest;
then the folder is renamed. A memory tier is not synced, and holds no more than its budget.
"""

from __future__ import annotations

import errno
import math
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from workers import leftovers
from workers.manifest import MANIFEST, Torn, Unfit, read_manifest, sync, verify, write_manifest
from workers.protocol import ENV_MEMORY_BUDGET, ENV_RESUME_PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "MANIFEST", "Best", "Publication", "Publisher", "Torn", "Unfit", "newest", "read_manifest",
    "verify",
]  # fmt: skip

TIERS = ("disk", "memory")
MODES = ("min", "max")
NAME = re.compile(r"step-(\d+)")


class Best(NamedTuple):
    """By which of the metrics a checkpoint is the best one; `mode` is "min" or "max"."""

    metric: str
    mode: str = "min"


class Publication(NamedTuple):
    """A checkpoint that lies whole at `path`; `size_bytes` without its manifest."""

    path: Path
    step: int
    size_bytes: int
    is_best: bool


class Publisher:
    """Publishes into one folder.

    `keep`: how many of the newest stay; None: all. Beside them stay the best, what was published
    last, and what the job was resumed from. `durable`: on the disk before it is visible.
    Raises: ValueError for what cannot be.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        tier: str = "disk",
        keep: int | None = None,
        best: Best | None = None,
        durable: bool = True,
    ) -> None:
        if tier not in TIERS:
            raise ValueError(f'tier={tier!r}: there are "disk" and "memory"')
        if keep is not None and keep < 1:
            raise ValueError(f"keep={keep!r}: at least one checkpoint stays; None keeps all")
        self.folder = Path(folder)
        self.tier = tier
        self._keep = keep
        self._best = None if best is None else Best(*best)
        if self._best is not None and self._best.mode not in MODES:
            raise ValueError(f'best: mode {self._best.mode!r} is neither "min" nor "max"')
        self._durable = durable and tier == "disk"

    def publish(
        self,
        write: Callable[[Path], object],
        step: int,
        metrics: Mapping[str, float] | None = None,
    ) -> Publication:
        """Have a folder written, then make it visible as the checkpoint of this step.

        Raises: what `write` raises; OSError, ENOSPC also where the memory tier's budget does not
        suffice; Unfit. Nothing of it is left then.
        """
        number = _checked(step)
        target = self.folder / name_of(number)
        _make(self.folder, durable=self._durable)
        leftovers.sweep(self.folder)
        self._check_room()
        with leftovers.Partial(self.folder, target.name) as partial:
            write(partial)
            size = write_manifest(
                partial, number, self.tier, _figures(metrics), durable=self._durable
            )
            self._check_budget(0)
            leftovers.put(partial, target, durable=self._durable)
        best = self._settle(target)
        return Publication(target, number, size, best == target)

    def remove_all(self) -> None:
        """Remove every checkpoint of ours in the folder, and the links to them."""
        leftovers.sweep(self.folder)
        for path in published(self.folder):
            with suppress(OSError):
                leftovers.remove(path)
        for name in ("last", "best"):
            with suppress(OSError):
                if (self.folder / name).is_symlink():
                    (self.folder / name).unlink()

    def _settle(self, latest: Path) -> Path | None:
        """Remove what need not stay, set the links; return the best. It is published already."""
        if self._keep is None and self._best is None:
            _link(latest, "last")
            return None
        manifests = published(self.folder)
        best = self._best_of(manifests)
        _link(latest, "last")
        if best is not None:
            _link(best, "best")
        steps = list(manifests)
        stay = {latest, best, *(steps if self._keep is None else steps[: self._keep])}
        for path in manifests:
            if path not in stay and not self._is_resumed(path):
                with suppress(OSError):  # another writer was faster, or may and we may not
                    leftovers.remove(path)
        return best

    def _best_of(self, manifests: Mapping[Path, dict[str, Any]]) -> Path | None:
        if self._best is None:
            return None
        metric, mode = self._best
        sign = 1.0 if mode == "max" else -1.0
        ranked = [
            (sign * facts["metrics"][metric], facts["step"], path)
            for path, facts in manifests.items()
            if metric in facts["metrics"]
        ]
        return max(ranked)[2] if ranked else None

    def _is_resumed(self, path: Path) -> bool:
        """Tell whether the job was resumed from it. In memory it goes: room is scarce there."""
        resumed = os.environ.get(ENV_RESUME_PATH)
        if not resumed or self.tier == "memory":
            return False
        real = Path(resumed).resolve()
        return path.resolve() in (real, *real.parents)

    def _check_room(self) -> None:
        """Raise OSError when a checkpoint as large as the newest one does not fit beside it."""
        if self.tier == "memory":
            for facts in published(self.folder).values():
                self._check_budget(sum(one["bytes"] for one in facts["files"].values()))
                return

    def _check_budget(self, more_bytes: int) -> None:
        """Raise OSError when all that lies in the memory tier, and so much more, is too much."""
        budget = os.environ.get(ENV_MEMORY_BUDGET, "")
        if self.tier != "memory" or not budget.isdigit():
            return
        held = _held_bytes(self.folder)
        if held + more_bytes > int(budget):
            raise OSError(
                errno.ENOSPC,
                f"the memory tier may hold {int(budget):,} bytes, and {held + more_bytes:,} are "
                "needed while a checkpoint is written beside the one before it",
                str(self.folder),
            )


def newest(folder: str | os.PathLike[str]) -> Path | None:
    """Return the newest checkpoint in a folder that verifies; None when there is none."""
    leftovers.restore(Path(folder))
    for path in published(Path(folder)):
        with suppress(Torn):
            verify(path)
            return path
    return None


def published(folder: Path) -> dict[Path, dict[str, Any]]:
    """Return the checkpoints of ours in a folder with their manifests, the newest first."""
    found = []
    for path in leftovers.entries(folder):
        if NAME.fullmatch(path.name) and not path.is_symlink():
            with suppress(Torn):
                facts = read_manifest(path)
                found.append((facts["step"], path, facts))
    return {path: facts for _, path, facts in sorted(found, key=lambda one: one[:2], reverse=True)}


def name_of(step: int) -> str:
    """Return the name of a step's folder."""
    return f"step-{step:09d}"


def _held_bytes(folder: Path) -> int:
    """Return what all files below a folder hold, those that are being written included."""
    held = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                held += Path(parent, name).lstat().st_size
    return held


def _checked(step: int) -> int:
    try:
        number = int(step)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"step={step!r} is no number of steps: {error}") from None
    if number < 0:
        raise ValueError(f"step={step!r}: a checkpoint has a step of 0 or more")
    return number


def _figures(metrics: Mapping[str, float] | None) -> dict[str, float]:
    """Return the metrics that are numbers."""
    found = {}
    for name, value in (metrics or {}).items():
        with suppress(Exception):
            number = float(value)
            if math.isfinite(number):
                found[str(name)] = number
    return found


def _make(folder: Path, *, durable: bool) -> None:
    """Make a folder, so that its name is on the disk, too. Raises OSError."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing if durable else ():
        sync(path.parent)


def _link(target: Path, name: str) -> None:
    """Point a link at a checkpoint beside it; where that cannot be done it is done without."""
    link = target.parent / name
    new = target.parent / f".{name}.{os.getpid()}"
    with suppress(OSError):
        if link.is_symlink() or not link.exists():  # or it is the user's own
            new.unlink(missing_ok=True)
            new.symlink_to(target.name)
            new.replace(link)
