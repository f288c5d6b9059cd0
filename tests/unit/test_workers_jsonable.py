"""The JSON of a result, and the advice where there is none."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workers.jsonable import BadResult, json_of


@dataclasses.dataclass
class Score:
    """A user's own."""

    value: float


class Tensor:
    """Looks like torch's."""

    ndim = 2

    def tolist(self) -> list[float]:
        """Be there."""
        return []


async def later() -> None:
    """Be called and never awaited."""


def holding_itself() -> list[Any]:
    """Return a list with no end."""
    endless: list[Any] = []
    endless.append(endless)
    return endless


def test_a_result_is_compact_ascii_in_its_own_order() -> None:
    """Nothing is sorted, nothing is left out."""
    assert json_of({"b": "\u00fc", "a": [1, 2.5, None, True]}) == (
        b'{"b":"\\u00fc","a":[1,2.5,null,true]}'
    )
    assert json_of(None) == b"null"
    assert json_of(np.float64(0.5)) == b"0.5"  # a float by birth


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (float("nan"), "the result is nan, which JSON does not have: return None"),
        ({"scores": [1.0, float("inf")]}, "the result['scores'][1] is inf"),
        ({"a": {"b": (1, {2})}}, "the result['a']['b'][1] is a set, which JSON does not have"),
        ({(1, 2): 3}, "the result has the key (1, 2), a tuple: keys in JSON are texts"),
        ({"score": np.float32(0.5)}, "is a numpy.float32, which JSON does not have: return its .i"),
        (np.zeros(2), "return its .tolist(), or write a file"),
        (np.array(2.0), "return its .item()"),
        (Tensor(), "return its .tolist(), or write a file"),
        (Path("a"), "return str(path)"),
        (b"bytes", "workers.outputs.output(name)"),
        ((number for number in ()), "return list(it)"),
        (Score(0.5), "return dataclasses.asdict(it)"),
        (object(), "return text, numbers, true, false, None, and lists and dicts of these"),
        (holding_itself(), "the result is nested deeper than 100 levels, or holds itself"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_json_is_found_and_advised(value: object, words: str) -> None:
    """Where in the result it is, what it is, and what to return instead."""
    with pytest.raises(BadResult) as caught:
        json_of(value)
    assert words in str(caught.value)


def test_a_coroutine_is_told_from_a_result() -> None:
    """An async function behind a decorator is seen by what it returns."""
    coroutine = later()
    with pytest.raises(BadResult, match="must be a plain function, not an async one"):
        json_of(coroutine)
    coroutine.close()


def test_the_value_is_named_as_the_caller_knows_it() -> None:
    """In a batch, by its place in the list."""
    with pytest.raises(BadResult, match="result 3 is a set"):
        json_of({1}, "result 3")


def test_what_a_users_object_raises_is_its_own() -> None:
    """An error of theirs while their value is read is not taken for a wrong type."""

    class Torn(dict[str, int]):
        def items(self) -> Any:
            raise OSError("torn")

    read: Callable[[], bytes] = lambda: json_of(Torn(a=1))  # noqa: E731 - one line says it
    with pytest.raises(OSError, match="torn"):
        read()
