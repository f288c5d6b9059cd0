"""All lines of a file through one pool: `PEER FILE` -> its seconds and its peak memory, as JSON.

Owns how each peer is asked. All hold the lines and the results in memory, and none writes anything
down: what is done when the pool dies is lost.
"""

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import joblib

from benchmarks.batch_items import length
from benchmarks.supervised import peak_rss_bytes

JOBLIB_WORKERS = 2  # with one it calls the function itself


def imap(chunk: int, lines: list[str]) -> Iterable[int]:
    """multiprocessing.Pool with one worker."""
    with multiprocessing.Pool(1) as workers:
        yield from workers.imap_unordered(length, lines, chunk)


def executor(chunk: int, lines: list[str]) -> Iterable[int]:
    """concurrent.futures with one worker."""
    with ProcessPoolExecutor(1) as workers:
        yield from workers.map(length, lines, chunksize=chunk)


def parallel(chunk: int, lines: list[str]) -> Iterable[int]:
    """Joblib over loky."""
    found: list[int] = joblib.Parallel(n_jobs=JOBLIB_WORKERS, batch_size=chunk)(
        joblib.delayed(length)(line) for line in lines
    )
    return found


def in_process(lines: list[str]) -> Iterable[int]:
    """No pool at all."""
    return map(length, lines)


PEERS: dict[str, Callable[[list[str]], Iterable[int]]] = {
    "plain loop, nothing isolated": in_process,
    "mp.Pool(1).imap_unordered, chunks of 16": partial(imap, 16),
    "mp.Pool(1).imap_unordered, chunks of 500": partial(imap, 500),
    "ProcessPoolExecutor(1).map, chunks of 500": partial(executor, 500),
    "joblib.Parallel(2), batches of 500": partial(parallel, 500),
}


def main(peer: str, file: str) -> None:
    """Ask this peer, and say what it took from the first line read to the last result."""
    started = time.perf_counter()
    lines = Path(file).read_text(encoding="ascii").splitlines()
    found = sum(1 for _ in PEERS[peer](lines))
    took_s = time.perf_counter() - started
    peak = peak_rss_bytes(os.getpid())
    print(json.dumps({"items": found, "took_s": took_s, "peak_rss_bytes": peak}))


if __name__ == "__main__":
    main(*sys.argv[1:])
