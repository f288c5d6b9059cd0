"""What a job needs of this machine before anything is started.

Owns the look at the file system; changes nothing. What it reports points at the job file's lines.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from supervisor.spec.batch_kinds import is_entry
from supervisor.spec.job import JobSpec
from supervisor.spec.paths import Paths, environment, resolve
from supervisor.spec.problems import Finding, Problem, closest, locate, shown
from supervisor.spec.train import train_of

_INTERPRETERS = ("python", "bash", "sh")
_SCRIPT_SUFFIXES = (".py", ".sh")


def check_world(spec: JobSpec, environ: Mapping[str, str] | None = None) -> list[Problem]:
    """Return what is missing: the working directory, the interpreter, the program, its files.

    `environ` is the environment the worker starts from; default: that of this process.
    """
    paths = resolve(spec)
    env = environment(spec, os.environ if environ is None else environ)
    findings = [*_folder(spec), *_cwd(spec, paths.cwd), *_python(paths, env)]
    if paths.cwd.is_dir():
        findings += [*_program(spec, paths, env), *_script(spec, paths), *_inputs(spec, paths)]
        findings += _out(spec)
    return list(locate(findings, spec.written))


def _folder(spec: JobSpec) -> Iterator[Finding]:
    """Report a folder that cannot be remembered as text; a job is known by name and folder."""
    name = str(spec.folder)
    if not name.isascii() and "\ufffd" in os.fsencode(name).decode(errors="replace"):
        told = os.fsencode(name).decode(errors="backslashreplace")
        yield Finding((), f"the name of the folder {told} is not UTF-8", "rename the folder")


def _cwd(spec: JobSpec, cwd: Path) -> Iterator[Finding]:
    if not cwd.exists():
        hint = _existing_neighbour(cwd) or "it is relative to the job file"
        yield Finding(("cwd",), f"cwd: there is no folder {cwd}", hint)
    elif not cwd.is_dir():
        yield Finding(("cwd",), f"cwd: {cwd} is not a folder", "name the folder to run in")
    elif not os.access(cwd, os.R_OK | os.X_OK):
        yield Finding(("cwd",), f"cwd: you may not enter {cwd}", f"ls -ld {spec.cwd}")


def _python(paths: Paths, env: Mapping[str, str]) -> Iterator[Finding]:
    if paths.python is None:
        return
    where = ("python",)
    if "/" not in paths.python:
        if shutil.which(paths.python, path=_search(paths, env)) is None:
            message = f"python: no {shown(paths.python)} on the PATH"
            yield Finding(where, message, "give a path, such as .venv/bin/python")
    elif not Path(paths.python).exists():
        yield Finding(
            where, f"python: there is no {paths.python}", "it is relative to the job file"
        )
    elif not _is_program(paths.python):
        yield Finding(where, f"python: {paths.python} cannot be executed", "name an interpreter")


def _program(spec: JobSpec, paths: Paths, env: Mapping[str, str]) -> Iterator[Finding]:
    where = ("command", 0)
    for program in (spec.command or ())[:1]:
        if "/" not in program:
            if shutil.which(program, path=_search(paths, env)) is None:
                yield Finding(
                    where,
                    f"command: no program {shown(program)} on the PATH",
                    _path(program, paths),
                )
            continue
        path = paths.cwd / program
        if not path.exists():
            hint = _existing_neighbour(path) or f"it is relative to cwd, {paths.cwd}"
            yield Finding(where, f"command: there is no {path}", hint)
        elif path.is_dir():
            yield Finding(where, f"command: {path} is a folder", "name the program in it")
        elif not _is_program(str(path)):
            yield Finding(where, f"command: {path} is not executable", _how_to_execute(program))


def _path(program: str, paths: Paths) -> str:
    if (paths.cwd / program).is_file():
        return f"there is one in cwd: write ./{program}, or name its interpreter first"
    return "install it, or give its path, or set PATH in `env`"


def _how_to_execute(program: str) -> str:
    if program.endswith(".py"):
        return f"write [python, {program}], or chmod +x {program}"
    return f"chmod +x {program}, or name its interpreter first"


def _script(spec: JobSpec, paths: Paths) -> Iterator[Finding]:
    """Report a missing script: `python train.py` would start and fail at once, every time."""
    program, script = (*(spec.command or ()), "", "")[:2]
    if not Path(program).name.startswith(_INTERPRETERS) or not script.endswith(_SCRIPT_SUFFIXES):
        return
    path = paths.cwd / script
    if not path.exists():
        hint = _existing_neighbour(path) or f"it is relative to cwd, {paths.cwd}"
        yield Finding(("command", 1), f"command: there is no {path}", hint)


def _inputs(spec: JobSpec, paths: Paths) -> Iterator[Finding]:
    """Report files of a batch job that are not there; patterns and functions are read later."""
    named: list[tuple[str, str, str | None]] = []
    if spec.map is not None and not _is_open(spec.map.items):
        named.append(("map", "items", spec.map.items))
    if (given := spec.gradcam) is not None:
        named += [
            ("gradcam", "images", None if _is_open(given.images) else given.images),
            ("gradcam", "model", None if is_entry(given.model) else given.model),
            ("gradcam", "weights", given.weights),
            ("gradcam", "labels", given.labels),
        ]
    for section, name, text in named:
        if text is None:
            continue
        path = paths.cwd / os.path.expanduser(text)  # noqa: PTH111 - never raises
        where = (section, name)
        if not path.exists():
            hint = _existing_neighbour(path) or f"it is relative to cwd, {paths.cwd}"
            yield Finding(where, f"{section}.{name}: there is no {path}", hint)
        elif path.is_dir():
            hint = f"such as {text.rstrip('/')}/*" if name in ("items", "images") else "name a file"
            yield Finding(where, f"{section}.{name}: {path} is a folder", hint)


def _out(spec: JobSpec) -> Iterator[Finding]:
    """Report a training job that could not write what it is run for."""
    plan = train_of(spec)
    if plan is None:
        return
    where = ("train", "out")
    nearest = next(folder for folder in (plan.out, *plan.out.parents) if os.path.lexists(folder))
    if not nearest.is_dir():
        hint = "name a folder, or one that is yet to be made"
        yield Finding(where, f"train.out: {nearest} is not a folder", hint)
    elif not os.access(nearest, os.W_OK | os.X_OK):
        hint = f"ls -ld {nearest}; name another folder, or have it made writable"
        yield Finding(where, f"train.out: you may not write into {nearest}", hint)


def _is_open(items: str) -> bool:
    """Tell whether items are a pattern or a function, and no file."""
    return bool(set(items) & set("*?[")) or is_entry(items)


def _search(paths: Paths, env: Mapping[str, str]) -> str:
    """Return the PATH with its relative entries below the job's cwd, where the job sees them."""
    entries = env.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(str(paths.cwd / entry) for entry in entries)


def _is_program(path: str) -> bool:
    return Path(path).is_file() and os.access(path, os.X_OK)


def _existing_neighbour(path: Path) -> str:
    try:
        near = closest(path.name, [entry.name for entry in path.parent.iterdir()])
    except OSError:
        return ""
    return f"did you mean {path.parent / near}?" if near else ""
