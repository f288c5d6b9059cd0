"""What was found out about one checkpoint.

Owns the closed vocabularies (kind, level, outcome) and the `Verdict`; reads nothing. Invariant:
only `Outcome.BAD` speaks against the bytes; a checkpoint that is still being written, or that we
could not read, is neither good nor bad and is never set aside for it.
"""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self


class Kind(StrEnum):
    """What a checkpoint is, by its bytes."""

    TORCH_ZIP = "torch_zip"
    ZIP = "zip"
    SAFETENSORS = "safetensors"
    TORCH_LEGACY = "torch_legacy"
    PICKLE = "pickle"
    DIRECTORY = "directory"
    PUBLISHED = "published"  # a folder with the manifest that workers.session.publish writes
    PLAIN = "plain"


class Level(StrEnum):
    """How much a good verdict is worth."""

    VERIFIED = "verified"  # checksums or structure were checked
    STABLE = "stable"  # not empty and not changing: the format tells no more


class Outcome(StrEnum):
    """What a look at a checkpoint ended with."""

    OK = "ok"
    BAD = "bad"
    CHANGING = "changing"  # written to while it was read, or a moment before
    UNREADABLE = "unreadable"  # no permission, I/O error, out of descriptors: says nothing of it


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of verifying one checkpoint.

    `kind` is None when it could not be told, `level` when the outcome is not ok. `reason` is a
    sentence for a person in every case. `duration_s` is what the look took.
    """

    outcome: Outcome
    kind: Kind | None
    level: Level | None
    reason: str
    size_bytes: int
    duration_s: float = 0.0

    @property
    def ok(self) -> bool:
        """The job may resume from it."""
        return self.outcome is Outcome.OK

    @property
    def changing(self) -> bool:
        """It was being written; look again."""
        return self.outcome is Outcome.CHANGING

    def to_dict(self) -> dict[str, Any]:
        """Give JSON-able fields, for the journal."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """Build it from `to_dict`.

        Raises:
            KeyError, ValueError: the fields are not those of a verdict.

        """
        kind, level = fields["kind"], fields["level"]
        return cls(
            outcome=Outcome(fields["outcome"]),
            kind=None if kind is None else Kind(kind),
            level=None if level is None else Level(level),
            reason=str(fields["reason"]),
            size_bytes=int(fields["size_bytes"]),
            duration_s=float(fields["duration_s"]),
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """What the bytes of one file or folder say, before the questions of time are asked."""

    kind: Kind
    level: Level
    reason: str


class BadBytes(Exception):
    """The bytes are not a usable checkpoint; the message is the reason, for a person."""

    def __init__(self, reason: str, kind: Kind | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = kind
