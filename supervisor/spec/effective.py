"""Every supported field of a job with the value it has, written as people do.

Owns the walk and the notation; plan.py prints it and compare.py compares it.
"""

from collections.abc import Callable, Iterator, Mapping

from supervisor.core.secrets import masked
from supervisor.spec.flow import in_flow
from supervisor.spec.job import JobFile, JobSpec, Param
from supervisor.spec.places import Where
from supervisor.spec.sections import Section
from supervisor.spec.support import is_supported
from supervisor.spec.units import write_duration, write_size

_UNITS: Mapping[str, Callable[[float], str]] = {
    "_s": write_duration,
    "_bytes": lambda count: write_size(int(count)),
}

_TO_QUEUE = ("priority", "after", "key", "group", "hold_after", "array", "env_keep")
_TO_RUN = ("command", "train", "map", "gradcam")
_OF_BATCH: tuple[Where, ...] = (("chunks",), ("timeouts", "item"), ("timeouts", "chunk"))
_OF_OTHERS: tuple[Where, ...] = (("checkpoint",), ("resume",), ("progress",), ("done",))


def effective(spec: JobSpec) -> Iterator[tuple[Where, str]]:
    """Yield place and value of every supported field, in the order of the schema.

    Without what has no meaning for this job: the sections of a batch job, or those that it lacks;
    without `progress` for a training job, which reports its own; and without what says nothing to
    the queue.
    """
    idle = _OF_OTHERS if spec.map or spec.gradcam else _OF_BATCH
    idle += (("progress",),) if spec.train else ()
    for name in JobFile.model_fields:
        if not is_supported((name,)) or (name in _TO_RUN and getattr(spec, name) is None):
            continue
        if name in _TO_QUEUE and not getattr(spec, name):
            continue  # it says nothing to the queue
        for where, value in _leaves(getattr(spec, name), (name,), name):
            if (name,) not in idle and where not in idle:
                yield where, value


def shown(spec: JobSpec) -> JobSpec:
    """Return the job with its secrets masked, for what is read by others than its worker."""
    resume = spec.resume.model_copy(update={"env": masked(spec.resume.env)})
    return spec.model_copy(update={"env": masked(spec.env), "resume": resume})


def _leaves(value: object, where: Where, name: str) -> Iterator[tuple[Where, str]]:
    if isinstance(value, Param):
        yield where, in_flow(_escaped(value.model_dump(mode="json", exclude_none=True)))
    elif isinstance(value, Section):
        for inner, field in type(value).model_fields.items():
            here = (*where, field.alias or inner)
            if is_supported(here):
                yield from _leaves(getattr(value, inner), here, inner)
    elif isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*where, str(key)), "")
    else:
        yield where, _written(value, name)


def _written(value: object, name: str) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        for suffix, write in _UNITS.items():
            if name.endswith(suffix):
                return write(value)
    return in_flow(_escaped(value))


def _escaped(value: object) -> object:
    """Write `${` as the file has to say it, so that what is printed can be read back."""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, (list, tuple)):
        return [_escaped(inner) for inner in value]
    if isinstance(value, Mapping):
        return {key: _escaped(inner) for key, inner in value.items()}
    return value
