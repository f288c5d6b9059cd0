"""Questions that take a job in: what it is, and that it was accepted.

Owns the check of what others froze, and the order of acceptance. Invariant: a job that the journal
has is complete: its surroundings were durable before, so that its runner can start at any time.
"""

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from supervisor.core.causes import State
from supervisor.daemon.contracts import Conflict, Json, Refusal, Unacceptable
from supervisor.daemon.desk_fields import (
    Arguments,
    Field,
    either,
    job_id,
    mapping,
    needed,
    number,
    read,
    shown,
    text,
)
from supervisor.daemon.desk_shelf import OpenShelf
from supervisor.journal import JobRecord
from supervisor.runner import outputs, remove, surroundings
from supervisor.runner.alive import runner_lives
from supervisor.runner.held import held
from supervisor.runner.home import JobFolder
from supervisor.runner.opening import job_id as job_id_of
from supervisor.runner.settings import Settings
from supervisor.spec.claims import claims, needs
from supervisor.spec.frozen import freeze, thaw
from supervisor.spec.job import JobFile, JobSpec
from supervisor.spec.load import load_text
from supervisor.spec.problems import SpecError
from supervisor.spec.train import train_of

LONGEST_SPEC = 4 * 1024 * 1024
MOST_BYTES = 1 << 60
MOST = {"gpus": 1 << 16, "gpu_memory_bytes": MOST_BYTES, "cpus": 1 << 22}
MOST |= {"memory_bytes": MOST_BYTES, "share_gpu": 1}
# What the queue reads of a job; a frozen one was checked by whoever froze it, perhaps.
CHECKED = ("name", "priority", "after", "key", "group", "hold_after")
ACCEPTED = {
    "id": needed(job_id),
    "spec": needed(text(LONGEST_SPEC)),
    "surroundings": needed(either(mapping)),
    "created_s": needed(number),
    "fresh_of": Field(either(job_id)),
}


def examine(shelf: OpenShelf, given: Arguments) -> Json:
    """Say what a job is and what it needs, or why it cannot be one. Changes nothing.

    Raises:
        Unacceptable: with every problem in it.
    """
    spec = _thawed(given["spec"]) if given["spec"] is not None else _loaded(given)
    if spec.array:
        raise Unacceptable(
            f"{spec.name}: its array makes several jobs, and this names none of them. "
            "`supervise submit job.yaml` makes them all; or give each param of it one value."
        )
    folder = str(spec.folder)
    generation = shelf.next_generation(spec.name, folder)
    _refuse_running(shelf, job_id_of(spec.name, folder, generation - 1))
    return {
        "spec": freeze(spec),
        "name": spec.name,
        "folder": folder,
        "needs": dict(needs(spec)),
        "priority": spec.priority,
        "after": list(spec.after),
        "key": spec.key,
        "group": spec.group,
        "hold_after": spec.hold_after,
        "claims": list(dict.fromkeys(map(os.path.realpath, claims(spec)))),  # one folder, one name
        "env_keep": list(spec.env_keep),
        "stop_s": spec.timeouts.stop_s,
        "generation": generation,
    }


def _refuse_running(shelf: OpenShelf, before: str) -> None:
    """Leave a job alone that is running in somebody's terminal: the queue knows nothing of it.

    Raises:
        Conflict: a runner has it that no daemon started.
    """
    journal = shelf.reading()
    record = None if journal is None else journal.job(before)
    if record is None or shelf.folder(before).surroundings.exists() or not runner_lives(record):
        return
    raise Conflict(
        f"{before} is this job, and was started by `supervise run`: it is running. Wait for it "
        f"(supervise wait {before}), or stop it first: supervise stop {before}"
    )


def accept(shelf: OpenShelf, given: Arguments) -> Json:
    """Take jobs in: surroundings first, then the journal. Asked again, it changes nothing.

    Raises:
        Conflict: a job of that id is there and is another, or the one before it runs.
        Unacceptable: a spec or the surroundings cannot be read, or old outputs cannot be kept
            apart.
    """
    jobs = [read(f"accept: jobs[{at}]", ACCEPTED, one) for at, one in enumerate(given["jobs"])]
    for one in jobs:
        _accept(shelf, one)
    return {}


