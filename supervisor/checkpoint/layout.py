"""How a job's checkpoints lie on disk, as data.

Owns the description (folder, glob, where the step comes from, what must and must not be there);
reads nothing. Invariant: a `Layout` that exists is usable: a pattern that cannot match, an
absolute glob or one that climbs out of the folder is refused when it is built.
"""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

LAST_DIGITS: Final = r"(\d+)(?!.*\d)"  # the last run of digits in a name


@dataclass(frozen=True, slots=True)
class StepFromName:
    """The step stands in the name.

    `pattern` is searched in the file's or folder's own name, then in its path below the root; the
    last match counts, and of it the group `step`, else group 1, else the whole. None: the last
    run of digits in the name without its suffix (`epoch=3-step=1200.ckpt` is 1200).
    """

    pattern: str | None = None

    def __post_init__(self) -> None:
        """Refuse a pattern that does not compile.

        Raises:
            ValueError: the pattern is not a regular expression.

        """
        try:
            re.compile(self.pattern or LAST_DIGITS)
        except re.error as error:
            raise ValueError(f"the step pattern {self.pattern!r} is not valid: {error}") from error


@dataclass(frozen=True, slots=True)
class StepFromJson:
    """The step stands in a JSON file.

    `file` lies inside a directory checkpoint, beside a file checkpoint; `key` is dotted, a number
    in it counts into a list (`history.0.step`).
    """

    file: str
    key: str

    def __post_init__(self) -> None:
        """Refuse a file elsewhere.

        Raises:
            ValueError: the file is absolute or climbs out of the folder.

        """
        _require_inside("the step's JSON file", self.file)


@dataclass(frozen=True, slots=True)
class StepFromPointer:
    """The step is the one integer in a text file, relative to the root: for one fixed `last.pt`."""

    file: str

    def __post_init__(self) -> None:
        """Refuse a file elsewhere.

        Raises:
            ValueError: the file is absolute or climbs out of the folder.

        """
        _require_inside("the step's pointer file", self.file)


StepSource = StepFromName | StepFromJson | StepFromPointer


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a job's checkpoints are and what makes one complete.

    `glob` is relative to `root` and may match files or folders; as in a shell, `*` does not match
    a hidden name and `**` descends no link. `require` and `forbid` are globs inside a directory
    checkpoint, or beside a file checkpoint. `pointer` names the newest checkpoint for the script,
    relative to `root`.
    """

    root: Path
    glob: str
    step: StepSource = StepFromName()
    require: tuple[str, ...] = ()
    forbid: tuple[str, ...] = ()
    pointer: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what could never match or would reach outside.

        Raises:
            ValueError: which field, why.

        """
        for what, value in (
            ("glob", self.glob),
            *(("require", each) for each in self.require),
            *(("forbid", each) for each in self.forbid),
            *((("pointer", str(self.pointer)),) if self.pointer is not None else ()),
        ):
            _require_inside(f"checkpoint.{what}", value)

    @property
    def pointer_path(self) -> Path | None:
        """The pointer file's full path, if the job has one."""
        return None if self.pointer is None else self.root / self.pointer


def _require_inside(what: str, value: str) -> None:
    parts = PurePosixPath(value).parts
    if not parts or value.startswith("/") or ".." in parts or "\0" in value:
        raise ValueError(
            f"{what} {value!r} must be a path or pattern inside the checkpoint folder: "
            f"not empty, not absolute, without '..'"
        )
