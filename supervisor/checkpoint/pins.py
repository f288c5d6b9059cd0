"""Pins: our own copies of the last verified checkpoints.

Owns the folder of copies; the script's own files are only read. A pin is built in a hidden folder,
every file fsynced, its manifest last, and appears with one rename; older pins go only after that.
So a crash (or SIGKILL) between any two instructions leaves the old pin, the new one, or both, and
at most a hidden leftover that the next run removes. Invariant: from the first pin on there is
always a complete one.
"""

import re
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from supervisor.checkpoint.copying import Copying, forget, free_bytes
from supervisor.checkpoint.directory import check_folder
from supervisor.checkpoint.errors import DiskFull, PinDamaged, PinFailed
from supervisor.checkpoint.find import Found
from supervisor.checkpoint.fingerprint import fingerprint
from supervisor.checkpoint.formats import check_file
from supervisor.checkpoint.manifest import MANIFEST, Pin
from supervisor.checkpoint.verdict import BadBytes, Verdict
from supervisor.checkpoint.walk import GONE
from supervisor.host.durable import FULL, fsync_folder, write_new

_NAME: Final = re.compile(r"pin-(\d{1,12})", re.ASCII)
_LEFTOVER: Final = re.compile(r"\.pin-\d+\.(partial|removed)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Pins:
    """The copies in `folder`, which belongs to one job; `keep` of them are kept."""

    folder: Path
    keep: int = 1

    def all(self) -> tuple[Pin, ...]:
        """Give the pins whose manifest is whole, latest step first.

        Raises:
            PinFailed: the folder is there but cannot be listed.

        """
        pins = []
        for folder in self._folders():
            try:
                pins.append(Pin.read(folder))
            except PinDamaged:
                continue
        return tuple(sorted(pins, key=lambda pin: (-pin.step, -pin.number)))

    def damaged(self) -> tuple[PinDamaged, ...]:
        """Give what is wrong with the pins that `all` leaves out."""
        problems = []
        for folder in self._folders():
            try:
                Pin.read(folder)
            except PinDamaged as problem:
                problems.append(problem)
        return tuple(problems)

    def newest(self) -> Pin | None:
        """Give the pin with the latest step."""
        return next(iter(self.all()), None)

    def clean(self) -> None:
        """Remove what a killed run left half-built or half-removed.

        Raises:
            OSError: it could not be removed.

        """
        if not self.folder.is_dir():
            return
        for leftover in self.folder.iterdir():
            if _LEFTOVER.fullmatch(leftover.name):
                shutil.rmtree(leftover)

    def pin(self, found: Found, verdict: Verdict) -> Pin:
        """Copy a verified checkpoint, durably, and only then let go of older copies.

        Raises:
            DiskFull: no room; the older copies are intact and the partial one is gone.
            PinFailed: it could not be copied, or (`changing`) was written to meanwhile.

        """
        if not verdict.ok:
            raise PinFailed(found.path, f"it is not verified: {verdict.reason}")
        token = found.fingerprint.token
        for pin in self.all():
            if (pin.relative, pin.token, pin.step) == (found.relative, token, found.step):
                break
        else:
            pin = None
        try:
            self.clean()
            pin = pin or self._build(found, verdict)
            self._drop_older(pin)
        except OSError as error:
            raise self._typed(error, found) from error
        return pin

    def _build(self, found: Found, verdict: Verdict) -> Pin:
        self.folder.mkdir(parents=True, exist_ok=True)
        number = max((_number(folder) for folder in self._folders()), default=0) + 1
        partial = self.folder / f".pin-{number}.partial"
        try:
            pin = self._copy(found, verdict, partial, number)
            write_new(partial / MANIFEST, pin.to_bytes())
            fsync_folder(partial)
            final = self.folder / f"pin-{number}"
            partial.rename(final)
            fsync_folder(self.folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        return replace(pin, folder=final)

    def _copy(self, found: Found, verdict: Verdict, partial: Path, number: int) -> Pin:
        _require_unchanged(found)
        pin = Pin(
            folder=partial,
            number=number,
            step=found.step,
            relative=found.relative,
            token=found.fingerprint.token,
            size_bytes=found.fingerprint.size_bytes,
            kind=verdict.kind,
            level=verdict.level,
            parts=(),
        )
        pin.payload.parent.mkdir(parents=True)
        try:
            parts = Copying(found.path, pin.payload, pin.size_bytes).run()
            pin = _with_step_file(replace(pin, parts=parts), found)
            _require_unchanged(found)
            if found.fingerprint.is_racy(time.time_ns()):  # equal times do not prove equal bytes
                (check_folder if pin.payload.is_dir() else check_file)(pin.payload)
            forget(pin.payload, parts)
        except BadBytes as bad:
            raise PinFailed(found.path, f"while copied, {bad.reason}", changing=True) from bad
        return pin

    def _drop_older(self, newest: Pin) -> None:
        older = sorted(self._folders(), key=_number, reverse=True)
        for folder in [one for one in older if one != newest.folder][self.keep - 1 :]:
            removed = self.folder / f".{folder.name}.removed"
            folder.rename(removed)
            fsync_folder(self.folder)
            shutil.rmtree(removed)

    def _folders(self) -> list[Path]:
        try:
            return [one for one in self.folder.iterdir() if _NAME.fullmatch(one.name)]
        except FileNotFoundError:
            return []
        except OSError as error:  # it must not pass for a job that never had a pin
            raise PinFailed(self.folder, f"its folder cannot be listed: {error}") from error

    def _typed(self, error: OSError, found: Found) -> DiskFull | PinFailed:
        if error.errno in FULL:
            return DiskFull(found.fingerprint.size_bytes, free_bytes(self.folder), self.folder)
        cause = f"{error.strerror or error} ({error.filename or 'while copying'})"
        return PinFailed(found.path, cause, changing=error.errno in GONE)


def _with_step_file(pin: Pin, found: Found) -> Pin:
    """Copy the file that tells the step along, where it lies outside the checkpoint."""
    source = found.step_file
    if source is None or source.is_relative_to(found.path):
        return pin
    (part,) = Copying(source, pin.step_payload, source.stat().st_size).run()
    return replace(pin, step_file=source.relative_to(found.root), step_part=part)


def _require_unchanged(found: Found) -> None:
    if fingerprint(found.path) != found.fingerprint:
        raise PinFailed(found.path, "it is being written", changing=True)


def _number(folder: Path) -> int:
    match = _NAME.fullmatch(folder.name)
    return int(match[1]) if match else 0
