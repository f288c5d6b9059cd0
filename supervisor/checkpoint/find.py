"""Finding a job's checkpoints: newest step first.

Owns the candidates and their order; verifies nothing. Order is by the parsed integer step, ties by
path, never by modification time. Invariant: one set of bytes counts once, under its own name
rather than a link's.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from supervisor.checkpoint.fingerprint import Fingerprint, fingerprint
from supervisor.checkpoint.layout import Layout
from supervisor.checkpoint.step import NoStep, step_file, step_of
from supervisor.checkpoint.walk import GONE, Walk


@dataclass(frozen=True, slots=True)
class Found:
    """A candidate: where it is, its step, the identity of its bytes.

    `root` is the layout's; `step_file` the file that told the step, if one did.
    """

    path: Path
    step: int
    fingerprint: Fingerprint
    root: Path
    step_file: Path | None = None

    @property
    def relative(self) -> Path:
        """The path below the root."""
        return self.path.relative_to(self.root)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A name that matches the glob but cannot be a candidate.

    `unreadable`: it, or a folder that may hold candidates, could not be looked at.
    """

    path: Path
    reason: str
    unreadable: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """Candidates, newest step first, and what was passed over."""

    found: tuple[Found, ...] = ()
    skipped: tuple[Skipped, ...] = ()


@dataclass(slots=True)
class _Collected:
    found: dict[tuple[int, int], Found] = field(default_factory=dict)
    skipped: dict[tuple[int, int], Skipped] = field(default_factory=dict)


def find(layout: Layout) -> Listing:
    """List the checkpoints of a layout. A missing root is an empty listing; nothing is raised."""
    walk, collected, notes = Walk(), _Collected(), []
    for path in walk.glob(layout.root, layout.glob):
        try:
            status = path.stat()
            identity = (status.st_dev, status.st_ino)
            _collect(collected, identity, layout, path)
        except OSError as error:
            if error.errno not in GONE:
                reason = f"cannot be looked at: {error.strerror or error}"
                notes.append(Skipped(path, reason, unreadable=error.errno is not None))
    notes.extend(Skipped(path, reason, unreadable=True) for path, reason in walk.problems)
    without_step = [
        skipped for key, skipped in collected.skipped.items() if key not in collected.found
    ]
    return Listing(
        tuple(sorted(collected.found.values(), key=lambda one: (-one.step, os.fsencode(one.path)))),
        tuple(sorted(without_step + notes, key=lambda one: os.fsencode(one.path))),
    )


def _collect(collected: _Collected, identity: tuple[int, int], layout: Layout, path: Path) -> None:
    try:
        step = step_of(layout, path)
    except NoStep as error:
        collected.skipped.setdefault(identity, Skipped(path, str(error)))
        return
    found = Found(path, step, fingerprint(path), layout.root, step_file(layout, path))
    other = collected.found.get(identity)
    if other is None or _rank(found) > _rank(other):
        collected.found[identity] = found


def _rank(found: Found) -> tuple[bool, int, str]:
    """Prefer a name of its own to a link's, then the later step."""
    return (not found.path.is_symlink(), found.step, str(found.path))
