"""An endless row of items through one worker of one pool, whatever becomes of it: `PEER PIPE`.

Owns how each peer is made to go on after the death of its worker. torch is in the forkserver where
the peer can have one. Ends when nobody reads the pipe any more, for then an item fails.
"""

import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext

import loky
import pebble
from loky.process_executor import TerminatedWorkerError

from benchmarks.peers.stamping import begin, handle

ITEMS = 20_000  # longer than any benchmark
PRELOADED = ["torch", "benchmarks.peers.stamping"]


def pool(peer: str, pipe: str) -> None:
    """multiprocessing.Pool replaces its worker; the item is never answered."""
    with _forkserver().Pool(1, begin, (peer, pipe)) as workers:
        for _ in workers.imap_unordered(handle, range(ITEMS)):
            pass


def executor(peer: str, pipe: str) -> None:
    """concurrent.futures breaks: a new pool each time."""
    while True:
        with ProcessPoolExecutor(1, _forkserver(), begin, (peer, pipe)) as workers:
            try:
                for item in range(ITEMS):
                    workers.submit(handle, item).result()
            except BrokenProcessPool:
                continue


def pebble_pool(peer: str, pipe: str) -> None:
    """Pebble replaces its worker, and says that it died."""
    context = _forkserver()
    with pebble.ProcessPool(
        1, initializer=begin, initargs=(peer, pipe), context=context
    ) as workers:
        for item in range(ITEMS):
            try:
                workers.schedule(handle, args=[item]).result()
            except pebble.ProcessExpired:
                continue


def loky_executor(peer: str, pipe: str) -> None:
    """Loky breaks, and has no forkserver: a new pool of fresh processes each time."""
    while True:
        workers = loky.get_reusable_executor(1, initializer=begin, initargs=(peer, pipe))
        try:
            for item in range(ITEMS):
                workers.submit(handle, item).result()
        except TerminatedWorkerError:
            continue


PEERS: dict[str, Callable[[str, str], None]] = {
    "loky, a new pool": loky_executor,
    "multiprocessing.Pool, forkserver": pool,
    "ProcessPoolExecutor, forkserver, a new pool": executor,
    "pebble, forkserver": pebble_pool,
}


def _forkserver() -> BaseContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def main(peer: str, pipe: str) -> None:
    """Let this peer work until it is killed, or nobody listens."""
    PEERS[peer](peer, pipe)


if __name__ == "__main__":
    main(*sys.argv[1:])
