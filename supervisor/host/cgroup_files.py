"""The small files of a cgroup folder.

Owns reading and writing them. Never makes one: the kernel does, and a name it did not make is not
there. Invariant: what is not there, or is hidden, reads as nothing; only writing raises.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def there(path: Path) -> bool:
    """Return whether a file or folder is there, as far as this user may see."""
    return os.access(path, os.F_OK)


def content(file: Path) -> str:
    """Return what a file says, "" when there is none or this user may not look."""
    try:
        return file.read_bytes().decode(errors="replace")
    except OSError:
        return ""


def words(file: Path) -> frozenset[str]:
    """Return the words of a file such as cgroup.controllers."""
    return frozenset(content(file).split())


def keyed(file: Path) -> dict[str, int]:
    """Return a file of lines `name value`, such as cgroup.events."""
    lines = (line.split() for line in content(file).splitlines())
    return {line[0]: int(line[1]) for line in lines if len(line) > 1 and line[1].isdigit()}


def number(file: Path) -> int | None:
    """Return the number in a file; None for `max`, and when there is no file."""
    said = content(file).strip()
    return int(said) if said.isdigit() else None


def write(file: Path, text: str) -> None:
    """Write to a file that is there. Raises OSError, which names the file."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode("ascii"))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from error


def folders(root: Path) -> Iterator[Path]:
    """Yield every cgroup below a folder, the deepest first, and the folder itself last."""
    with suppress(OSError), os.scandir(root) as entries:
        below = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
        for folder in below:
            yield from folders(folder)
    yield root


def pids(root: Path) -> set[int]:
    """Return who is in a cgroup and in those below it.

    Whoever lives outside our pid namespace is listed as 0, and can be addressed by nobody here.
    """
    listed = (content(folder / "cgroup.procs").split() for folder in folders(root))
    return {int(pid) for some in listed for pid in some} - {0}


def remove(root: Path) -> bool:
    """Remove a cgroup and those below it; return whether it is gone."""
    for folder in folders(root):
        with suppress(OSError):  # somebody is in it still, or it is gone already
            folder.rmdir()
    return not there(root)
