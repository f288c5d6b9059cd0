"""Copies a log file to a stream, or its last lines.

Owns bounded reading: memory stays flat whatever the size of the file and of its lines.
"""

import os
from pathlib import Path
from typing import IO

BLOCK = 1 << 18
LINE_LIMIT = 1 << 20  # a longer line is told in pieces


def copy_from(path: Path, offset: int, out: IO[bytes]) -> int:
    """Copy what lies behind `offset`; the offset behind the last byte copied.

    A file that is not there is empty; one that became shorter is read from its beginning.
    """
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError:
        return offset
    with file:
        end = os.fstat(file.fileno()).st_size
        offset = offset if offset <= end else 0
        file.seek(offset)
        # Up to where it ended when we looked: a worker that prints faster than the terminal
        # scrolls must not keep us here.
        while offset < end and (block := file.read(min(BLOCK, end - offset))):
            out.write(block)
            offset += len(block)
    return offset


def unfinished(path: Path) -> bool:
    """Whether a file ends within a line."""
    try:
        with path.open("rb", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            return end > 0 and os.pread(file.fileno(), 1, end - 1) != b"\n"
    except FileNotFoundError:
        return False


def tail_offset(path: Path, lines: int | None) -> int:
    """Where the last `lines` lines begin; 0 for None and for a file with fewer."""
    if lines is None:
        return 0
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError:
        return 0
    with file:
        end = at = os.fstat(file.fileno()).st_size
        if lines == 0:
            return end
        # The newline that ends the file ends its last line; it does not begin another.
        behind = max(end - 1, 0)
        while at > 0:
            start = max(0, at - BLOCK)
            block = os.pread(file.fileno(), at - start, start)
            stop = min(len(block), behind - start)
            while (found := block.rfind(b"\n", 0, stop)) >= 0:
                lines -= 1
                if lines == 0:
                    return start + found + 1
                stop = found
            at = start
    return 0
