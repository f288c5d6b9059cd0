"""The manifest of a pinned copy: what it is a copy of, and the checksum of every part.

Owns the file's format (JSON, version 1, with a checksum over itself); copies nothing. Invariant: a
manifest that reads back is the one that was written, bit for bit.
"""

import json
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from supervisor.checkpoint.copying import Part
from supervisor.checkpoint.errors import PinDamaged
from supervisor.checkpoint.reading import read_small
from supervisor.checkpoint.verdict import BadBytes, Kind, Level

MANIFEST: Final = "manifest.json"
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Pin:
    """A pinned copy. `relative` is the checkpoint's path below the layout's root.

    `token` is the fingerprint of the original when it was copied; `step_file` the path below the
    root of the file that told the step, where that is a file outside the checkpoint.
    """

    folder: Path
    number: int
    step: int
    relative: Path
    token: str
    size_bytes: int
    kind: Kind | None
    level: Level | None
    parts: tuple[Part, ...]
    step_file: Path | None = None
    step_part: Part | None = None

    @property
    def payload(self) -> Path:
        """The copy itself, under its own name (which tells its format)."""
        return self.folder / "payload" / self.relative.name

    @property
    def step_payload(self) -> Path:
        """The copy of the step's file, if there is one."""
        return self.folder / "step-file"

    def to_bytes(self) -> bytes:
        """Write the manifest."""
        fields = asdict(self) | {
            "folder": None,  # where it lies is not part of what it is
            "relative": str(self.relative),
            "step_file": None if self.step_file is None else str(self.step_file),
        }
        body = json.dumps(fields, sort_keys=True)
        crc32 = zlib.crc32(body.encode())
        return f'{{"version": {_VERSION}, "crc32": {crc32}, "pin": {body}}}\n'.encode()

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the manifest in `folder`.

        Raises:
            PinDamaged: it is missing or was damaged, or a newer program wrote it.

        """
        try:
            written = json.loads(read_small(folder / MANIFEST))
            fields = written["pin"]
            crc32 = zlib.crc32(json.dumps(fields, sort_keys=True).encode())
            if written["version"] != _VERSION or crc32 != written["crc32"]:
                raise PinDamaged(folder, "its manifest is not what was written")
            return cls._from_fields(folder, fields)
        except OSError as error:
            raise PinDamaged(folder, f"its manifest cannot be read: {error}") from error
        except (ValueError, KeyError, TypeError, RecursionError, BadBytes) as error:
            raise PinDamaged(folder, "its manifest is not what was written") from error

    @classmethod
    def _from_fields(cls, folder: Path, fields: dict[str, Any]) -> Self:
        changed: dict[str, Any] = {
            "folder": folder,
            "relative": Path(fields["relative"]),
            "kind": None if fields["kind"] is None else Kind(fields["kind"]),
            "level": None if fields["level"] is None else Level(fields["level"]),
            "parts": tuple(Part(**part) for part in fields["parts"]),
        }
        if fields["step_file"] is not None:
            changed["step_file"] = Path(fields["step_file"])
            changed["step_part"] = Part(**fields["step_part"])
        return cls(**fields | changed)
