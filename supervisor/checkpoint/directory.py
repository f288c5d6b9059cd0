"""Checking a directory checkpoint: what must be there is, and every part that we know is whole.

Owns the rules for folders (`require`, `forbid`, index files, distributed checkpoints); files are
judged by `formats`, a folder with a manifest of ours by `publication`. Invariant: nothing outside
the folder is ever opened because a file in it says so.

Conventions: transformers' `*.index.json` lists the shards in `weight_map`; torch's distributed
checkpoint writes `.metadata` after all `*.distcp`.
"""

import os
from pathlib import Path, PurePosixPath
from typing import Final

from supervisor.checkpoint.formats import check_part
from supervisor.checkpoint.layout import Layout
from supervisor.checkpoint.names import is_ours, looks_unfinished
from supervisor.checkpoint.publication import check_publication, read_publication
from supervisor.checkpoint.reading import parse_json, read_small
from supervisor.checkpoint.verdict import BadBytes, Finding, Kind, Level
from supervisor.checkpoint.walk import Walk

_INDEX_LIMIT_BYTES: Final = 8 << 20
_DCP_METADATA: Final = ".metadata"


def check_presence(path: Path, layout: Layout) -> None:
    """Check `require` and `forbid`, inside a folder or beside a file. Reads names and sizes only.

    Raises:
        BadBytes: what is missing or should not be there.
        OSError: it cannot be looked at.

    """
    folder = path if path.is_dir() else path.parent
    for pattern in layout.require:
        matches = list(Walk(every_name=True).glob(folder, pattern))
        if not matches:
            raise BadBytes(f"{pattern} is missing")
        for match in matches:
            if _is_void(match):
                raise BadBytes(f"{match.relative_to(folder)} is empty")
    for pattern in layout.forbid:
        for match in Walk(every_name=True).glob(folder, pattern):
            raise BadBytes(f"{match.relative_to(folder)} says that it is not complete")


def _is_void(path: Path) -> bool:
    try:
        if path.is_dir():
            return not any(path.iterdir())
        return path.stat().st_size == 0
    except FileNotFoundError:
        return True


def check_folder(path: Path, step: int | None = None) -> Finding:
    """Check every file in a directory checkpoint; `step` is what its name says, if that is known.

    Raises:
        BadBytes: which part is bad, and why.
        OSError: a part cannot be read.

    """
    promised = read_publication(path)
    if promised is not None:
        return check_publication(path, promised, step)
    walk, names, levels = Walk(), set[str](), list[Level]()
    for relative, _ in walk.contents(path):
        name = PurePosixPath(relative).name
        if is_ours(name) or looks_unfinished(name):
            continue
        names.add(relative)
        levels.append(_check_one(path, relative))
    if walk.problems:
        where, why = walk.problems[0]
        raise PermissionError(f"{where} {why}")
    if not names:
        raise BadBytes("the folder is empty", Kind.DIRECTORY)
    for relative in names:
        if relative.endswith(".index.json"):
            _check_index(path, relative, names)
    _check_distributed(names)
    verified = levels.count(Level.VERIFIED)
    return Finding(
        Kind.DIRECTORY,
        Level.VERIFIED if verified else Level.STABLE,
        f"{verified} of {len(levels)} files checked, the others are of no checkable format",
    )


def _check_one(path: Path, relative: str) -> Level:
    where = path / relative
    if where.is_dir():  # a link to a folder: not followed
        return Level.STABLE
    try:
        return check_part(where).level
    except BadBytes as error:
        raise BadBytes(f"{relative}: {error.reason}", Kind.DIRECTORY) from error
    except FileNotFoundError as error:
        if not where.is_symlink():
            raise
        raise BadBytes(f"{relative} is a link to nothing", Kind.DIRECTORY) from error


def _check_index(path: Path, relative: str, names: set[str]) -> None:
    try:
        index = parse_json(read_small(path / relative, _INDEX_LIMIT_BYTES))
    except (ValueError, BadBytes) as error:
        raise BadBytes(f"{relative} is not a valid index", Kind.DIRECTORY) from error
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict):
        return  # some other index
    folder = PurePosixPath(relative).parent
    for shard in sorted({str(value) for value in shards.values()}):
        inside = os.path.normpath(folder / shard)
        if inside not in names:
            raise BadBytes(f"{shard[:80]}, listed in {relative}, is missing", Kind.DIRECTORY)


def _check_distributed(names: set[str]) -> None:
    folders = {PurePosixPath(name).parent for name in names if name.endswith(".distcp")}
    for folder in folders:
        if str(folder / _DCP_METADATA) not in names:
            raise BadBytes(
                f"{folder / _DCP_METADATA} is missing: it is written last, so saving did not end",
                Kind.DIRECTORY,
            )
