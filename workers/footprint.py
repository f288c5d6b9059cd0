"""Measures what a worker holds: host memory, and GPU memory where torch uses any.

Owns these figures. Never imports torch and never starts CUDA. Invariant: a figure that cannot be
had is None, and measuring never fails an item.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from workers.messages import Memory

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def footprint(items: int) -> Memory:
    """Return what this process holds now, with the number of items it has finished."""
    held, peak = gpu_bytes()
    return Memory(rss_bytes(), held, peak, items)


def rss_bytes() -> int:
    """Return the resident memory. proc_pid_statm(5): the second field, in pages."""
    fd = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(os.read(fd, 128).split()[1]) * PAGE_BYTES
    finally:
        os.close(fd)


def gpu_bytes() -> tuple[int | None, int | None]:
    """Return what tensors hold on all devices now, and what torch reserved at most; else None.

    What torch keeps for later is no leak: it is given back before anything fails for lack of it.
    """
    cuda: Any = getattr(sys.modules.get("torch"), "cuda", None)
    try:
        if cuda is None or not cuda.is_initialized():
            return None, None
        devices = range(cuda.device_count())
        return (
            sum(cuda.memory_allocated(device) for device in devices),
            sum(cuda.max_memory_reserved(device) for device in devices),
        )
    except Exception:  # noqa: BLE001 - half imported, or its context is broken
        return None, None
