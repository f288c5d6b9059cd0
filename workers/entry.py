"""Finds what an entry names, `pkg.mod:name`, and makes of it what is called for each item.

Owns the errors about entries. Never calls the entry's function, and constructs its class once.
Invariant: what is wrong with the entry itself is an EntryProblem, in words; what the user's code
raises while it is imported or constructed passes as it is.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from typing import TYPE_CHECKING, Any

from workers.faults import clash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

SHAPE = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*(?:\.[^\W\d]\w*)*)")
GENERATOR, COROUTINE, ASYNC_GENERATOR = 0x20, 0x80, 0x200  # inspect.CO_*, which is slow to import
CONFIG_ERRORS = (ImportError, SyntaxError, NameError)  # of a loading: the same at every start


class EntryProblem(Exception):
    """The entry cannot be used, and why; for the person who wrote it."""

    kind = "bad_config"


def load(entry: str) -> Any:  # noqa: ANN401 - whatever has that name
    """Return what `pkg.mod:name` names. Raises EntryProblem, and whatever the import raises."""
    matched = SHAPE.fullmatch(entry)
    if matched is None:
        raise EntryProblem(
            f"{entry!r} is not an entry: write package.module:name{_repaired(entry)}"
        )
    found: Any = _module(matched[1], entry)
    for name in matched[2].split("."):
        if not hasattr(found, name):
            raise EntryProblem(_no_name(found, name, entry))
        found = getattr(found, name)
    return found


def callable_of(entry: str, args: Mapping[str, object]) -> Callable[[Any], object]:
    """Return what is called with an item, or a list of them: a class is constructed with args.

    A function gets args with each call. Raises EntryProblem, and whatever loading or constructing
    raises.
    """
    found = load(entry)
    _check_callable(found, entry)
    if isinstance(found, type):
        _check_arguments(found, (), args, entry)
        made: Any = found(**args)
        _check_callable(
            made, f"the object that {entry} makes", "give its class a __call__(self, item)"
        )
        _check_plain(type(made).__call__, entry)
        return made  # type: ignore[no-any-return]  # checked above
    _check_plain(found, entry)
    _check_arguments(found, ("item",), args, entry)
    return functools.partial(found, **args) if args else found


def generator_of(entry: str, args: Mapping[str, object]) -> Iterator[object]:
    """Return an iterator over the items that the entry lists. Raises as `callable_of` does."""
    found: Any = load(entry)
    _check_callable(found, entry)
    _check_plain(found, entry, COROUTINE | ASYNC_GENERATOR)
    _check_arguments(found, (), args, entry)
    items = found(**args)
    if not hasattr(items, "__iter__") or isinstance(items, (str, bytes)):
        raise EntryProblem(
            f"{entry} returned a {type(items).__name__}: it must yield items, or return a list"
        )
    return iter(items)


def _module(name: str, entry: str) -> object:
    try:
        # Not importlib: its frames would stand before the user's own in a traceback.
        __import__(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing != name and not name.startswith(missing + "."):
            raise  # one of its own imports is missing: its traceback tells more
        raise EntryProblem(_no_module(missing, entry)) from None
    except SystemExit as error:
        raise EntryProblem(
            f"{entry}: importing {name} ended the program (sys.exit({error.code!r})): put what it "
            f'does as a script under `if __name__ == "__main__":`'
        ) from None
    return sys.modules[name]


def _no_module(missing: str, entry: str) -> str:
    parent, _, last = missing.rpartition(".")
    if parent:
        folders = list(getattr(sys.modules.get(parent), "__path__", ()))
        where = f"in {folders[0]}" if folders else f"because {parent} is a module, not a package"
    else:
        folders, where = [os.getcwd()], f"in {os.getcwd()} or where {sys.executable} finds modules"  # noqa: PTH109 - pathlib is slow to import
    names = [name for folder in folders for name in _modules_in(folder)]
    meant = _repaired(entry) if last == "py" else _similar(last, names)
    explained = clash() if missing.partition(".")[0] == "workers" else ""
    return f"{entry}: there is no module {missing} {where}{meant}{explained}"


def _no_name(found: object, name: str, entry: str) -> str:
    where = getattr(found, "__file__", None) or getattr(found, "__qualname__", repr(found))
    names = [one for one in dir(found) if not one.startswith("_")]
    explained = clash() if entry.startswith(("workers.", "workers:")) else ""
    return f"{entry}: there is no {name} in {where}{_similar(name, names)}{explained}"


def _check_callable(found: object, what: str, instead: str = "name a function or a class") -> None:
    if not callable(found):
        kind = type(found).__name__
        raise EntryProblem(f"{what} is of type {kind}, which cannot be called: {instead}")


def _check_plain(
    function: object, entry: str, refused: int = GENERATOR | COROUTINE | ASYNC_GENERATOR
) -> None:
    """Refuse functions whose call does nothing yet."""
    while isinstance(function, functools.partial):
        function = function.func
    function = getattr(function, "__func__", function)
    if not hasattr(function, "__code__"):
        function = type(function).__call__  # of an object that can be called
    flags = getattr(getattr(function, "__code__", None), "co_flags", 0) & refused
    if flags & COROUTINE:
        raise EntryProblem(
            f"{entry} is an async function: make it a plain one (asyncio.run inside)"
        )
    if flags:
        raise EntryProblem(f"{entry} is a generator: it must return one result, not yield")


def _check_arguments(
    found: Callable[..., object],
    given: tuple[object, ...],
    args: Mapping[str, object],
    entry: str,
) -> None:
    """Refuse args that do not fit, before the first item fails of them."""
    from inspect import signature  # noqa: PLC0415 - its import is a fifth of a cold start

    try:
        parameters = signature(found)
    except (ValueError, TypeError):
        return  # a builtin that does not say; its call will
    try:
        parameters.bind(*given, **args)
    except TypeError as error:
        item = "one item and " if given else ""
        raise EntryProblem(
            f"{entry} cannot be called with {item}args {dict(args)!r}: {error}; "
            f"it takes {parameters}"
        ) from None


def _modules_in(folder: str) -> list[str]:
    try:
        names = os.listdir(folder)  # noqa: PTH208 - pathlib is slow to import
    except OSError:
        return []
    found = [name[: -len(".py")] for name in names if name.endswith(".py")]
    found += [name for name in names if os.path.isdir(os.path.join(folder, name))]  # noqa: PTH112, PTH118 - as above
    return [name for name in found if name.isidentifier() and not name.startswith("__")]


def _similar(name: str, names: Iterable[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - for errors only

    close = get_close_matches(name, sorted(set(names)), n=1)
    return f": did you mean {close[0]}?" if close else ""


def _repaired(entry: str) -> str:
    """Return the entry that a path or a dotted name was meant to be, where that is plain."""
    path, colon, name = entry.partition(":")
    module = path.removesuffix(".py").replace("/", ".").strip(".")
    if not colon:
        module, _, name = module.rpartition(".")
    fixed = f"{module}:{name}"
    return f": did you mean {fixed}?" if SHAPE.fullmatch(fixed) else ""
