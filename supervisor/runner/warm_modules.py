"""Which modules a script is seen to need, so that they can be imported ahead of it.

Owns the guess for `warm: true`. It reads the script and runs nothing. Only libraries that are known
to be slow to import and safe to fork are guessed: a module of the user's own may change between two
attempts, and one that starts threads would spoil the zygote.
"""

import ast
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from supervisor.process.warm import prefix_of
from supervisor.spec.launch import TRAIN
from workers.protocol import WORKERS_FILE

SLOW = (
    "numpy",
    "scipy",
    "pandas",
    "sklearn",
    "torch",
    "torchvision",
    "torchaudio",
    "transformers",
    "accelerate",
    "datasets",
    "diffusers",
    "timm",
    "lightning",
    "pytorch_lightning",
)
# The first optimizer of a process imports torch._dynamo: 800 modules, 2 s.
OF_TRAINER = ("torch._dynamo", "workers.train")
TORCH = frozenset(SLOW[SLOW.index("torch") :])


def modules_of(argv: Sequence[str], cwd: Path) -> tuple[str, ...]:
    """The slow modules that a Python command imports at its beginning; torch where none is seen.

    Of the built-in trainer, those of the module that its entry is in.
    """
    rest = argv[len(prefix_of(argv)) :]
    trains = list(rest[:2]) == [WORKERS_FILE, TRAIN]
    found: set[str] = set()
    parts: tuple[str, ...] = ()
    with suppress(OSError, SyntaxError, ValueError):
        file = _file(rest, cwd)
        if file is not None:
            tree = ast.parse(file.read_bytes())
            found = set(_imported(tree))
            parts = tuple(_parts(tree)) if trains else ()
    if found & TORCH or not found & set(SLOW):
        found.add("torch")
    slow = tuple(name for name in SLOW if name in found)
    return (*slow, *parts, *OF_TRAINER) if trains else slow


def _parts(tree: ast.Module) -> Iterator[str]:
    """The parts of slow packages from which a module imports without condition, each once."""
    named = [one.module for one in tree.body if isinstance(one, ast.ImportFrom) and not one.level]
    for name in dict.fromkeys(named):
        if name is not None and "." in name and name.partition(".")[0] in SLOW:
            yield name


def _file(rest: Sequence[str], cwd: Path) -> Path | None:
    """The file of the command, where that is plain."""
    if list(rest[:2]) == [WORKERS_FILE, TRAIN]:
        return _module(json.loads(rest[2])["entry"].partition(":")[0], "__init__.py", cwd)
    if list(rest[:1]) == ["-m"]:
        return _module(rest[1], "__main__.py", cwd)
    return None if not rest or rest[0].startswith("-") else cwd / rest[0]


def _module(name: str, of_package: str, cwd: Path) -> Path | None:
    """The file of a module that lies below the job's folder, as its entries do."""
    path = cwd.joinpath(*name.split("."))
    found = (path.with_suffix(".py"), path / of_package)
    return next((file for file in found if file.is_file()), None)


def _imported(tree: ast.Module) -> Iterator[str]:
    """The top-level packages that a module imports, at whatever depth it says so."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (one.name.partition(".")[0] for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
