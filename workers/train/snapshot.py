"""Takes a training's state and publishes it beside the training, in memory or on disk.

Owns one set of host buffers, so at most one snapshot is under way. Never publishes weights that are
not finite. Invariant: every log is written, and before a checkpoint on disk synced, up to the step
of a snapshot before that snapshot is published.
"""

from __future__ import annotations

import errno
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

import torch

from workers.faults import kind_of
from workers.train.capture import Capture, Captured, Place
from workers.train.errors import TrainingError

if TYPE_CHECKING:
    from torch import Tensor

    from workers.train.writer import Writer

STATE_FILE = "state.pt"
MEMORY, DISK = "memory", "disk"
MIB = 2**20
BESIDE_TENSORS = 1.02  # a file is so many times the bytes of its tensors, and
BESIDE_BYTES = 256 * 1024  # so many more

Publish = Callable[[Callable[[Path], None], int, Mapping[str, float]], Optional[Path]]  # noqa: UP045 - evaluated, on Python 3.9 too
"""Publishes what the first argument writes into a folder; None where the tier took it not."""


class NonFinite(TrainingError):
    """A loss or a weight is not a finite number: this training cannot go on from here."""

    def __init__(self, message: str, step: int, **details: Any) -> None:  # noqa: ANN401 - plain values
        super().__init__(message, kind="non_finite", step=step, **details)
        self.step = step


class Tiers(NamedTuple):
    """Where snapshots go. `memory_bytes` is what all of the memory tier may hold."""

    disk: Publish
    memory: Publish | None = None
    memory_bytes: float = math.inf


class Snapshot(NamedTuple):
    """One that is under way."""

    step: int
    captured: Captured
    tiers: tuple[str, ...]
    metrics: Mapping[str, float]


class Snapshots:
    """Snapshots of one training, written by its writer; a sink of it.

    `parameters` are the names of the model's weights in its state; `logs` are synced before a
    checkpoint on disk.
    """

    def __init__(
        self,
        writer: Writer,
        tiers: Tiers,
        device: torch.device,
        parameters: Iterable[str],
        logs: Iterable[Callable[[], None]] = (),
    ) -> None:
        self._writer = writer
        self._tiers = tiers
        self._parameters = tuple(parameters)
        self._logs = tuple(logs)
        names = frozenset(self._parameters)
        self._capture = Capture(device, lambda place: _is_optimizers(place, names))
        self._under_way = 0
        self.has_memory = tiers.memory is not None
        self.published: dict[str, int] = {}  # newest step of each tier, by this process

    @property
    def busy(self) -> bool:
        """Whether one is under way: its buffers are in use."""
        return self._under_way > 0

    def take(
        self,
        state: dict[str, Any],
        step: int,
        tiers: tuple[str, ...],
        metrics: Mapping[str, float],
        losses: Tensor | None = None,
    ) -> None:
        """Capture a state now, and have it published if it and the given losses are finite.

        Waits for the one under way, if there is one: ask `busy` before.
        """
        if self.busy:
            self._writer.settle()
        captured = self._capture.take({"state": state, "losses": losses})
        self._under_way += 1
        self._writer.put_now(self, Snapshot(step, captured, tiers, metrics))

    def release(self) -> None:
        """Say that the optimizer comes next; on a GPU it waits for the copies."""
        self._capture.release()

    def write(self, items: list[Snapshot]) -> None:
        """Publish them, on the writer's thread. Raises TrainingError, OSError."""
        for snapshot in items:
            try:
                self._write(snapshot)
            finally:
                self._under_way -= 1

    def _write(self, snapshot: Snapshot) -> None:
        snapshot.captured.wait()
        tree, step = snapshot.captured.tree, snapshot.step
        self._check(tree, step)
        in_memory = None
        if MEMORY in snapshot.tiers and self._fits(snapshot.captured.size_bytes):
            in_memory = self._publish_in_memory(tree["state"], snapshot)
        if DISK in snapshot.tiers:
            for sync in self._logs:
                sync()
            self._publish_on_disk(tree["state"], snapshot, in_memory)

    def _check(self, tree: dict[str, Any], step: int) -> None:
        """Raise NonFinite where the losses before it or a weight are not finite."""
        losses = tree["losses"]
        if losses is not None and not bool(torch.isfinite(losses).all()):
            raise NonFinite(f"a loss up to step {step} is not finite; it was not saved", step)
        model = tree["state"].get("model", {})
        for name in self._parameters:
            weight = model.get(name)
            if weight is not None and not _is_finite(weight):
                raise NonFinite(
                    f"weight {name} is not finite after step {step}; it was not saved: the "
                    f"gradient of this step or of one shortly before was not finite",
                    step,
                    weight=name,
                )

    def _fits(self, size_bytes: int) -> bool:
        """Tell whether the memory tier has room; where it has not, it is given up, in words."""
        if not self.has_memory:
            return False
        file_bytes = int(size_bytes * BESIDE_TENSORS) + BESIDE_BYTES
        if 2 * file_bytes > self._tiers.memory_bytes:
            self._give_up(
                f"one has {file_bytes / MIB:,.0f} MiB, two are there while one is written, and the "
                f"memory tier may hold {self._tiers.memory_bytes / MIB:,.0f} MiB"
            )
        return self.has_memory

    def _publish_in_memory(self, state: dict[str, Any], snapshot: Snapshot) -> Path | None:
        publish = self._tiers.memory
        if publish is None:
            return None
        path = None
        try:
            path = publish(lambda folder: _save(state, folder), snapshot.step, snapshot.metrics)
        except OSError as error:
            self._give_up(str(error))
        if path is None:
            self.has_memory = False  # the session has said why
        else:
            self.published[MEMORY] = snapshot.step
        return path

    def _publish_on_disk(
        self, state: dict[str, Any], snapshot: Snapshot, in_memory: Path | None
    ) -> None:
        def write(folder: Path) -> None:
            _save(state, folder, in_memory)

        try:
            self._tiers.disk(write, snapshot.step, snapshot.metrics)
        except OSError as error:
            kind = kind_of(error)
            what = "no room for" if kind == "disk_full" else "nobody can write"
            remedy = "make room" if kind == "disk_full" else "have it writable again"
            raise TrainingError(
                f"{what} the checkpoint of step {snapshot.step}: {error}; the ones before it are "
                f"whole: {remedy}, or give checkpoints another folder, and go on from there",
                kind=kind,
                step=snapshot.step,
            ) from error
        self.published[DISK] = snapshot.step

    def _give_up(self, why: str) -> None:
        if self.has_memory:
            self.has_memory = False
            print(
                f"snapshots in memory are off for this attempt: {why}; checkpoints on disk go on",
                file=sys.stderr,
                flush=True,
            )


