"""The frozen form of an accepted job: canonical JSON, written once and read by every runner.

Owns its format number. Reading it needs no YAML, no preset and no default of the day: all values
are in it.
"""

import json

from pydantic import ValidationError

from supervisor.spec.job import JobSpec
from supervisor.spec.problems import Problem, SpecError

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
        return JobSpec.model_validate(content.get("job"))
    except ValidationError as error:
        raise _explained(error) from error


def _explained(error: ValidationError) -> SpecError:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    unknown = [
        ".".join(map(str, each["loc"])) for each in found if each["type"] == "extra_forbidden"
    ]
    if unknown:
        message = f"unknown here: {', '.join(unknown)}"
        return _refused(message, "a newer supervise accepted this job; use that one")
    places = [".".join(map(str, each["loc"])) or "the job" for each in found]
    return _refused(f"not a frozen job: {', '.join(places)}", "the state folder is damaged")


def _refused(message: str, hint: str) -> SpecError:
    return SpecError([Problem(_FILE, message, hint)])
