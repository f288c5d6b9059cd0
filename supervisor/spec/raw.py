"""Reading data of any shape: what a job file holds before its kinds are checked.

Owns the careful look: a section that is none is empty, a number that is none is None. What is wrong
there is reported elsewhere.
"""

from collections.abc import Mapping

from supervisor.spec.nodes import Filled, plain_value

Data = Mapping[str, object]


def section_of(data: Data, *names: str) -> Data:
    """Return the mapping at a place; an empty one where there is none."""
    here: object = data
    for name in names:
        here = here.get(name) if isinstance(here, Mapping) else None
    return here if isinstance(here, Mapping) else {}


def plain(value: object) -> object:
    """Return a value with its params filled in."""
    return plain_value(value) if isinstance(value, Filled) else value


def number_of(value: object) -> float | None:
    """Return a number, None for what is none."""
    found = plain(value)
    return found if isinstance(found, (int, float)) and not isinstance(found, bool) else None


def count_of(value: object) -> int | None:
    """Return a whole number, None for what is none."""
    found = number_of(value)
    return found if isinstance(found, int) else None
