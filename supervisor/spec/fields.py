"""The schema as something to look things up in: the field at a place of a job file.

Owns the walk through the models; knows no field by name.
"""

from collections.abc import Iterator
from typing import get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from supervisor.spec.job import JobFile
from supervisor.spec.places import Where


def models_at(where: Where) -> tuple[type[BaseModel], ...]:
    """Return the models a mapping at this place may follow; none where keys are free."""
    if not where:
        return (JobFile,)
    found = field_at(where)
    if found is not None:
        return tuple(_models(found[1].annotation, *found[1].metadata))
    # An entry of a list or of a mapping with free keys: `rules[0]`, `params.lr`.
    return models_at(where[:-1]) if len(where) > 1 and field_at(where[:-1]) else ()


def field_at(where: Where) -> tuple[str, FieldInfo] | None:
    """Return the Python name and the definition of the field at a place, if it is one."""
    if not where:
        return None
    for model in models_at(where[:-1]):
        for name, field in model.model_fields.items():
            if (field.alias or name) == where[-1]:
                return name, field
    return None


def keys_at(where: Where) -> tuple[str, ...]:
    """Return the keys a mapping at this place may have."""
    models = models_at(where)
    keys = [field.alias or name for model in models for name, field in model.model_fields.items()]
    return tuple(dict.fromkeys(keys))


def _models(*annotations: object) -> Iterator[type[BaseModel]]:
    for annotation in annotations:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield annotation
        else:
            yield from _models(*get_args(annotation))
