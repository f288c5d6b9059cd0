"""What must hold between the fields of a job file.

Owns the relations; single values are the models' business. Works on data of any shape, so that a
slip in one place does not keep the others from being reported.
"""

import shlex
from collections.abc import Callable, Iterator, Mapping

from supervisor.core.causes import Cause
from supervisor.spec.batch_semantics import batch_relations, is_batch
from supervisor.spec.flow import in_flow
from supervisor.spec.problems import BadValue, Finding
from supervisor.spec.queue_semantics import queue_relations
from supervisor.spec.raw import Data, plain, section_of
from supervisor.spec.train_semantics import train_relations
from supervisor.spec.units import read_duration, read_size

_WHAT_TO_RUN = ("command", "train", "gradcam", "map")
_SHELL = ("&&", "||", "|", ">", "<", ";", "$", "`", "*")
_HOW_TO_RESUME = """say in `resume` how the script picks a checkpoint up, one of
resume: {argv: [--resume, "{path}"]}            its command, with arguments added
resume: {mode: replace, argv: [...]}            another command
resume: {env: {RESUME_FROM: "{path}"}}          an environment variable
resume: {mode: inplace}                         the script finds its latest checkpoint itself
resume: {mode: none}                            every restart begins at zero
or name a preset: hf, detectron2, mmengine, cornernet, dcp, session"""
_WEAK_SIGNS = ("gpu", "cpu")
_ABOUT_GPUS = ("gpu_memory", "gpu_memory_soft", "share_gpu")
_VISIBLE = "CUDA_VISIBLE_DEVICES"
# mode: (needs, may have as well)
_MODE_KEYS = {
    "append": ("argv", ("env",)),
    "replace": ("argv", ("env",)),
    "env": ("env", ()),
    "inplace": ("", ("argv", "env")),
    "none": ("", ()),
}


def relations(data: Data) -> Iterator[Finding]:
    """Yield every contradiction between the fields; `data` has presets filled in already."""
    for check in _CHECKS:
        yield from check(data)


def _one_thing_to_run(data: Data) -> Iterator[Finding]:
    given = [name for name in _WHAT_TO_RUN if data.get(name) is not None]
    if not given:
        hint = "say what to run, such as\ncommand: [python, train.py]"
        yield Finding(("command",), "the job has no 'command'", hint, key=True)
    for name in given[1:]:
        message = f"'{name}' and '{given[0]}' are both given; a job runs one thing"
        yield Finding((name,), message, f"keep one of {', '.join(given)}", key=True)


def _command_is_a_list(data: Data) -> Iterator[Finding]:
    command = data.get("command")
    if isinstance(command, str):
        yield Finding(
            ("command",), "the command is a list, one entry per argument", _as_list(command)
        )
    elif isinstance(command, list) and command and command[0] == "":
        yield Finding(("command", 0), "the program's name is empty", "such as [python, train.py]")


def _as_list(command: str) -> str:
    try:
        words = shlex.split(command)
    except ValueError:
        words = []
    if not words or any(sign in command for sign in _SHELL):
        words = ["bash", "-c", command]
    return f"write command: {in_flow(words)}"


def _resume_fits_its_mode(data: Data) -> Iterator[Finding]:
    resume = section_of(data, "resume")
    mode = resume.get("mode")
    if not isinstance(mode, str) or mode not in _MODE_KEYS:
        return
    needs, may = _MODE_KEYS[mode]
    if needs and not resume.get(needs):
        example = (
            'argv: [--resume, "{path}"]' if needs == "argv" else 'env: {RESUME_FROM: "{path}"}'
        )
        message = f"resume.mode {mode} needs '{needs}'"
        yield Finding(("resume", "mode"), message, f"such as {example}")
    for key in ("argv", "env"):
        if resume.get(key) and key != needs and key not in may:
            message = f"resume.{key} is not used in the mode {mode}"
            yield Finding(("resume", key), message, "remove it, or choose another mode", key=True)


def _resume_has_checkpoints(data: Data) -> Iterator[Finding]:
    mode = section_of(data, "resume").get("mode")
    has_checkpoints = data.get("checkpoint") is not None
    if is_batch(data):
        return  # that it has checkpoints at all is reported
    are_sections = isinstance(data.get("checkpoint"), Mapping) and isinstance(
        data.get("resume", {}), (Mapping, type(None))
    )
    if are_sections and mode is None:
        message = "there are checkpoints, and nothing says how to resume from one"
        yield Finding(("checkpoint",), message, _HOW_TO_RESUME, key=True)
    if not has_checkpoints and isinstance(mode, str) and mode in _MODE_KEYS and mode != "none":
        message = "there is something to resume, and no 'checkpoint' section to find it"
        hint = "such as checkpoint: {dir: runs, glob: '*.pt'}"
        yield Finding(("resume",), message, hint, key=True)


def _pattern_fits_parse(data: Data) -> Iterator[Finding]:
    progress = section_of(data, "progress")
    parse, pattern = progress.get("parse"), progress.get("pattern")
    if parse == "regex" and pattern is None:
        hint = r"such as pattern: 'step (?P<step>\d+)/(?P<total>\d+)'"
        yield Finding(("progress", "parse"), "progress.parse regex needs 'pattern'", hint)
    if pattern is not None and parse in ("auto", "tqdm"):
        message = f"progress.pattern is not used with parse: {parse}"
        yield Finding(("progress", "pattern"), message, "write parse: regex", key=True)


