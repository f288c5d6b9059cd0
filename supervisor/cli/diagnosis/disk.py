"""Checks of where journal, logs and copies of checkpoints go.

Owns the findings on the state folder and the file system that holds it. Leaves nothing there.
"""

import fcntl
import re
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from supervisor.cli.diagnosis.facts import Check, Facts
from supervisor.cli.diagnosis.finding import Finding, missing, ok, weak
from supervisor.core.amounts import size
from supervisor.host.space import low_water_bytes, room, space

NEED_BYTES = 16 << 20  # a journal, its write-ahead log, and a log of some length
FEW_INODES = 10_000
ELSEWHERE = "Name another folder with --state-dir, or in XDG_STATE_HOME."

_NETWORK = (
    "A lock or a write-ahead log can fail on a file system that other hosts change too; two hosts"
    " with one journal damage it."
)
_LOCAL = "Keep the state on a local disk (checkpoints may stay): --state-dir, or XDG_STATE_HOME."

_REMOTE = (
    r"nfs\d?|cifs|smb3?|smbfs|afs|ceph|lustre|gpfs|beegfs|glusterfs|ocfs2|gfs2|pvfs2|orangefs"
    r"|fuse\.(sshfs|glusterfs|ceph|s3fs|rclone|gcsfuse|juicefs|cvmfs.*)"
)
_OF_THE_MACHINE = r"9p|virtiofs|vboxsf|fuse\.vmhgfs-fuse|drvfs"

# File system -> what it is, what that means, what to do. What is not named here is a local disk.
_KINDS: tuple[tuple[str, str, str, str], ...] = (
    (_REMOTE, "on a network", _NETWORK, _LOCAL),
    (_OF_THE_MACHINE, "shared by a virtual machine's host", _NETWORK, _LOCAL),
    (
        r"tmpfs|ramfs",
        "in memory",
        "Nothing of it is left after a reboot, so no job resumes.",
        ELSEWHERE,
    ),
    (
        r"overlay|aufs",
        "the container's own layer",
        "It goes away with the container, and no job resumes in the next one.",
        "Mount a volume for it, and name that with --state-dir.",
    ),
)
_ESCAPED = re.compile(r"\\([0-7]{3})")


def _writable(facts: Facts) -> Finding:
    trouble = room(facts.state_dir, NEED_BYTES)
    if trouble is not None:
        return missing(trouble, "No job can be journaled, so none can run.", ELSEWHERE)
    made = "" if facts.state_dir.is_dir() else ", made by the first job"
    return ok(f"{facts.state_dir} can be written{made}")


def _journal(facts: Facts) -> Finding:
    above = space(facts.state_dir).path
    try:
        with tempfile.TemporaryDirectory(prefix=".supervise-doctor-", dir=above) as folder:
            mode = _try_out(Path(folder))
    except (OSError, sqlite3.Error) as error:
        return missing(
            f"locks or SQLite do not work in {above}: {error}",
            "No job can be journaled, so none can run.",
            ELSEWHERE,
        )
    if mode != "wal":
        return missing(
            f"SQLite does not do write-ahead logs in {above}, only {mode}",
            "Reading verbs and the runner would lock each other out of the journal.",
            ELSEWHERE,
        )
    return ok("locks and SQLite's write-ahead log work there")


def _try_out(folder: Path) -> str:
    """Lock a file and write a journal there; the journal mode that SQLite got."""
    with (folder / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with closing(sqlite3.connect(folder / "journal")) as journal:
        mode = journal.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        journal.execute("CREATE TABLE one (value)")
        journal.commit()
    return str(mode)


def _file_system(facts: Facts) -> Finding:
    point, kind = mounted(facts.says("proc/self/mountinfo") or "", space(facts.state_dir).path)
    for pattern, what, means, do in _KINDS:
        if re.fullmatch(pattern, kind):
            return weak(f"{kind}, {what}, at {point}", means, do)
    return ok(f"{kind or 'not named by the kernel'}, at {point}")


def mounted(mountinfo: str, path: Path) -> tuple[Path, str]:
    """The mount point that holds a path, links followed, and the type of its file system."""
    real = path.resolve()
    found = (Path("/"), "")
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        point = Path(_ESCAPED.sub(lambda code: chr(int(code[1], 8)), left.split()[4]))
        # The deepest wins; of two on one point, the later one lies on top.
        if real.is_relative_to(point) and len(point.parts) >= len(found[0].parts):
            found = (point, right.split()[0])
    return found


def _free(facts: Facts) -> Finding:
    seen = space(facts.state_dir)
    if not seen.total_bytes:
        return ok(f"{seen.path} does not say how much is free")
    found = f"{size(seen.free_bytes)} free of {size(seen.total_bytes)}"
    if seen.free_bytes < low_water_bytes(seen.total_bytes, None):
        return weak(
            found,
            "A job that finds the disk full holds until there is room again.",
            "Make room, or keep the state elsewhere: --state-dir.",
        )
    return ok(found)


def _inodes(facts: Facts) -> Finding | None:
    seen = space(facts.state_dir)
    if seen.free_inodes is None:
        return None
    if seen.free_inodes < FEW_INODES:
        return weak(
            f"{seen.free_inodes} free",
            "Without inodes no file can be made, however much room there is.",
            "Remove small files; `du --inodes -x / | sort -n | tail` tells where they are.",
        )
    return ok(f"{seen.free_inodes} free")


CHECKS = (
    Check("state folder", _writable, vital=True),
    Check("journal", _journal, vital=True),
    Check("file system", _file_system),
    Check("free space", _free),
    Check("inodes", _inodes),
)
