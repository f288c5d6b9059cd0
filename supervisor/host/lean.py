"""structlog as a process without a terminal wants it: without rich.

Owns the order of these imports. structlog loads rich, where it finds it, for tracebacks on a
terminal, which no log of ours has: 5 MB and 30 ms. Whoever logs takes structlog from here.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _without(module: str) -> Iterator[None]:
    """Make imports of a module fail inside the block, unless it is loaded already."""
    absent = sys.modules.setdefault(module, None) is None  # type: ignore[arg-type] # the documented way
    try:
        yield
    finally:
        if absent:
            del sys.modules[module]


with _without("rich"):
    import structlog

__all__ = ["structlog"]
