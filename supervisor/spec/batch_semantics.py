"""What must hold between the fields of a batch job, and what only a batch job may say.

Owns these relations; semantics.py owns all others. Works on data of any shape, so that a slip in
one place does not keep the others from being reported.
"""

from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from supervisor.core.causes import Cause
from supervisor.spec.batch_kinds import MODEL_FILES, is_entry
from supervisor.spec.places import Where, dotted
from supervisor.spec.problems import BadValue, Finding, shown
from supervisor.spec.raw import Data, count_of, plain, section_of
from supervisor.spec.units import read_duration

BATCH = ("map", "gradcam")
_ONLY_BATCH = ("shrink_chunk", "quarantine_item")
_OF_MEMORY = (Cause.CUDA_OOM, Cause.GPU_MEMORY_LIMIT, Cause.HOST_OOM, Cause.HOST_MEMORY_LIMIT)
_PYTHONS = ("python", "python3")
_CHUNK_ITEMS = 16  # chunks.size where it is not given
# What a batch job has no use for -> why.
_UNSUITABLE = {
    "checkpoint": "a batch job has no checkpoints: what is finished is never run again",
    "resume": "a batch job goes on with the items that are left, by itself",
    "done": "a batch job is done when its items are",
    "progress": "the progress of a batch job is its finished items",
}


def is_batch(data: Data) -> bool:
    """Tell whether a job runs over items."""
    return any(data.get(name) is not None for name in BATCH)


def batch_relations(data: Data) -> Iterator[Finding]:
    """Yield every contradiction that has to do with batch jobs."""
    if is_batch(data):
        checks = _OF_BATCH
    elif data.get("command") is not None or data.get("train") is not None:
        checks = _OF_OTHERS
    else:
        return  # nobody knows what the job runs, and that is reported
    for check in checks:
        yield from check(data)


def _only_for_batch(data: Data) -> Iterator[Finding]:
    belongs = "it belongs to `map` and `gradcam`; remove it"
    places: list[Where] = [("chunks",), ("timeouts", "item"), ("timeouts", "chunk")]
    for where in places:
        *owners, name = map(str, where)
        if section_of(data, *owners).get(name) is not None:
            message = f"{dotted(where)}: this job has no items"
            yield Finding(where, message, belongs, key=True)
    for cause, action in section_of(data, "restart", "on").items():
        if action in _ONLY_BATCH:
            message = f"restart.on.{cause}: {action} is for batch jobs, and this one has no items"
            hint = "use resume, retry_once, resume_from_older, retry_other_gpu, hold or give_up"
            yield Finding(("restart", "on", cause), message, hint)


def _warm_is_python(data: Data) -> Iterator[Finding]:
    """Report modules to be imported ahead for a command that is not seen to be Python's."""
    command = data.get("command")
    if not plain(data.get("warm")) or not isinstance(command, list) or len(command) == 0:
        return
    program = command[0]
    if not isinstance(program, str):
        return
    if program not in _PYTHONS and program != data.get("python"):
        message = "warm: modules can be imported ahead for Python alone"
        is_path = PurePosixPath(program).name.startswith("python")
        hint = (
            f"name this interpreter too: python: {program}"
            if is_path
            else f"{shown(program)} is not python, python3, or what `python:` names; leave warm out"
        )
        yield Finding(("warm",), message, hint, key=True)


def _has_no_use_for(data: Data) -> Iterator[Finding]:
    from_preset = section_of(data, "checkpoint").get("preset") is not None
    for name, why in _UNSUITABLE.items():
        if data.get(name) is not None and not (name == "resume" and from_preset):
            yield Finding((name,), f"{name}: {why}", "remove it", key=True)


def _a_call_fits_a_chunk(data: Data) -> Iterator[Finding]:
    chunks = section_of(data, "chunks")
    batch = count_of(section_of(data, "map").get("batch"))
    size = count_of(chunks.get("size", _CHUNK_ITEMS))
    if batch is not None and size is not None and batch > size >= 1:
        message = f"map.batch: a call takes {batch} items, and a chunk has {size}"
        hint = f"write chunks: {{size: {batch}}}, or a smaller batch"
        yield Finding(("map", "batch"), message, hint)
    elif batch is not None and batch > 1 and chunks.get("isolation") == "item":
        message = f"map.batch: a call takes {batch} items, and chunks.isolation gives a worker one"
        yield Finding(("map", "batch"), message, "write isolation: chunk, or leave batch out")


