"""Which modules a script is seen to need, so that they can be imported ahead of it.

Owns the guess for `warm: true`. It reads the script and runs nothing. Only libraries that are known
to be slow to import and safe to fork are guessed: a module of the user's own may change between two
attempts, and one that starts threads would spoil the zygote.
"""

import ast
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from supervisor.process.warm import prefix_of

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
TORCH = frozenset(SLOW[SLOW.index("torch") :])


def modules_of(argv: Sequence[str], cwd: Path) -> tuple[str, ...]:
    """The slow modules that a Python command imports at its beginning; torch where none is seen."""
    rest = argv[len(prefix_of(argv)) :]
    found: set[str] = set()
    with suppress(OSError, SyntaxError, ValueError):
        file = _file(rest, cwd)
        if file is not None:
            found = set(_imported(ast.parse(file.read_bytes())))
    if found & TORCH or not found & set(SLOW):
        found.add("torch")
    return tuple(name for name in SLOW if name in found)


def _file(rest: Sequence[str], cwd: Path) -> Path | None:
    """The file of the command, where that is plain."""
    if rest[:1] == ["-m"] or rest[:1] == ("-m",):
        path = cwd.joinpath(*rest[1].split("."))
        found = (path.with_suffix(".py"), path / "__main__.py")
        return next((file for file in found if file.is_file()), None)
    return None if not rest or rest[0].startswith("-") else cwd / rest[0]


def _imported(tree: ast.Module) -> Iterator[str]:
    """The top-level packages that a module imports, at whatever depth it says so."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (one.name.partition(".")[0] for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
