"""A daemon whose files are replaced while it runs goes on as what it was."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# What a daemon has in its memory when it begins to serve, as module -> file.
LOADED = """
import json, sys
import supervisor.daemon.main
from supervisor.daemon.desk import load_late
load_late()
files = {name: getattr(one, "__file__", None) for name, one in sys.modules.items()}
print(json.dumps({name: file or "" for name, file in files.items()}))
"""
ELSEWHERE = {"supervisor.daemon.clerk"}  # a process of its own, which imports its desk itself


def loaded() -> dict[str, str]:
    """Every module of a daemon, with its file."""
    told = subprocess.run([sys.executable, "-c", LOADED], check=True, capture_output=True)
    return dict(json.loads(told.stdout))


def imported_late(file: Path) -> Iterator[str]:
    """The modules that this one imports within its functions."""
    tree = ast.parse(file.read_text())
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for one in ast.walk(function):
            if isinstance(one, ast.ImportFrom) and one.module is not None:
                yield from (_within(one.module, alias.name) for alias in one.names)
            elif isinstance(one, ast.Import):
                yield from (alias.name for alias in one.names)


def _within(package: str, name: str) -> str:
    """`from package import name`: a module of that package, or the package itself."""
    here = Path(__file__).parents[2] / package.replace(".", "/")
    return f"{package}.{name}" if (here / f"{name}.py").exists() else package


def test_no_module_of_ours_is_loaded_after_the_start() -> None:
    """One of the next version would not fit the others, and would be loaded on some Tuesday."""
    modules = loaded()
    ours = {name: file for name, file in modules.items() if name.startswith("supervisor.")}
    late = {
        (name, wanted)
        for name, file in ours.items()
        if name not in ELSEWHERE
        for wanted in imported_late(Path(file))
        if wanted.startswith("supervisor.")
    }
    assert ("supervisor.daemon.desk", "supervisor.daemon.desk_intake") in late
    assert [(name, wanted) for name, wanted in sorted(late) if wanted not in modules] == []
