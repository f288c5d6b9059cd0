"""Starts a batch worker, a listing or a training: `python .../workers/__main__.py WHAT`.

Owns what `sys.path` and the name `workers` are in such a process. Never imports anything of the
user's. Invariant: the user's folder comes first and ours last, as if `python -m` had been used in
the user's folder, and still `workers` is this package, also where the user has one of that name.

It is named by its file because the interpreter is the user's and knows nothing of this package.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

# pathlib would take longer than all the rest.
HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - see above
HOME = os.path.dirname(HERE)  # noqa: PTH120 - see above
EXIT_USAGE = 2
TRAIN_WORDS = 3


def settle(path: list[str]) -> None:
    """Order the path, and make ours the package `workers`."""
    if path and _same(path[0], HERE):
        del path[0]  # which Python puts there for a file that it runs
    here = os.getcwd()  # noqa: PTH109 - see above
    if not getattr(sys.flags, "safe_path", False) and path[:1] != [here]:
        path.insert(0, here)
    if not _is_ours(sys.modules.get("workers")):
        for name in [name for name in sys.modules if name.partition(".")[0] == "workers"]:
            del sys.modules[name]  # whoever imported the user's keeps what it has
        path.insert(0, HOME)
        try:
            __import__("workers")
        finally:
            path.remove(HOME)
    if HOME not in path:
        path.append(HOME)


def _is_ours(package: object) -> bool:
    file = getattr(package, "__file__", None)
    return isinstance(file, str) and _same(os.path.dirname(file), HERE)  # noqa: PTH120 - see above


def _same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def main(argv: list[str]) -> NoReturn:
    """Be what the first argument says: map, list, or train with its plan."""
    settle(sys.path)
    # Only now is `workers` known to be this package.
    if argv[1:] == ["map"]:
        from workers.map import main as run  # noqa: PLC0415 - see above
    elif argv[1:] == ["list"]:
        from workers.listing import main as run  # noqa: PLC0415 - see above
    elif argv[1:2] == ["train"] and len(argv) == TRAIN_WORDS:
        _train(argv[2])
    else:
        print(
            "usage: workers/__main__.py map|list|train PLAN; it is started by supervise",
            file=sys.stderr,
        )
        sys.exit(EXIT_USAGE)
    run()


def _train(plan: str) -> NoReturn:
    try:
        from workers.train.worker import main as run  # noqa: PLC0415 - as in main
    except ModuleNotFoundError as missing:
        if missing.name != "torch":
            raise
        from workers import entry, session  # noqa: PLC0415 - as in main

        session.error(entry.EntryProblem(str(missing)))
        print(f"train: {missing}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    run(plan)


if __name__ == "__main__":
    main(sys.argv)
elif __name__ == "__mp_main__":
    settle(sys.path)  # in a child that the user's code spawned, so that it imports the same
