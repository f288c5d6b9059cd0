"""Whether this process may be forked, and what it holds open: as the kernel says, in words.

Owns looking; changes nothing. Invariant: `unsafe` says None only for a process with one thread that
has not touched CUDA: a thread would be missing in a forked child, and CUDA does not survive a fork.
"""

from __future__ import annotations

import os
import sys

GPU_IN_USE = "/dev/nvidia-uvm"  # what CUDA opens, and merely counting the GPUs does not
NAMES_SHOWN = 5


def unsafe() -> str | None:
    """Return what a forked child could not do without, as the beginning of a sentence."""
    names = sorted(_name(thread) for thread in os.listdir("/proc/self/task"))  # noqa: PTH208 -- pathlib is slow to import
    if len(names) > 1:
        return f"{len(names) - 1} threads were started ({', '.join(names[:NAMES_SHOWN])})"
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if (cuda is not None and cuda.is_initialized()) or GPU_IN_USE in map(_link, descriptors()):
        return "CUDA was initialised"
    return None


def descriptors() -> set[int]:
    """Return the open descriptors; the one that it takes to look is closed again."""
    return {fd for fd in map(int, os.listdir("/proc/self/fd")) if is_open(fd)}  # noqa: PTH208 -- see above


def is_open(fd: int) -> bool:
    """Tell whether there is a descriptor of this number."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _name(thread: str) -> str:
    try:
        with open(f"/proc/self/task/{thread}/comm", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 -- see above
            return file.read().strip()
    except OSError:
        return "ended"


def _link(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115 -- see above
    except OSError:
        return ""
