"""Whether a call can be told to a fresh interpreter, and how.

Owns pickling by reference, and what the child must know to find the parent's `__main__`. Starts
nothing. Invariant: a task that is returned names only what a fresh interpreter can import.
"""

import functools
import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# How pickle spells a reference to the running script, and the same in a child of this package.
MAIN_NAMES = (b"__main__", b"__mp_main__")


@dataclass(frozen=True, slots=True)
class Call:
    """A function with its arguments."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def bound(self) -> Callable[[], Any]:
        """Return the function with its arguments; it adds no frame to a traceback."""
        return functools.partial(self.function, *self.args, **self.kwargs)

    @property
    def name(self) -> str:
        """The function's name, for messages."""
        return getattr(self.function, "__qualname__", None) or repr(self.function)


def refuse_unguarded_main() -> None:
    """Raise RuntimeError while a child imports the script that started it."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None and getattr(process.current_process(), "_inheriting", False):
        raise RuntimeError(
            "isolated_process was called while a child was importing this script, to find "
            "a function in it: each child would start another. Keep the functions where they "
            "are, and put what the script does under\n\n    if __name__ == '__main__':\n"
        )


def task_by_reference(call: Call) -> bytes:
    """Return what call.py needs to make this call in a fresh interpreter.

    Raises TypeError, saying why, when it could not find the function or an argument.
    """
    try:
        body = pickle.dumps((call.function, call.args, dict(call.kwargs)), pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # pickling runs the arguments' own code, which may raise anything
        raise TypeError(f"{call.name} or an argument of it cannot be pickled: {error}") from error
    preparation: dict[str, object] = {
        # An empty entry means the current folder, which the child may leave.
        "sys_path": [entry or str(Path.cwd()) for entry in sys.path],
        "sys_argv": sys.argv,
    }
    if any(name in body for name in MAIN_NAMES):
        preparation.update(_main_reference(call))
    return pickle.dumps(preparation) + body


def _main_reference(call: Call) -> dict[str, str]:
    """Return how multiprocessing.spawn.prepare finds the script; it runs it as `__mp_main__`."""
    main = sys.modules["__main__"]
    name = getattr(getattr(main, "__spec__", None), "name", None)
    file = getattr(main, "__file__", None)
    typed = hasattr(sys, "ps1") or sys.flags.interactive  # what was typed is in no file
    if name is not None and not typed and not name.endswith("__main__"):
        return {"init_main_from_name": name}
    if name is None and not typed and file is not None and Path(file).is_file():
        return {"init_main_from_path": str(Path(file).absolute())}
    raise TypeError(f"{call.name} needs what was defined in a prompt or notebook, not in a file")