def _done_says_something(data: Data) -> Iterator[Finding]:
    done = data.get("done")
    if isinstance(done, Mapping) and all(value is None for value in done.values()):
        hint = "give step, file, regex or exit; without `done`, exit code 0 is done"
        yield Finding(("done",), "done says nothing", hint, key=True)


def _signs_can_appear(data: Data) -> Iterator[Finding]:
    signs = data.get("liveness")
    if not isinstance(signs, list) or not signs:
        return
    strong = [sign for sign in signs if sign not in _WEAK_SIGNS]
    if not strong:
        message = "a busy GPU or CPU stretches the deadline, and nothing here shows progress"
        yield Finding(("liveness",), message, "add heartbeat, output or checkpoint to the list")
    elif all(sign == "checkpoint" for sign in strong) and data.get("checkpoint") is None:
        message = "checkpoints are the only sign of progress, and there is no 'checkpoint' section"
        yield Finding(("liveness",), message, "add output to the list, or the section")


def _gpus(data: Data) -> int | None:
    """Return how many GPUs are asked for; None where that cannot be read."""
    resources = data.get("resources", {})
    count = plain(resources.get("gpus", 0)) if isinstance(resources, Mapping) else None
    return count if isinstance(count, int) and not isinstance(count, bool) else None


def _gpus_are_asked_for(data: Data) -> Iterator[Finding]:
    if _gpus(data) != 0:
        return
    resources = section_of(data, "resources")
    for key in _ABOUT_GPUS:
        if plain(resources.get(key)) not in (None, False):
            message = f"resources.{key} needs a GPU, and the job asks for none"
            hint = "add gpus: 1 to resources, or remove it"
            yield Finding(("resources", key), message, hint, key=True)
    for cause, action in section_of(data, "restart", "on").items():
        if action == "retry_other_gpu":
            message = f"restart.on.{cause}: there is no other GPU where the job asks for none"
            hint = "write resources: {gpus: 1}, or choose another action"
            yield Finding(("restart", "on", cause), message, hint)


def _a_shared_gpu_is_divided(data: Data) -> Iterator[Finding]:
    resources = section_of(data, "resources")
    is_shared = plain(resources.get("share_gpu")) is True
    if is_shared and resources.get("gpu_memory") is None and _gpus(data) != 0:
        message = "resources.share_gpu needs 'gpu_memory'"
        hint = (
            "such as gpu_memory: 20GiB\n"
            "without it nobody knows whether another job fits on the GPU beside this one"
        )
        yield Finding(("resources", "share_gpu"), message, hint, key=True)


def _soft_is_below_hard(data: Data) -> Iterator[Finding]:
    resources = section_of(data, "resources")
    try:
        soft, hard = (
            read_size(plain(resources.get(key))) for key in ("gpu_memory_soft", "gpu_memory")
        )
    except BadValue:
        return  # reported where it stands, or not given
    if soft >= hard:
        message = "resources: 'gpu_memory_soft' is not smaller than 'gpu_memory'"
        hint = "the worker would be killed before it is asked to save: lower it, or raise the other"
        yield Finding(("resources", "gpu_memory_soft"), message, hint)


def _one_chooses_the_gpus(data: Data) -> Iterator[Finding]:
    if not _gpus(data):
        return
    for section in (("env",), ("resume", "env")):
        if _VISIBLE in section_of(data, *section):
            message = f"{_VISIBLE} names GPUs, and resources.gpus lets supervise choose them"
            hint = (
                "remove it here, and the worker sees the GPUs that it holds,\n"
                "or remove resources.gpus, and choose them yourself"
            )
            yield Finding((*section, _VISIBLE), message, hint, key=True)


def _backoff_is_ordered(data: Data) -> Iterator[Finding]:
    backoff = section_of(data, "restart", "backoff")
    if not backoff:
        return
    try:
        initial_s = read_duration(backoff.get("initial", 1))
        max_s = read_duration(backoff.get("max", 300))
    except BadValue:
        return  # reported where it stands
    if initial_s > max_s:
        key = "initial" if "initial" in backoff else "max"
        message = "restart.backoff: 'initial' is longer than 'max'"
        yield Finding(("restart", "backoff", key), message, "swap or raise one of them")


def _endings_are_failures(data: Data) -> Iterator[Finding]:
    for cause in section_of(data, "restart", "on"):
        if cause in (Cause.COMPLETED, Cause.STOPPED):
            message = f"restart.on: '{cause}' is not a failure, so nothing is restarted"
            yield Finding(("restart", "on", cause), message, "remove it", key=True)


_CHECKS: tuple[Callable[[Data], Iterator[Finding]], ...] = (
    _one_thing_to_run,
    _command_is_a_list,
    _resume_fits_its_mode,
    _resume_has_checkpoints,
    _pattern_fits_parse,
    _done_says_something,
    _signs_can_appear,
    _gpus_are_asked_for,
    _a_shared_gpu_is_divided,
    _soft_is_below_hard,
    _one_chooses_the_gpus,
    _backoff_is_ordered,
    _endings_are_failures,
    batch_relations,
    train_relations,
    queue_relations,
)
