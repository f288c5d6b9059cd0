"""Entries: what they find, and what is said when they find nothing that can be called."""

import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from workers.entry import EntryProblem, callable_of, generator_of, load

PHOTOS = """
import functools

def handle(item, size=224):
    return [item, size]

def rest(item, *, scale, **others):
    return [item, scale, others]

def pages(item):
    yield item

async def later(item):
    return item

class Handle:
    def __init__(self, size):
        self.size = size
    def __call__(self, item):
        return [item, self.size]

class Slow(Handle):
    async def __call__(self, item):
        return item

class Deaf:
    def __init__(self, size=1):
        pass

class Outer:
    class Inner(Handle):
        pass
    @classmethod
    def handle(cls, item):
        return [cls.__name__, item]

made = Handle(7)
partial = functools.partial(handle, size=3)
lazy = functools.partial(pages)
size = 224
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stand in a folder with modules of the user's own, which are forgotten afterwards."""
    (tmp_path / "photos_of_mine.py").write_text(PHOTOS)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("")
    (tmp_path / "shop" / "prices.py").write_text("import no_such_library\n")
    (tmp_path / "shop" / "script.py").write_text("import sys\nsys.exit(2)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("name", "args", "answer"),
    [
        ("handle", {}, ["a", 224]),
        ("handle", {"size": 1}, ["a", 1]),
        ("rest", {"scale": 2, "more": 3}, ["a", 2, {"more": 3}]),
        ("Handle", {"size": 5}, ["a", 5]),
        ("Outer.Inner", {"size": 5}, ["a", 5]),
        ("Outer.handle", {}, ["Outer", "a"]),
        ("made", {}, ["a", 7]),
        ("partial", {}, ["a", 3]),
    ],
)
def test_what_can_be_called_is_called(name: str, args: dict[str, int], answer: object) -> None:
    """Functions, classes with their args, methods, objects and partial functions."""
    assert callable_of(f"photos_of_mine:{name}", args)("a") == answer


def test_a_function_without_args_is_itself() -> None:
    """Nothing of ours stands between the loop and the user's function."""
    assert callable_of("photos_of_mine:handle", {}) is sys.modules["photos_of_mine"].handle
    assert isinstance(callable_of("photos_of_mine:handle", {"size": 1}), functools.partial)


@pytest.mark.parametrize(
    ("entry", "args", "words"),
    [
        ("photos_of_mine", {}, "'photos_of_mine' is not an entry: write package.module:name"),
        ("photos_of_mine.handle", {}, "did you mean photos_of_mine:handle?"),
        ("photos_of_mine.py:handle", {}, "did you mean photos_of_mine:handle?"),
        ("shop/prices.py:handle", {}, "did you mean shop.prices:handle?"),
        ("photos of mine:handle", {}, "is not an entry: write package.module:name"),
        ("photo_of_mine:handle", {}, "there is no module photo_of_mine in FOLDER or where"),
        ("photo_of_mine:handle", {}, "did you mean photos_of_mine?"),
        ("shop.price:handle", {}, "no module shop.price in FOLDER/shop: did you mean prices?"),
        ("photos_of_mine.sub:handle", {}, "photos_of_mine is a module, not a package"),
        ("photos_of_mine:handel", {}, "in FOLDER/photos_of_mine.py: did you mean handle?"),
        ("photos_of_mine:Outer.handel", {}, "there is no handel in Outer: did you mean handle?"),
        ("photos_of_mine:size", {}, "is of type int, which cannot be called: name a function"),
        ("photos_of_mine:Deaf", {}, "type Deaf, which cannot be called: give its class a __call__"),
        ("photos_of_mine:pages", {}, "is a generator: it must return one result, not yield"),
        ("photos_of_mine:lazy", {}, "is a generator"),
        ("photos_of_mine:later", {}, "is an async function"),
        ("photos_of_mine:Slow", {"size": 1}, "is an async function"),
        ("photos_of_mine:Handle", {}, "missing a required argument: 'size'; it takes (size)"),
        ("photos_of_mine:handle", {"sise": 1}, "unexpected keyword argument 'sise'"),
        ("photos_of_mine:rest", {}, "missing a required argument: 'scale'"),
        ("shop.script:handle", {}, "ended the program (sys.exit(2)): put what"),
    ],
)  # fmt: skip
def test_what_cannot_be_called_is_explained(
    entry: str, args: dict[str, int], words: str, folder: Path
) -> None:
    """In words for the person who wrote the entry: what is wrong, where, and what was meant."""
    with pytest.raises(EntryProblem) as caught:
        callable_of(entry, args)
    assert words.replace("FOLDER", str(folder)) in str(caught.value)


def test_an_import_of_the_users_that_fails_is_theirs() -> None:
    """A library that a module of theirs lacks is not the entry's mistake."""
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        load("shop.prices:handle")


def test_a_builtin_that_tells_nothing_of_itself_is_taken() -> None:
    """What its arguments must be is seen when it is called."""
    assert callable_of("builtins:max", {})([1, 3, 2]) == 3


@pytest.mark.parametrize(
    ("source", "listed"),
    [
        ("def items():\n    yield 1\n    yield 2", [1, 2]),
        ("def items():\n    return [1, 2]", [1, 2]),
        ("class items(list):\n    def __init__(self, start=5): super().__init__([start])", [5]),
    ],
)
def test_items_come_from_what_yields_or_returns(
    folder: Path, source: str, listed: list[int]
) -> None:
    """A generator, a list, anything that can be walked through."""
    (folder / "lister.py").write_text(source)
    assert list(generator_of("lister:items", {})) == listed


@pytest.mark.parametrize("returned", ["'photos'", "b'photos'", "None", "7"])
def test_items_are_not_one_text(folder: Path, returned: str) -> None:
    """A text would be listed letter by letter."""
    (folder / "lister.py").write_text(f"def items():\n    return {returned}")
    with pytest.raises(EntryProblem, match="must yield items, or return a list"):
        generator_of("lister:items", {})


def test_nothing_is_called_before_it_fits(folder: Path) -> None:
    """Arguments that do not fit are refused before the constructor runs."""
    (folder / "lister.py").write_text("class Items:\n    def __init__(self): raise OSError")
    calls: list[Callable[[], object]] = [
        lambda: callable_of("lister:Items", {"a": 1}),
        lambda: generator_of("lister:Items", {"a": 1}),
    ]
    for call in calls:
        with pytest.raises(EntryProblem, match="unexpected keyword argument 'a'"):
            call()