def _an_item_fits_a_chunk(data: Data) -> Iterator[Finding]:
    timeouts = section_of(data, "timeouts")
    try:
        item_s, chunk_s = (read_duration(plain(timeouts.get(key))) for key in ("item", "chunk"))
    except BadValue:
        return  # reported where it stands, or not given
    if item_s > chunk_s:
        message = "timeouts: 'item' is longer than 'chunk'"
        yield Finding(("timeouts", "item"), message, "swap or raise one of them")


def _actions_fit_items(data: Data) -> Iterator[Finding]:
    for cause, action in section_of(data, "restart", "on").items():
        where = ("restart", "on", cause)
        is_known = cause in list(Cause)
        if action == "shrink_chunk" and is_known and cause not in _OF_MEMORY:
            message = f"restart.on.{cause}: a smaller chunk helps only where memory runs out"
            yield Finding(where, message, f"it is for {', '.join(_OF_MEMORY)}")
        if action == "resume_from_older":
            message = f"restart.on.{cause}: a batch job has no checkpoints"
            yield Finding(where, message, "use resume, quarantine_item, hold or give_up")


def _channels_agree(data: Data) -> Iterator[Finding]:
    given = section_of(data, "gradcam", "preprocess")
    mean, std = given.get("mean"), given.get("std")
    where = ("gradcam", "preprocess")
    for name, other in (("mean", std), ("std", mean)):
        if isinstance(given.get(name), list) and other is None:
            other_name = "std" if name == "mean" else "mean"
            message = f"gradcam.preprocess: {name} is given, and {other_name} is not"
            yield Finding((*where, name), message, f"add {other_name}", key=True)
    if isinstance(mean, list) and isinstance(std, list) and len(mean) != len(std):
        message = f"gradcam.preprocess: mean has {len(mean)} channels, and std has {len(std)}"
        yield Finding((*where, "std"), message, "one number for each channel of the image")
    for at, value in enumerate(std if isinstance(std, list) else ()):
        number = plain(value)
        if isinstance(number, (int, float)) and not isinstance(number, bool) and number <= 0:
            message = f"gradcam.preprocess.std[{at}]: each channel is divided by it"
            yield Finding((*where, "std", at), message, "a number above zero")


def _a_file_is_a_whole_model(data: Data) -> Iterator[Finding]:
    gradcam = section_of(data, "gradcam")
    model = gradcam.get("model")
    if not isinstance(model, str) or is_entry(model) or not model.endswith(MODEL_FILES):
        return
    for name in ("weights", "args"):
        if gradcam.get(name):
            message = f"gradcam.{name}: {shown(model)} is a whole model already"
            hint = "remove it, or name the function that builds the model: model: pkg:build"
            yield Finding(("gradcam", name), message, hint, key=True)


def _a_label_is_looked_up(data: Data) -> Iterator[Finding]:
    gradcam = section_of(data, "gradcam")
    target = plain(gradcam.get("target"))
    if isinstance(target, str) and target and not is_entry(target) and not gradcam.get("labels"):
        message = f"gradcam.target: nobody knows which class {shown(target)} is"
        hint = "name the file of labels, such as labels: labels.txt, or give the class's number"
        yield Finding(("gradcam", "target"), message, hint)


_Check = Callable[[Data], Iterator[Finding]]
_OF_OTHERS: tuple[_Check, ...] = (_only_for_batch, _warm_is_python)
_OF_BATCH: tuple[_Check, ...] = (
    _has_no_use_for,
    _a_call_fits_a_chunk,
    _an_item_fits_a_chunk,
    _actions_fit_items,
    _channels_agree,
    _a_file_is_a_whole_model,
    _a_label_is_looked_up,
)
