"""What a worker's session says, made sound and short enough to be sent.

Owns what becomes of a script's own values on their way into a message. Does no I/O. Invariant: no
value of a script's, whatever its type does, raises here, and no packet is longer than the limit.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from workers import cuda
from workers.reports import REPORT_LIMIT_BYTES, Errored, Progressed, encode

if TYPE_CHECKING:
    from collections.abc import Iterator

METRICS = 64
NAME_CHARACTERS = 100
# How a launcher of ranks tells each its number, and how many there are.
RANKS = (
    ("RANK", "WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
)


def rank_and_world() -> tuple[int, int]:
    """Return which of how many equal processes this is."""
    for rank, world in RANKS:
        with suppress(ValueError):
            if rank in os.environ:
                return int(os.environ[rank]), int(os.environ.get(world, "1"))
    return 0, 1


def progressed(
    step: Any,  # noqa: ANN401 - whatever the script calls a step
    total: Any,  # noqa: ANN401 - the same
    metrics: dict[str, Any],
    known: int | None = None,
) -> Progressed | None:
    """Return the message of what was put down; None where the step is `known`, or no number.

    Here, in the thread, values become floats, because a tensor on a GPU makes who asks it wait.
    """
    number = number_of(step)
    if number is None or number == known:
        return None
    figures = {}
    for name in list(metrics)[:METRICS]:
        with suppress(Exception):  # what is no number is left out
            value = metrics[name]
            detach = getattr(value, "detach", None)  # torch warns of a tensor that has a gradient
            figures[name[:NAME_CHARACTERS]] = float(value if detach is None else detach())
    return Progressed(number, number_of(total), figures, cuda.reserved_bytes())


def number_of(value: Any) -> int | None:  # noqa: ANN401 - whatever a script gives
    """Return it as an integer, None where it is none or one that no JSON text can hold."""
    try:
        number = int(value)
        return number if abs(number) < 1 << 63 else None
    except Exception:  # noqa: BLE001 - whatever a user's type raises
        return None


def packet_of(report: Any) -> bytes | None:  # noqa: ANN401 - any type of reports.py
    """Return the packet of a message, without what does not fit; None where nothing does."""
    for shorter in _shortened(report):
        with suppress(TypeError, ValueError, RecursionError):
            packet = encode(shorter)
            if len(packet) <= REPORT_LIMIT_BYTES:
                return packet
    return None


def _shortened(report: Any) -> Iterator[Any]:  # noqa: ANN401 - as above
    """Yield the message, then what may be left out of it bit by bit."""
    yield report
    if isinstance(report, Errored):
        bare = report._replace(details={})
        yield bare
        for limit in (8000, 1000):
            yield bare._replace(
                traceback=bare.traceback[-limit:],
                message=bare.message[:limit],
                type_name=bare.type_name[:limit],
            )
    if isinstance(report, Progressed):
        yield report._replace(metrics={})
