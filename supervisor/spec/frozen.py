"""The frozen form of an accepted job: canonical JSON, written once and read by every runner.

Owns its format number. Reading it needs no YAML, no preset and no default of the day: all values
are in it. A frozen job of an earlier format means what it meant when it was accepted.
"""

import json
from collections.abc import Mapping
from typing import Any

from supervisor.spec.job import JobSpec
from supervisor.spec.problems import BadValue, Problem, SpecError
from supervisor.spec.rebuild import rebuild
from supervisor.spec.resources import Resources

FORMAT = 5
_FILE = "frozen job"


def freeze(spec: JobSpec) -> str:
    """Write a job as JSON; equal jobs give equal text."""
    job = spec.model_dump(mode="json", by_alias=True)
    return json.dumps({"format": FORMAT, "job": job}, sort_keys=True, separators=(",", ":"))


def thaw(text: str) -> JobSpec:
    """Read what `freeze` wrote. Raises SpecError for damaged text or one of a newer version."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _refused("this is not JSON", "the state folder is damaged") from error
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise _refused("this is not a frozen job", "the state folder is damaged")
    job = content.get("job")
    if not 1 <= content["format"] <= FORMAT:
        message = f"its format is {content['format']}, and this supervise knows {FORMAT}"
        raise _refused(message, "use the supervise that accepted the job, or a newer one")
    for later in _LATER[content["format"] - 1 :]:
        job = later(job)
    try:
        return rebuild(JobSpec, job)
    except BadValue as error:
        raise _refused(str(error), error.hint) from error


def _from_format_1(job: Any) -> Any:  # noqa: ANN401 - JSON of any shape
    """Give a job that was accepted when nothing could be asked for what asks for nothing."""
    if not isinstance(job, Mapping) or job.get("resources", {}) is not None:
        return job
    nothing = {field.alias or name: field.default for name, field in Resources.model_fields.items()}
    return {**job, "resources": nothing}


def _from_format_2(job: Any) -> Any:  # noqa: ANN401 - JSON of any shape
    """Give a job that was accepted before there were batch jobs the bounds that it has none of."""
    timeouts = job.get("timeouts") if isinstance(job, Mapping) else None
    if not isinstance(timeouts, Mapping):
        return job
    return {**job, "timeouts": {"item": None, "chunk": None, **timeouts}}


def _from_format_3(job: Any) -> Any:  # noqa: ANN401 - JSON of any shape
    """Let a job that was accepted before workers could report steps hear them, as a new one does.

    Where its signs are the default of that time; it has none more of them than it gives.
    """
    if not isinstance(job, Mapping) or job.get("liveness") != _SIGNS_OF_FORMAT_3:
        return job
    return {**job, "liveness": ["heartbeat", *_SIGNS_OF_FORMAT_3]}


def _from_format_4(job: Any) -> Any:  # noqa: ANN401 - JSON of any shape
    """Give a job that was accepted before there was a queue what says nothing to one."""
    return {**_NOTHING_TO_THE_QUEUE, **job} if isinstance(job, Mapping) else job


_NOTHING_TO_THE_QUEUE: dict[str, object] = {
    "priority": 0,
    "after": [],
    "key": None,
    "group": None,
    "hold_after": None,
    "array": {},
    "env_keep": [],
}
_SIGNS_OF_FORMAT_3 = ["output", "checkpoint", "gpu", "cpu"]
# What brings a frozen job of an earlier format to today's; of format n, all from the n-th on.
_LATER = (_from_format_1, _from_format_2, _from_format_3, _from_format_4)


def _refused(message: str, hint: str) -> SpecError:
    return SpecError([Problem(_FILE, message, hint)])
