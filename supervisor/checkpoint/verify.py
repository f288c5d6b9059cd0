"""Verifying a checkpoint: complete, whole and at rest.

Owns the dispatch and the questions of time (did it change while we read, a moment before?); the
formats are judged elsewhere. Never unpickles, never needs torch. Invariant: bytes speak against a
checkpoint only if its fingerprint was the same before and after they were read.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

from supervisor.checkpoint.directory import check_folder, check_presence
from supervisor.checkpoint.find import Found
from supervisor.checkpoint.fingerprint import Fingerprint, fingerprint
from supervisor.checkpoint.formats import check_file
from supervisor.checkpoint.layout import Layout
from supervisor.checkpoint.verdict import BadBytes, Kind, Level, Outcome, Verdict
from supervisor.checkpoint.walk import GONE

SETTLE_NS: Final = 2_000_000_000  # how long a file of no checkable format must be left alone

_NAMES: Final[dict[Kind, str]] = {
    Kind.TORCH_ZIP: "torch archives",
    Kind.ZIP: "zip archives",
    Kind.SAFETENSORS: "safetensors files",
    Kind.TORCH_LEGACY: "torch files of the old format",
    Kind.PICKLE: "pickles",
    Kind.DIRECTORY: "folders",
    Kind.PUBLISHED: "folders with a manifest",
    Kind.PLAIN: "files of no known format",
}


class Memory(Protocol):
    """Verdicts remembered, so that bytes are read once."""

    def get(self, path: Path, fingerprint: Fingerprint) -> Verdict | None:
        """Give what is known of the bytes with this fingerprint at this path."""

    def put(self, path: Path, fingerprint: Fingerprint, verdict: Verdict) -> None:
        """Remember a verdict."""


class Remembered:
    """A `Memory` of this process alone."""

    def __init__(self) -> None:
        self._verdicts: dict[tuple[Path, Fingerprint], Verdict] = {}

    def get(self, path: Path, fingerprint: Fingerprint) -> Verdict | None:
        """Give what is known."""
        return self._verdicts.get((path, fingerprint))

    def put(self, path: Path, fingerprint: Fingerprint, verdict: Verdict) -> None:
        """Remember, forgetting what the path held before."""
        for known in [key for key in self._verdicts if key[0] == path]:
            del self._verdicts[known]
        self._verdicts[path, fingerprint] = verdict


def verify(
    found: Found, layout: Layout, *, expect: Kind | None = None, worker_lives: bool = True
) -> Verdict:
    """Read a checkpoint and judge it, remembering nothing. Arguments as for `look`."""
    return look(found, layout, Remembered(), expect=expect, worker_lives=worker_lives)


def look(
    found: Found,
    layout: Layout,
    memory: Memory,
    *,
    expect: Kind | None = None,
    worker_lives: bool = True,
) -> Verdict:
    """Judge a checkpoint, reading its bytes unless they are known. Raises nothing for any content.

    `expect` is the kind that this job's earlier checkpoints had; another one is refused. While a
    worker lives, what is incomplete, a folder, or of no checkable format must have been left
    alone for `SETTLE_NS` before it is judged; until then it is changing. Remembered is only what
    the bytes said, never what depends on the moment, and nothing while the times are too fresh.
    """
    verdict = _absent(found, layout)
    if verdict is None:
        verdict = memory.get(found.path, found.fingerprint)
        if verdict is None or not _unchanged(found):
            verdict = _judge(found)
            settled = not found.fingerprint.is_racy(time.time_ns())
            if settled and verdict.outcome in (Outcome.OK, Outcome.BAD):
                memory.put(found.path, found.fingerprint, verdict)
    verdict = _expected(verdict, expect)
    return _settling(found, verdict) if worker_lives else verdict


def _absent(found: Found, layout: Layout) -> Verdict | None:
    """Say what `require` and `forbid` object to; beside a file it is not in the fingerprint."""
    try:
        check_presence(found.path, layout)
    except BadBytes as bad:
        return _verdict(found, Outcome.BAD, bad.reason, bad.kind)
    except OSError as error:
        return _failed(found, error)
    return None


def _judge(found: Found) -> Verdict:
    started_s = time.monotonic()
    if not _unchanged(found):
        return _verdict(found, Outcome.CHANGING, "it changed since it was found")
    try:
        verdict = _read(found)
    except OSError as error:
        return _failed(found, error)
    if not _unchanged(found):
        return _verdict(found, Outcome.CHANGING, "it was written to while it was read")
    return replace(verdict, duration_s=time.monotonic() - started_s)


def _read(found: Found) -> Verdict:
    try:
        is_folder = found.path.is_dir()
        finding = check_folder(found.path, found.step) if is_folder else check_file(found.path)
    except BadBytes as bad:
        return _verdict(found, Outcome.BAD, bad.reason, bad.kind)
    return Verdict(
        Outcome.OK, finding.kind, finding.level, finding.reason, found.fingerprint.size_bytes
    )


def _failed(found: Found, error: OSError) -> Verdict:
    if error.errno in GONE:
        return _verdict(found, Outcome.CHANGING, "it vanished while it was looked at")
    return _verdict(found, Outcome.UNREADABLE, f"it cannot be read: {error.strerror or error}")


def _settling(found: Found, verdict: Verdict) -> Verdict:
    age_ns = time.time_ns() - found.fingerprint.mtime_ns
    # A folder may look whole between two of its files; a single file's format has an end, and a
    # folder with a manifest appeared whole.
    done = verdict.level is Level.VERIFIED and verdict.kind is not Kind.DIRECTORY
    if done or verdict.outcome is Outcome.UNREADABLE or not 0 <= age_ns < SETTLE_NS:
        return verdict
    reason = f"it was written to a moment ago ({verdict.reason})"
    return replace(verdict, outcome=Outcome.CHANGING, level=None, reason=reason)


def _expected(verdict: Verdict, expect: Kind | None) -> Verdict:
    kind = verdict.kind
    if expect is None or kind is None or not verdict.ok or kind is expect:
        return verdict
    reason = f"the earlier checkpoints are {_NAMES[expect]}, this is one of the {_NAMES[kind]}"
    return replace(verdict, outcome=Outcome.BAD, level=None, reason=reason)


def _verdict(found: Found, outcome: Outcome, reason: str, kind: Kind | None = None) -> Verdict:
    return Verdict(outcome, kind, None, reason, found.fingerprint.size_bytes)


def _unchanged(found: Found) -> bool:
    try:
        return fingerprint(found.path) == found.fingerprint
    except OSError:
        return False
