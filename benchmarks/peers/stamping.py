"""What a pool's worker does in the next_item benchmark; a module of its own, so that it is loaded.

Owns the one Stamp of a worker: the pools have initializers where we have a class.
"""

from benchmarks.batch_items import Stamp

WORK_S = 0.05

_stamp: list[Stamp] = []


class Closed(Exception):
    """Nobody reads any more."""


def word(name: str) -> str:
    """A name without blanks, as it stands in a report."""
    return name.replace(" ", "_")


def begin(peer: str, pipe: str) -> None:
    """Prepare a worker, as a class of ours is constructed once."""
    _stamp.append(Stamp(pipe, word(peer), WORK_S))


def handle(item: int) -> int:
    """One item.

    Raises:
        Closed: nobody reads the pipe any more.
    """
    try:
        return _stamp[0](item)
    except BrokenPipeError:
        raise Closed from None
