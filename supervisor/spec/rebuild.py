"""Plain data back into models, checked against their types but without a validator.

Owns the walk over annotations. A validator would do this too, and cost every runner 5 MB and 40 ms
to build; bounds and patterns were checked when the job was accepted.
Invariant: what comes back has every field, of its declared type, or BadValue names the place.
"""

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel

from supervisor.spec.places import Where, dotted
from supervisor.spec.problems import BadValue

Model = TypeVar("Model", bound=BaseModel)

_UNKNOWN_HINT = "a newer supervise accepted this job; use that one"
_DAMAGED_HINT = "the state folder is damaged"


def rebuild(model: type[Model], value: object, where: Where = ()) -> Model:
    """Return a model from the data that `model_dump(mode="json", by_alias=True)` gave."""
    if not isinstance(value, Mapping):
        raise _damaged(where)
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    for key in value:
        if key not in fields:
            raise BadValue(f"unknown here: {dotted((*where, key))}", _UNKNOWN_HINT)
    built: dict[str, Any] = {}
    for key, field in fields.items():
        if key not in value:
            raise _damaged((*where, key))
        built[key] = _rebuilt(field.annotation, value[key], (*where, key))
    return model.model_construct(**built)


def _rebuilt(kind: Any, value: object, where: Where) -> object:  # noqa: ANN401 - a type form
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _rebuilt(args[0], value, where)
    if origin in (Union, UnionType):
        return _rebuilt_member(args, value, where)
    if origin is Literal:
        return _checked(value in args, value, where)
    if origin is tuple:
        items = _checked(isinstance(value, list), value, where)
        return tuple(_rebuilt(args[0], item, (*where, at)) for at, item in enumerate(items))
    if origin is Mapping:
        pairs = _checked(isinstance(value, Mapping), value, where)
        return {
            _rebuilt(args[0], key, (*where, key)): _rebuilt(args[1], inner, (*where, key))
            for key, inner in pairs.items()
        }
    if isinstance(kind, type):
        return _rebuilt_class(kind, value, where)
    raise _damaged(where)


def _rebuilt_class(kind: type, value: object, where: Where) -> object:
    if issubclass(kind, BaseModel):
        return rebuild(kind, value, where)
    if issubclass(kind, (Enum, Path)):
        try:
            return kind(_checked(isinstance(value, str), value, where))
        except ValueError as error:
            raise _damaged(where) from error
    fits = type(value) is kind or kind is object or (kind is float and type(value) is int)
    return _checked(fits, value, where)


def _rebuilt_member(members: tuple[Any, ...], value: object, where: Where) -> object:
    """Rebuild a union by the first member that fits."""
    if value is None and NoneType in members:
        return None
    some = [member for member in members if member is not NoneType]
    for member in some[:-1]:
        try:
            return _rebuilt(member, value, where)
        except BadValue:
            continue  # another member may fit; the last one's complaint is the union's
    return _rebuilt(some[-1], value, where)


def _checked(fits: bool, value: Any, where: Where) -> Any:  # noqa: ANN401, FBT001 - data of any shape
    if not fits:
        raise _damaged(where)
    return value


def _damaged(where: Where) -> BadValue:
    return BadValue(f"not a frozen job: {dotted(where) or 'the job'}", _DAMAGED_HINT)
