"""Files that a call writes: nobody sees one before it is complete, and it is durable by then.

Owns the folder `.parts` in the job's output folder. Never touches a published file but to replace
it whole. Invariant: a name under the output folder is either absent, the old file, or the complete
new one, whenever the worker or the host dies.

    from workers.outputs import output

    def handle(item):
        image.save(output("small/" + item))     # published when the item is done

In a program that is not a batch worker `output` names the file in ./out itself, so the same
function runs anywhere.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from workers.jsonable import BadResult
from workers.protocol import ENV_CHANNEL_FD

if TYPE_CHECKING:
    from collections.abc import Iterable

PARTS = ".parts"
OURS = frozenset({PARTS, "results.jsonl", "quarantine.jsonl"})  # written by the runner
OUT = "out"
OWNED = re.compile(r"\d+-(\d+)")  # a worker's serial and pid
TRIES = 20  # another worker may remove an empty .parts meanwhile

_publisher: Publisher | None = None


def output(name: str | os.PathLike[str]) -> Path:
    """Return where to write the file that will be published as `name` in the output folder.

    The path keeps the name's last part, so that its suffix says the format. The same name twice in
    one call is one file. Raises ValueError for a name that leads out of the folder, RuntimeError
    outside of a call.
    """
    if _publisher is not None:
        return _publisher.path(name)
    if ENV_CHANNEL_FD in os.environ:
        raise RuntimeError(
            "output() was called in another process than the worker's, which would not know of the "
            "file: call it in the entry, and hand the path over"
        )
    path = Path(OUT) / _checked(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


class Publisher:
    """The outputs of one worker: those of the call that runs, until they are published or dropped.

    `out` is the job's output folder, `worker` its serial.
    """

    def __init__(self, out: Path, worker: int) -> None:
        global _publisher  # noqa: PLW0603 - the user's code reaches it by `output` alone
        self.in_call = False
        self._out = out
        self._parts = out / PARTS / f"{worker}-{os.getpid()}"
        self._pid = os.getpid()
        self._numbers = itertools.count()
        self._written: dict[PurePosixPath, Path] = {}
        sweep(out)
        _remove(self._parts)  # of a worker that had this pid before
        _publisher = self

    def path(self, name: str | os.PathLike[str]) -> Path:
        """Do what `output` says."""
        if os.getpid() != self._pid:
            raise RuntimeError(
                "output() was called in a copy of the worker: call it in the entry, and hand the "
                "path over"
            )
        if not self.in_call:
            raise RuntimeError("output() belongs to an item: call it while one is worked on")
        relative = _checked(name)
        if relative not in self._written:
            folder = self._parts / str(next(self._numbers))
            _make(folder)
            self._written.setdefault(relative, folder / relative.name)
        return self._written[relative]

    def publish(self) -> None:
        """Make what the call wrote durable and visible. Raises BadResult and OSError."""
        if not self._written:
            return
        for name, part in self._written.items():
            _sync_file(part, name)
        folders = set()
        for name, part in self._written.items():
            target = self._out / name
            folders |= _make_durably(target.parent)
            os.replace(part, target)  # noqa: PTH105 - the same, and needs no second object
        for folder in folders:
            _sync(folder)
        self.drop()

    def drop(self) -> None:
        """Forget what the call wrote, and whatever lies beside it."""
        if not self._written:
            return
        for part in self._written.values():
            for left in _entries(part.parent):
                _remove(left)
        self._written.clear()
        self._numbers = itertools.count()

    def close(self) -> None:
        """Remove this worker's folder, and .parts when it was the last."""
        if self._parts.exists():
            _remove(self._parts)
            with suppress(OSError):
                self._parts.parent.rmdir()


def sweep(out: Path) -> None:
    """Remove the unpublished files of workers that are no more."""
    left = _entries(out / PARTS)
    for folder in left:
        owned = OWNED.fullmatch(folder.name)
        if owned is not None and not _alive(int(owned[1])):
            _remove(folder)


def _checked(name: str | os.PathLike[str]) -> PurePosixPath:
    path = PurePosixPath(os.fspath(name))
    if path.is_absolute() or ".." in path.parts or not path.name or "\0" in str(path):
        raise ValueError(f"output name {str(path)!r} does not name a file within the output folder")
    if path.parts[0] in OURS:
        raise ValueError(
            f"output name {str(path)!r} is one that supervise writes itself: take another"
        )
    return path


def _sync_file(part: Path, name: PurePosixPath) -> None:
    try:
        fd = os.open(part, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise BadResult(f"output {str(name)!r} was never written{_beside(part)}") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise BadResult(f"output {str(name)!r} is not a file: write one file for each output()")
        os.fsync(fd)
    finally:
        os.close(fd)


def _beside(part: Path) -> str:
    names = sorted(entry.name for entry in _entries(part.parent))
    return f", but {names[0]!r} was: is its suffix the one that you name?" if names else ""


def _make(folder: Path) -> None:
    for _ in range(TRIES):
        with suppress(FileNotFoundError):
            folder.mkdir(parents=True, exist_ok=True)
            return
    folder.mkdir(parents=True, exist_ok=True)


def _make_durably(folder: Path) -> set[Path]:
    """Make a folder; return it and the folders that hold a new one, all of them to be synced."""
    made = {folder}
    while not folder.exists():
        folder = folder.parent
        made.add(folder)
    for missing in sorted(made):
        missing.mkdir(exist_ok=True)
    return made


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _entries(folder: Path) -> Iterable[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _remove(path: Path) -> None:
    """Remove a file, or a folder with all in it; what cannot be removed stays."""
    try:
        path.unlink()
    except IsADirectoryError:
        import shutil  # noqa: PLC0415 - slow to import, and seldom needed

        shutil.rmtree(path, ignore_errors=True)
    except OSError:
        return


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
