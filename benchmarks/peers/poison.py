"""Ten items of which the third is bad, given to one pool: `PEER FAULT` -> a line per answer.

Owns how each peer is asked: item by item, with the time limit where the peer has one, and by the
call that gives results as they come, so that a broken pool takes as little with it as it can. A
line is `result N` or `error N TYPE`; what the peer never answers has none.
"""

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import billiard.pool
import joblib
import loky
import pebble

from benchmarks.batch_items import poison

Item = dict[str, Any]
Answer = tuple[int, str]  # the item's number, 0 where the peer does not say; what went wrong

ITEMS, BAD = 10, 3
WORKERS = 2
ITEM_LIMIT_S = 5.0
LOOK_EVERY_S = 0.02
MEMORY_BYTES = 1 << 30
OUT_OF_MEMORY = "out of memory"


def items(fault: str) -> list[Item]:
    """Ten, the third with this fault."""
    return [
        {"number": number} | ({"fault": fault} if number == BAD else {})
        for number in range(1, ITEMS + 1)
    ]


def pool(given: list[Item]) -> Iterator[Answer]:
    """multiprocessing.Pool: no time limit to set."""
    with multiprocessing.Pool(WORKERS) as workers:
        answers = workers.imap_unordered(poison, given)
        while True:
            try:
                yield next(answers), ""
            except StopIteration:
                return
            except Exception as error:  # noqa: BLE001 -- whatever the item raised
                yield 0, type(error).__name__


def executor(given: list[Item]) -> Iterator[Answer]:
    """concurrent.futures: no time limit to set."""
    with ProcessPoolExecutor(WORKERS) as workers:
        yield from _futures({workers.submit(poison, one): one["number"] for one in given})


def loky_executor(given: list[Item]) -> Iterator[Answer]:
    """Loky's: no time limit for an item."""
    workers = loky.get_reusable_executor(max_workers=WORKERS)
    yield from _futures({workers.submit(poison, one): one["number"] for one in given})


def joblib_parallel(given: list[Item]) -> Iterator[Answer]:
    """Joblib, over loky: a time limit that ends the whole call."""
    settings = {"return_as": "generator_unordered", "timeout": ITEM_LIMIT_S}
    try:
        for number in joblib.Parallel(n_jobs=WORKERS, **settings)(
            joblib.delayed(poison)(one) for one in given
        ):
            yield number, ""
    except Exception as error:  # noqa: BLE001 -- whatever ended the call
        yield 0, type(error).__name__


def pebble_pool(given: list[Item]) -> Iterator[Answer]:
    """Pebble: a time limit for each item."""
    with pebble.ProcessPool(WORKERS) as workers:
        asked = {
            workers.schedule(poison, args=[one], timeout=ITEM_LIMIT_S): one["number"]
            for one in given
        }
        yield from _futures(asked)


def billiard_pool(given: list[Item]) -> Iterator[Answer]:
    """Celery's: a time limit for each item."""
    workers = billiard.pool.Pool(WORKERS, timeout=ITEM_LIMIT_S)
    asked = {one["number"]: workers.apply_async(poison, (one,)) for one in given}
    while asked:
        time.sleep(LOOK_EVERY_S)
        for number in [number for number, answer in asked.items() if answer.ready()]:
            try:
                yield asked.pop(number).get(), ""
            except Exception as error:  # noqa: BLE001 -- whatever became of the item
                yield number, type(getattr(error, "exc", error)).__name__
    workers.terminate()


def _futures(asked: Mapping[Any, int]) -> Iterator[Answer]:
    for done in as_completed(asked):
        error = done.exception()
        yield asked[done], "" if error is None else type(error).__name__


PEERS: dict[str, Callable[[list[Item]], Iterator[Answer]]] = {
    "multiprocessing.Pool": pool,
    "ProcessPoolExecutor": executor,
    "loky": loky_executor,
    "joblib": joblib_parallel,
    "pebble": pebble_pool,
    "billiard": billiard_pool,
}


def main(peer: str, fault: str) -> None:
    """Ask this peer, and say what it answers."""
    if fault == OUT_OF_MEMORY:  # no peer has a limit of its own
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    for number, error in PEERS[peer](items(fault)):
        print(f"error {number} {error}" if error else f"result {number}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