def _save(state: dict[str, Any], folder: Path, copied_from: Path | None = None) -> None:
    """Write the state's file; a copy of a written one spares making it again. Raises OSError."""
    path = folder / STATE_FILE
    if copied_from is not None and _copy(copied_from / STATE_FILE, path):
        return
    # A file object, not a path: torch's own writing of paths cannot tell that a disk is full.
    try:
        with path.open("wb") as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:
        found: BaseException | None = error
        while found is not None and not isinstance(found, OSError):
            found = found.__context__  # torch cannot finish a file that is cut short, and says that
        if found is None:
            raise
        raise OSError(found.errno, found.strerror, str(path)) from error


def _copy(source: Path, target: Path) -> bool:
    """Copy a file within the kernel; tells whether it could. Raises OSError for a full disk."""
    try:
        with source.open("rb") as read, target.open("wb") as written:
            left = os.fstat(read.fileno()).st_size
            while left > 0:
                done = os.sendfile(written.fileno(), read.fileno(), None, left)
                if done == 0:
                    return False
                left -= done
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(error.errno, error.strerror, str(target)) from error
        return False  # the memory tier was cleared, or these file systems cannot
    return True


def _is_finite(weight: Tensor) -> bool:
    """Tell it by one sum; only a sum that is too large is looked at again."""
    if not (weight.is_floating_point() or weight.is_complex()):
        return True
    wide = torch.float32 if weight.is_floating_point() else torch.complex64
    total = weight.sum(dtype=torch.promote_types(weight.dtype, wide))
    if math.isfinite(float(total.abs())):
        return True
    return bool(torch.isfinite(weight).all())


def _is_optimizers(place: Place, parameters: frozenset[str]) -> bool:
    """Tell whether only the optimizer's step changes what is there."""
    return place[:2] == ("state", "optimizer") or (
        place[:2] == ("state", "model") and len(place) > 2 and place[2] in parameters  # noqa: PLR2004 - a name follows
    )
