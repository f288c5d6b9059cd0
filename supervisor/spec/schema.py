"""The JSON Schema of job.yaml, for editors.

Owns what the models cannot say: that one thing is run, that `${param}` may stand for a number or a
flag, and what is not supported yet.
"""

from typing import Any

from supervisor.spec.fields import models_at
from supervisor.spec.job import JobFile
from supervisor.spec.support import UNSUPPORTED

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_FILLED = {"type": "string", "pattern": r"\$\{"}
_FILLABLE = ("integer", "number", "boolean")


def json_schema() -> dict[str, Any]:
    """Return the schema as plain data."""
    schema = JobFile.model_json_schema(by_alias=True)
    _mark_unsupported(schema)
    schema = _simplified(schema)
    checkpoint = schema["$defs"]["Checkpoint"]
    checkpoint["anyOf"] = [{"required": ["glob"]}, {"required": ["preset"]}]
    del checkpoint["required"]  # a preset fills the pattern in
    schema["$defs"]["Train"]["anyOf"] = [{"required": ["epochs"]}, {"required": ["steps"]}]
    one_of = [{"required": [name]} for name in ("command", "train", "gradcam", "map")]
    return {"$schema": _DIALECT, "title": "supervise job", **schema, "oneOf": one_of}


def _mark_unsupported(schema: dict[str, Any]) -> None:
    for entry in UNSUPPORTED:
        *parents, name = entry.where.split(".")
        if entry.by_value:
            continue
        owner = schema["$defs"][models_at(tuple(parents))[0].__name__] if parents else schema
        field = owner["properties"][name]
        field["description"] = f"Not supported yet: {entry.instead}. {field['description']}"


def _simplified(node: Any, *, in_params: bool = False) -> Any:  # noqa: ANN401 - JSON of any shape
    """Drop the titles made up from names, and let `${param}` stand for any number or flag."""
    if isinstance(node, list):
        return [_simplified(inner, in_params=in_params) for inner in node]
    if not isinstance(node, dict):
        return node
    if node.get("type") in _FILLABLE and not in_params:
        kept = {key: value for key, value in node.items() if key in ("description", "default")}
        rest = {key: value for key, value in node.items() if key not in (*kept, "title")}
        return {**kept, "anyOf": [rest, _FILLED]}
    return {
        key: _simplified(value, in_params=in_params or key == "Param")
        for key, value in node.items()
        if not (key == "title" and isinstance(value, str))
    }
