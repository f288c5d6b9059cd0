"""Hangs that keep a processor busy and get nowhere."""

import itertools
import mmap
from multiprocessing import get_context


def spin() -> None:
    """Goes round in Python."""
    while True:
        pass


def collective() -> None:
    """Two ranks look at a flag in shared memory, in C, as a stuck collective does."""
    flag = mmap.mmap(-1, mmap.PAGESIZE)
    rank = get_context("fork").Process(target=_wait_for, args=(flag,), daemon=True)
    rank.start()
    _wait_for(flag)


def _wait_for(flag: mmap.mmap) -> None:
    any(map(flag.__getitem__, itertools.repeat(0)))
