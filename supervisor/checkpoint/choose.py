"""Choosing what the next attempt resumes from.

Owns the choice among the checkpoints on disk and our pins; called only while no worker lives.
Invariant: what is chosen verified in this very call (or its bytes are remembered), and everything
that was passed over is reported with its reason; bad ones are set aside, never deleted.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from supervisor.checkpoint.aside import set_aside
from supervisor.checkpoint.errors import PinDamaged, SetAsideFailed
from supervisor.checkpoint.find import Found, Skipped, find
from supervisor.checkpoint.fingerprint import Fingerprint, fingerprint
from supervisor.checkpoint.layout import Layout
from supervisor.checkpoint.manifest import Pin
from supervisor.checkpoint.names import ASIDE_FOLDER
from supervisor.checkpoint.pins import Pins
from supervisor.checkpoint.restore import restore
from supervisor.checkpoint.step import NoStep, step_file, step_of
from supervisor.checkpoint.verdict import Kind, Outcome, Verdict
from supervisor.checkpoint.verify import Memory, look
from supervisor.checkpoint.walk import Walk

_NOTE = "the policy resumes from an earlier checkpoint"
_LOOK_AGAIN_S = 0.1


@dataclass(frozen=True, slots=True)
class Query:
    """What may be chosen.

    `below` is an exclusive upper bound on the step. Below `at_least` nothing is of interest:
    another tier has that step. `hide` sets aside what the bounds exclude, for scripts that find
    their own latest checkpoint. `patience_s` bounds the wait, in all, for checkpoints that somebody
    is still writing.
    """

    below: int | None = None
    at_least: int = 0
    excluded: frozenset[Fingerprint] = frozenset()
    excluded_paths: frozenset[Path] = frozenset()
    expect: Kind | None = None
    hide: bool = False
    patience_s: float = 5.0

    def admits(self, step: int) -> bool:
        """Tell whether the step is within the bounds."""
        return step >= self.at_least and (self.below is None or step < self.below)


@dataclass(frozen=True, slots=True)
class Chosen:
    """What to resume from."""

    found: Found
    verdict: Verdict
    restored_from_pin: bool = False

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.found.path

    @property
    def step(self) -> int:
        """Its step."""
        return self.found.step


@dataclass(frozen=True, slots=True)
class Rejected:
    """What was passed over, and where it is now if it was set aside."""

    path: Path
    step: int
    reason: str
    set_aside_to: Path | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The result. With no checkpoint and `considered` above 0, nothing verifies: hold.

    `considered` counts candidates on disk, pins (damaged ones too) and folders that could not be
    listed; `skipped` are names without a step; `aside` what earlier calls had set aside, so that a
    crash after setting aside the only checkpoint cannot pass for a fresh start.
    """

    checkpoint: Chosen | None
    rejected: tuple[Rejected, ...] = ()
    considered: int = 0
    seen_steps: tuple[int, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    aside: tuple[Path, ...] = ()


def choose(layout: Layout, memory: Memory, pins: Pins | None, query: Query) -> Choice:
    """Give the newest checkpoint that verifies; a pin newer than all of them is restored first.

    None there may also mean that none has the step `at_least`; the bytes of the others were not
    read then, and they are not rejected.

    Raises:
        DiskFull, RestoreFailed, SetAsideFailed: a newer pin could not be restored. An older
            checkpoint is not chosen in its place: that would silently lose work.

    """
    aside = _already_aside(layout)
    listing = find(layout)
    kept = () if pins is None else pins.all()
    damaged = () if pins is None else pins.damaged()
    search = _Search(layout, memory, query)
    search.rejected.extend(Rejected(one.folder, -1, str(one)) for one in damaged)
    best = search.newest(listing.found)
    for pin in kept:
        if query.admits(pin.step) and (best is None or pin.step > best.step):
            restored = search.restored(pin)
            if restored is not None:
                best = restored
                break
    unreadable = sum(one.unreadable for one in listing.skipped)
    return Choice(
        checkpoint=best,
        rejected=tuple(search.rejected),
        considered=len(listing.found) + len(kept) + len(damaged) + unreadable,
        seen_steps=tuple(sorted({one.step for one in listing.found} | {pin.step for pin in kept})),
        skipped=listing.skipped,
        aside=aside,
    )


@dataclass(slots=True)
class _Search:
    layout: Layout
    memory: Memory
    query: Query
    rejected: list[Rejected] = field(default_factory=list)
    waited_s: float = 0.0

    def newest(self, candidates: tuple[Found, ...]) -> Chosen | None:
        """Go from the newest down to the first that verifies."""
        for found in candidates:
            if found.step < self.query.at_least:
                break
            if not self._admits(found):
                self._reject(found, _NOTE, aside=self.query.hide)
                continue
            for now in self._at_rest(found):
                verdict = look(
                    now, self.layout, self.memory, expect=self.query.expect, worker_lives=False
                )
                if not verdict.changing:
                    break
            if verdict.ok:
                return Chosen(now, verdict)
            self._reject(now, verdict.reason, aside=verdict.outcome is Outcome.BAD)
        return None

    def restored(self, pin: Pin) -> Chosen | None:
        """Put a pin back and verify it like any other checkpoint."""
        try:
            path = restore(pin, self.layout)
        except PinDamaged as damaged:
            self.rejected.append(Rejected(pin.folder, pin.step, str(damaged)))
            return None
        where = step_file(self.layout, path)
        found = Found(path, pin.step, fingerprint(path), self.layout.root, where)
        verdict = look(
            found, self.layout, self.memory, expect=self.query.expect, worker_lives=False
        )
        if verdict.ok:
            return Chosen(found, verdict, restored_from_pin=True)
        self._reject(found, verdict.reason, aside=verdict.outcome is Outcome.BAD)
        return None

    def _admits(self, found: Found) -> bool:
        return (
            self.query.admits(found.step)
            and found.fingerprint not in self.query.excluded
            and found.path not in self.query.excluded_paths
        )

    def _at_rest(self, found: Found) -> Iterator[Found]:
        """Give the candidate, and again as it is later, until the patience is used up."""
        yield found
        while self.waited_s < self.query.patience_s:
            time.sleep(_LOOK_AGAIN_S)
            self.waited_s += _LOOK_AGAIN_S
            try:
                now = fingerprint(found.path)
                found = replace(found, fingerprint=now, step=step_of(self.layout, found.path))
            except (OSError, NoStep):
                return
            yield found

    def _reject(self, found: Found, reason: str, *, aside: bool) -> None:
        moved = None
        if aside:
            try:
                moved = set_aside(found.path, reason)
            except SetAsideFailed as error:
                reason = f"{reason}; {error}"
        self.rejected.append(Rejected(found.path, found.step, reason, moved))


def _already_aside(layout: Layout) -> tuple[Path, ...]:
    pattern = PurePosixPath(layout.glob).parent / ASIDE_FOLDER / "*.set-aside-*"
    found = Walk(every_name=True).glob(layout.root, str(pattern))
    return tuple(path for path in found if not path.name.endswith(".why.txt"))
