"""The effective plan of a job, for `supervise check`.

Owns the page: every field with its value and where that came from, then what will happen in words.
The page is itself a job file that says the same, but for secrets, which are masked; of an array it
is the first job.
"""

import shlex
from collections.abc import Iterator

from supervisor.core.cadence import LONGEST_S, SHORTEST_S
from supervisor.spec.batch import batch_of
from supervisor.spec.batch_words import batch_in_words
from supervisor.spec.effective import effective, shown
from supervisor.spec.flow import as_key, in_flow
from supervisor.spec.job import JobSpec
from supervisor.spec.launch import Launch, ResumePoint, first_launch, resume_launch
from supervisor.spec.paths import resolve
from supervisor.spec.places import Where
from supervisor.spec.presets import PRESETS
from supervisor.spec.problems import printable
from supervisor.spec.queue_sections import count_jobs
from supervisor.spec.train import train_of
from supervisor.spec.train_words import train_in_words
from supervisor.spec.units import write_duration

_STEP = 1200  # of the checkpoint that stands for all in the example
_SIGNS = {
    "heartbeat": "reported step",
    "output": "output",
    "checkpoint": "growth of the checkpoints",
}
_WEAK_SIGNS = {"gpu": "its GPUs", "cpu": "its processes"}
_LEARNED = f"{write_duration(SHORTEST_S)} to {write_duration(LONGEST_S)} (by its own pace)"


def plan(spec: JobSpec) -> str:
    """Write the plan of a job; after thaw without the remarks on where values came from."""
    spec = shown(spec)
    first = spec.model_copy(update={"array": {}})
    return "\n".join([*_fields(first), "", *_in_words(spec)]) + "\n"


def _fields(spec: JobSpec) -> Iterator[str]:
    opened: Where = ()
    for where, value in effective(spec):
        parents = where[:-1]
        for depth in range(len(parents)):
            if parents[: depth + 1] != opened[: depth + 1]:
                yield f"{'  ' * depth}{as_key(parents[depth])}:"
        opened = parents
        remark = _remark(spec, where)
        line = f"{'  ' * len(parents)}{as_key(where[-1])}: {value}"
        yield f"{line}  # {remark}" if remark else line


def _remark(spec: JobSpec, where: Where) -> str:
    source = spec.written
    if where[0] == "params" and where[-1] in spec.values:
        return f"= {printable(spec.values[str(where[-1])])}"
    if not source.values or where in source.values:
        return ""
    return next(
        (
            source.notes[where[:end]]
            for end in range(len(where), 0, -1)
            if where[:end] in source.notes
        ),
        "default",
    )


def _in_words(spec: JobSpec) -> Iterator[str]:
    yield from _array(spec)
    batch = batch_of(spec)
    if batch is not None:
        yield from batch_in_words(spec, batch)
        return
    train = train_of(spec)
    if train is not None:
        yield from train_in_words(train)
    else:
        yield f"# first attempt: {_shell(first_launch(spec))}"
        yield f"# a restart:     {_restart(spec)}"
    yield from _hung(spec)


def _array(spec: JobSpec) -> Iterator[str]:
    if not spec.array:
        return
    jobs, of = count_jobs(spec.array), "combination" if len(spec.array) > 1 else "value"
    yield f"# array:         {jobs:,} jobs, one for each {of}; this is the first of them"
    for name, values in spec.array.items():
        yield f"#                {as_key(name)}: {in_flow(values)}"


def _hung(spec: JobSpec) -> Iterator[str]:
    startup = write_duration(spec.timeouts.startup_s)
    heartbeat_s = spec.timeouts.heartbeat_s
    heartbeat = _LEARNED if isinstance(heartbeat_s, str) else write_duration(heartbeat_s)
    missing = {"checkpoint": not spec.checkpoint, "gpu": not spec.resources.gpus}
    signs = [sign for sign in dict.fromkeys(spec.liveness) if not missing.get(sign)]
    strong = ", no ".join(_SIGNS[sign] for sign in signs if sign in _SIGNS)
    strong = " and no ".join(strong.rsplit(", no ", 1))
    yield f"# hung:          no {strong} for {heartbeat}, or none within {startup} of the start"
    if busy := [_WEAK_SIGNS[sign] for sign in signs if sign in _WEAK_SIGNS]:
        yield f"#                later, within bounds, while {' and '.join(busy)} are at work"


def _restart(spec: JobSpec) -> str:
    folder = resolve(spec).checkpoints
    if spec.resume.mode == "none" or folder is None:
        return "the same command, from the beginning: nothing is resumed"
    launch = resume_launch(spec, ResumePoint(folder / _example_name(spec), _STEP))
    own = ", and the script finds its latest checkpoint" if spec.resume.mode == "inplace" else ""
    return f"{_shell(launch)}{own}"


def _example_name(spec: JobSpec) -> str:
    checkpoint = spec.checkpoint
    preset = PRESETS.get(checkpoint.preset or "") if checkpoint else None
    if checkpoint is None or (preset and preset.checkpoint["glob"] == checkpoint.glob):
        return preset.example if preset else "CHECKPOINT"
    name = checkpoint.glob.removeprefix("**/").replace("[0-9]", "").replace("*", str(_STEP), 1)
    return "CHECKPOINT" if any(char in name for char in "*?[]") else name


def _shell(launch: Launch) -> str:
    assigned = [f"{name}={shlex.quote(value)}" for name, value in launch.env.items()]
    return printable(" ".join([*assigned, shlex.join(launch.argv)]))
