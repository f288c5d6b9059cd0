"""What a frozen job says of itself, for readers that must not wait for the schema to be imported.

Owns the few fields that people are shown. A spec that cannot be read leaves them empty: a listing
never fails for it.
"""

import json
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.journal import JobRecord
from supervisor.runner.home import default_state_dir
from supervisor.views.plain import printable

SYSTEM_SHELVES = Path("/var/lib/supervise/users")  # the daemon that serves all users has one each


@dataclass(frozen=True, slots=True)
class Said:
    """Fields of a job's frozen spec. `params` holds what -p must give to mean the same job.

    Of a batch job: `calls` says what is called for which items, `out` is the absolute folder of its
    results, `cwd` the one that its items are named from. Both are empty for any other.
    """

    source: str = ""
    command: tuple[str, ...] = ()
    params: tuple[tuple[str, str], ...] = ()
    cwd: str = ""
    calls: str = ""
    out: str = ""

    @property
    def is_batch(self) -> bool:
        """Whether the job runs over items."""
        return bool(self.calls)


def said(record: JobRecord) -> Said:
    """The fields of a job that people are shown."""
    try:
        job = json.loads(record.spec)["job"]
        return Said(
            source=str(job["source"]),
            command=tuple(map(str, job["command"] or _trained(job))),
            params=tuple(_given(job)),
            **_batch(job),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Said()


def _batch(job: dict[str, Any]) -> dict[str, str]:
    cwd = _below(str(job["folder"]), str(job.get("cwd", ".")))
    if job.get("map"):
        given = job["map"]
        calls = f"{given['entry']} for {given['items']}"
    elif job.get("gradcam"):
        given = job["gradcam"]
        calls = f"{given['method']} of {given['model']} for {given['images']}"
    else:
        return {"cwd": cwd}
    return {"cwd": cwd, "calls": calls, "out": _below(cwd, str(given["out"]))}


def _trained(job: dict[str, Any]) -> tuple[str, ...]:
    """What stands for the command of a job that runs the built-in trainer."""
    return ("train", str(job["train"]["entry"])) if job.get("train") else ()


def _below(folder: str, path: str) -> str:
    # As supervisor/spec/paths.py does; that module would take too long to import here.
    return os.path.normpath(Path(folder) / os.path.expanduser(path))  # noqa: PTH111 - never raises


def _given(job: dict[str, Any]) -> list[tuple[str, str]]:
    """All params where one is not as declared: of an array, a default is one value of several."""
    declared = job.get("params") or {}
    values = [(name, str(text)) for name, text in (job.get("values") or {}).items()]
    usual = all(text == _text(declared.get(name, {}).get("default")) for name, text in values)
    return [] if usual else values


def _text(default: object) -> str | None:
    return str(default).lower() if isinstance(default, bool) else str(default)


def command_words(record: JobRecord) -> str:
    """The worker's command line as a person would type it; of a batch job, what it calls."""
    found = said(record)
    return printable(found.calls or shlex.join(found.command)) or "-"


def again(
    record: JobRecord, state_dir: Path, *more: str, here: Path | None = None, how: str = "run"
) -> str:
    """The command that continues a job, as it can be typed in `here`, or anywhere."""
    return _supervise(state_dir, how, _job_file(record, here), *_params(record), *more)


def verb(state_dir: Path, name: str, *arguments: str) -> str:
    """A command of ours, complete with the state folder where that is not the default."""
    return _supervise(state_dir, name, *arguments)


def is_default(state_dir: Path) -> bool:
    """Whether commands find the jobs of this folder without being told where it is."""
    return state_dir.parent == SYSTEM_SHELVES or state_dir == default_state_dir().absolute()


def _supervise(state_dir: Path, *words: str) -> str:
    elsewhere = not is_default(state_dir)
    folder = ("--state-dir", str(state_dir)) if elsewhere else ()
    return printable(shlex.join(("supervise", *folder, *words)))


def _job_file(record: JobRecord, here: Path | None) -> str:
    source = Path(said(record).source or f"{record.folder}/job.yaml")
    if here is None or not source.is_relative_to(here):
        return str(source)
    return str(source.relative_to(here))


def _params(record: JobRecord) -> list[str]:
    return [word for name, text in said(record).params for word in ("-p", f"{name}={text}")]
