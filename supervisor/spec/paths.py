"""Where the paths of a job lead on this machine.

Owns what is relative to what: `cwd` and `python` to the job file, all else to `cwd`.
Looks at no file.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from supervisor.spec.job import JobSpec


@dataclass(frozen=True, slots=True)
class Paths:
    """The absolute paths of a job; `python` stays a bare name where the file gives one."""

    cwd: Path
    checkpoints: Path | None
    pointer: Path | None
    done_file: Path | None
    python: str | None


def resolve(spec: JobSpec) -> Paths:
    """Resolve the paths of a job; `~` is the home of who runs this."""
    cwd = below(spec.folder, spec.cwd)
    checkpoints = below(cwd, spec.checkpoint.dir) if spec.checkpoint else None
    pointer = spec.checkpoint.pointer if spec.checkpoint else None
    return Paths(
        cwd=cwd,
        checkpoints=checkpoints,
        pointer=below(checkpoints, pointer) if checkpoints and pointer else None,
        done_file=below(cwd, spec.done.file) if spec.done.file else None,
        python=_interpreter(spec),
    )


def environment(spec: JobSpec, base: Mapping[str, str]) -> dict[str, str]:
    """Return the worker's environment: `base`, then `env`; the folder of `python` first on PATH.

    Without `python` the activated environment's interpreter is meant, and where none is activated,
    the one that runs this.
    """
    merged = {**base, **spec.env}
    python = resolve(spec).python or _default_interpreter(base)
    if python and "/" in python:
        folders = [str(Path(python).parent), merged.get("PATH", os.defpath)]
        merged["PATH"] = os.pathsep.join(filter(None, folders))
    return merged


def _default_interpreter(base: Mapping[str, str]) -> str | None:
    """Return our own interpreter, unless the user chose an environment: then PATH names his."""
    activated = base.get("VIRTUAL_ENV") or base.get("CONDA_PREFIX")
    return None if activated else sys.executable


def _interpreter(spec: JobSpec) -> str | None:
    if spec.python is None or "/" not in spec.python:
        return spec.python
    return str(below(spec.folder, spec.python))


def interpreter(spec: JobSpec, base: Mapping[str, str]) -> str:
    """Return the Python of the job: its own, else the activated environment's, else our own.

    Named by its path wherever that is known: its folder may hold others by the name of `python`.
    """
    return resolve(spec).python or _default_interpreter(base) or "python"


def below(folder: Path, path: str) -> Path:
    """Join without following links: `.venv/bin/python` is a link, and its place is what counts."""
    # Path.expanduser raises for a user nobody knows; this one leaves the text alone.
    expanded = os.path.expanduser(path)  # noqa: PTH111 - see above
    return Path(os.path.normpath(folder / expanded))