def _accept(shelf: OpenShelf, new: Arguments) -> None:
    journal = shelf.writing()
    known = journal.job(new["id"])
    if known is not None and known.spec == new["spec"]:
        return
    if known is not None:
        raise Conflict(f"there is a job {known.id} already, and it is another one")
    spec = _thawed(new["spec"])
    folder = shelf.folder(new["id"])
    if remove.is_begun(folder):  # of an earlier job of that id; a crash came in between
        with held(folder):
            remove.finish(shelf.path, journal, new["id"])
    if new["fresh_of"] is not None:
        _keep_apart(shelf, spec, new["fresh_of"])
    with held(folder):
        if new["surroundings"] is not None:
            _write(folder, new["surroundings"])
        journal.create_job(_record(new, spec))


def _write(folder: JobFolder, given: Mapping[str, Json]) -> None:
    try:
        surroundings.write(folder.path, given)
    except surroundings.SurroundingsUnusable as error:
        raise Unacceptable(str(error)) from error


def _keep_apart(shelf: OpenShelf, spec: JobSpec, old_id: str) -> None:
    """Give what an earlier job wrote another name, as `run --fresh` does."""
    old = shelf.record(old_id)
    settings, train = Settings.of(spec), train_of(spec)
    try:
        with held(shelf.folder(old_id)):
            outputs.save_memory(Settings.of(thaw(old.spec)).layout, shelf.path, old_id)
            outputs.keep_apart(settings.layout, spec.folder, None if train is None else train.out)
            outputs.empty_memory(shelf.path, old_id)
    except outputs.FreshImpossible as error:
        raise Unacceptable(str(error)) from error


def _record(new: Arguments, spec: JobSpec) -> JobRecord:
    return JobRecord(
        id=new["id"],
        name=spec.name,
        folder=str(spec.folder),
        spec=new["spec"],
        created_s=new["created_s"],
        updated_s=time.time(),
        state=State.QUEUED,
        why="",
        step=None,
        total=None,
        runner_pid=None,
        runner_ticks=None,
        boot_id=None,
    )


def _loaded(given: Arguments) -> JobSpec:
    """Read a job that came as data. Raises Refusal."""
    if given["job"] is None or given["folder"] is None:
        raise Refusal("examine: either spec, or job and folder")
    folder = Path(given["folder"])
    if not folder.is_absolute() or not folder.is_dir():
        raise Unacceptable(f"there is no folder {shown(given['folder'])} (an absolute path)")
    try:
        content = json.dumps(given["job"], ensure_ascii=False)
    except (ValueError, RecursionError) as error:
        raise Unacceptable(f"the job is nested too deeply, or no JSON: {error}") from error
    texts = _texts(given["params"] or {})
    with _all_problems():
        return load_text(content, folder / "job.yaml", texts)


@contextmanager
def _all_problems() -> Iterator[None]:
    try:
        yield
    except SpecError as error:
        raise Unacceptable(str(error)) from error


def _texts(params: Mapping[str, Json]) -> dict[str, str]:
    """Values of params as `-p` would have them."""
    for name, value in params.items():
        if not isinstance(value, str | int | float):
            raise Refusal(f"examine: params: {name} is neither text nor number: {shown(value)}")
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in params.items()
    }


def _thawed(frozen: str) -> JobSpec:
    """Read a frozen job, whoever froze it. Raises Unacceptable."""
    with _all_problems():
        spec = thaw(frozen)
    wrong = next(_out_of_bounds(spec), None)
    if wrong is not None:
        raise Unacceptable(f"this is no job that supervise froze: {wrong}")
    return spec


def _fits(name: str, value: object) -> bool:
    """Whether the schema allows a field this value."""
    try:
        _validator(name).validate_python(value)
    except ValidationError:
        return False
    return True


@cache
def _validator(name: str) -> TypeAdapter[Any]:
    field = JobFile.model_fields[name]
    kind: Any = Annotated[field.annotation, *field.metadata, None]  # None: there is no metadata
    return TypeAdapter(kind)


def _out_of_bounds(spec: JobSpec) -> Iterator[str]:
    """What thaw does not look at, as it trusts the journal: the bounds of what the queue reads."""
    for name in CHECKED:
        value = getattr(spec, name)
        if value is not None and not _fits(name, value):
            yield f"{name} is {shown(value)}"
    if not spec.folder.is_absolute() or "\0" in str(spec.folder):
        yield f"folder is {shown(str(spec.folder))}"
    if not 0 <= spec.timeouts.stop_s < math.inf:
        yield f"timeouts.stop is {spec.timeouts.stop_s}"
    for name, amount in needs(spec).items():
        if amount is not None and not 0 <= amount <= MOST[name]:
            yield f"resources: {name} is {shown(amount)}"
