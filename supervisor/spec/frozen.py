"""The frozen form of an accepted job: canonical JSON, written once and read by every runner.

Owns its format number. Reading it needs no YAML, no preset and no default of the day: all values
are in it.
"""

import json

from supervisor.spec.job import JobSpec
from supervisor.spec.problems import BadValue, Problem, SpecError
from supervisor.spec.rebuild import rebuild

FORMAT = 1
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
    if content["format"] != FORMAT:
        message = f"its format is {content['format']}, and this supervise knows {FORMAT}"
        raise _refused(message, "use the supervise that accepted the job, or a newer one")
    try:
        return rebuild(JobSpec, content.get("job"))
    except BadValue as error:
        raise _refused(str(error), error.hint) from error


def _refused(message: str, hint: str) -> SpecError:
    return SpecError([Problem(_FILE, message, hint)])
