"""What torch's allocator holds on the GPUs of this process, for reports.

Owns these figures. Never imports torch, never starts CUDA and asks no GPU: the allocator counts on
the host, so a device that hangs or a broken context cannot hold up the answer. Invariant: a figure
that cannot be had is left out; nothing here raises.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

# torch.cuda.memory_stats: what each figure is called there and here.
_FIGURES = (
    ("allocated_bytes.all.current", "allocated_bytes"),
    ("allocated_bytes.all.peak", "peak_allocated_bytes"),
    ("reserved_bytes.all.current", "reserved_bytes"),
    ("reserved_bytes.all.peak", "peak_reserved_bytes"),
    ("num_ooms", "ooms"),
    ("num_alloc_retries", "retries"),
)


def reserved_bytes() -> int | None:
    """Return what the allocator holds on all devices; None where CUDA is not in use."""
    try:
        cuda = _cuda()
        if cuda is None:
            return None
        return sum(int(cuda.memory_reserved(device)) for device in range(cuda.device_count()))
    except Exception:  # noqa: BLE001 - half imported, or its context is broken
        return None


def memory_figures() -> dict[str, dict[str, int]]:
    """Return the allocator's figures for each device of which it has held anything."""
    found = {}
    with suppress(Exception):
        cuda = _cuda()
        for device in range(cuda.device_count()) if cuda is not None else ():
            stats = cuda.memory_stats(device)
            if stats.get("reserved_bytes.all.peak"):
                figures = {ours: int(stats[theirs]) for theirs, ours in _FIGURES if theirs in stats}
                found[f"cuda:{device}"] = figures
    return found


def memory_summary() -> str:
    """Return torch's own table of the memory of the current device; empty where there is none."""
    with suppress(Exception):
        cuda = _cuda()
        if cuda is not None:
            return str(cuda.memory_summary(abbreviated=True))
    return ""


def _cuda() -> Any:  # noqa: ANN401 - a module that is not ours to import
    cuda: Any = getattr(sys.modules.get("torch"), "cuda", None)
    return cuda if cuda is not None and cuda.is_initialized() else None
