"""What can go wrong with checkpoints in a way the caller has to answer.

Owns the typed errors of this package; decides nothing. A checkpoint that is merely bad is not an
error but a `Verdict`. Invariant: whenever one of these is raised, every file that was valid
before the call is still valid and still has a name.
"""

from pathlib import Path


class CheckpointError(Exception):
    """The work on checkpoints could not be done; nothing that was valid has been lost."""


class SetAsideFailed(CheckpointError):
    """A bad checkpoint could not be moved out of the way (read-only folder, for example)."""

    def __init__(self, path: Path, cause: str) -> None:
        super().__init__(
            f"cannot set aside {path}: {cause}. "
            f"It stays where it is; make {path.parent} writable or move it away by hand."
        )
        self.path = path
        self.cause = cause


class DiskFull(CheckpointError):
    """There is no room (or no quota left) for a copy; the older copies are intact."""

    def __init__(self, needed_bytes: int, free_bytes: int, folder: Path) -> None:
        super().__init__(
            f"no room in {folder}: a copy of {needed_bytes} bytes is needed and "
            f"{free_bytes} bytes may be used. Free some space, or point the state folder at a "
            f"larger disk; the copy made before this one is intact."
        )
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes
        self.folder = folder


class PinFailed(CheckpointError):
    """A checkpoint could not be copied; the older copies are intact.

    `changing` is true when the checkpoint was written to meanwhile: look again later.
    """

    def __init__(self, path: Path, cause: str, *, changing: bool = False) -> None:
        super().__init__(f"cannot keep a copy of {path}: {cause}")
        self.path = path
        self.cause = cause
        self.changing = changing


class PinDamaged(CheckpointError):
    """A pinned copy no longer has the bytes that its manifest promises."""

    def __init__(self, folder: Path, cause: str) -> None:
        super().__init__(f"the pinned copy in {folder} is damaged: {cause}")
        self.folder = folder
        self.cause = cause


class RestoreFailed(CheckpointError):
    """A pinned copy could not be put back; the pin itself is intact."""

    def __init__(self, path: Path, cause: str) -> None:
        super().__init__(f"cannot restore {path} from its pinned copy: {cause}")
        self.path = path
        self.cause = cause


class PointerUnclear(CheckpointError):
    """The pointer file is written in a way we cannot imitate; it was left as it is."""

    def __init__(self, path: Path, cause: str) -> None:
        super().__init__(
            f"cannot rewrite the pointer {path}: {cause}. It was left as it is; "
            f"edit it by hand, or drop `checkpoint.pointer` if the script does not need it."
        )
        self.path = path
        self.cause = cause
