from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import jsonschema  # type: ignore[import-untyped] # has no stubs of its own
import pytest

from supervisor.spec.job import JobFile
from supervisor.spec.nodes import Node, Sequence, Table
from supervisor.spec.positions import parse
from supervisor.spec.presets import PRESETS
from supervisor.spec.schema import json_schema
from supervisor.spec.sections import PRESET_NAMES
from supervisor.spec.support import UNSUPPORTED

FOLDER = Path(__file__).parents[1] / "golden" / "spec"
SCHEMA = json_schema()
FIELDS = (
    "name command train gradcam map cwd env python warm params resources timeouts rules liveness "
    "checkpoint resume stop progress done restart chunks "
    "priority after key group hold_after array env_keep"
)


def errors_of(data: object) -> list[str]:
    """Return what an editor would underline."""
    return [error.message for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(data)]


def read(text: str) -> object:
    """Read YAML as this project does, numbers as numbers."""
    root = parse(text, "job.yaml").root
    assert root is not None
    return {key.text: data(value) for key, value in root.pairs}


def data(node: Node) -> object:
    """Return the plain values of a tree."""
    if isinstance(node, Table):
        return {key.text: data(value) for key, value in node.pairs}
    return [data(item) for item in node.items] if isinstance(node, Sequence) else node.value


@pytest.mark.parametrize("path", sorted(FOLDER.glob("ok-*.yaml")), ids=lambda path: path.stem)
def test_the_schema_accepts_what_the_loader_accepts(path: Path) -> None:
    """No editor underlines a good file."""
    assert errors_of(read(path.read_text())) == []


@pytest.mark.parametrize(
    "text",
    [
        "name: a",
        "name: a b\ncommand: [x]",
        "name: a\ncommand: x",
        "name: a\ncommand: [x]\nmap: {entry: a, items: b}",
        "name: a\ncommand: [x]\ntimeouts: {hartbeat: 5m}",
        "name: a\ncommand: [x]\ntimeouts: {stop: 5 parsecs}",
        "name: a\ncommand: [x]\nresources: {memory: 5G}",
        "name: a\ncommand: [x]\nresources: {memory: 32}",
        "name: a\ncommand: [x]\nresources: {gpus: 65}",
        "name: a\ncommand: [x]\nresources: {share_gpu: 1}",
        "name: a\ncommand: [x]\ntimeouts: {heartbeat: automatic}",
        "name: a\ncommand: [x]\nrestart: {on: {cuda_om: hold}}",
        "name: a\ncommand: [x]\nrestart: {budget: -1}",
        "name: a\ncommand: [x]\nrestart: {backoff: {jitter: 2}}",
        "name: a\ncommand: [x]\ndone: {step: 0}",
        "name: a\ncommand: [x]\npriority: 101",
        "name: a\ncommand: [x]\nafter: prepare",
        "name: a\ncommand: [x]\nhold_after: 0",
        "name: a\ncommand: [x]\nparams: {lr: 0.1}\narray: {lr: []}",
        "name: a\ncommand: [x]\nparams: {lr: 0.1}\narray: {lr: 0.1}",
        "name: a\ncommand: [x]\nenv_keep: HF_TOKEN",
        'name: a\ntrain: {entry: "p:f"}',
        "name: a\ntrain: {entry: p, epochs: 3}",
        'name: a\ntrain: {entry: "p:f", epochs: 3, precision: float16}',
        'name: a\ntrain: {entry: "p:f", epochs: 3, schedule: {kind: linear}}',
        'name: a\ntrain: {entry: "p:f", epochs: 3, clip: 0}',
    ],
)
def test_the_schema_refuses_common_slips(text: str) -> None:
    """An editor shows misspelt keys, units out of this world and bounds."""
    assert errors_of(read(text))


def test_the_schema_holds_every_documented_field() -> None:
    """The published schema is the whole contract, in its order."""
    assert FIELDS.split() == list(SCHEMA["properties"])


def properties(node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every property of every section."""
    if isinstance(node, dict):
        yield from node.get("properties", {}).items()
        for inner in node.values():
            yield from properties(inner)


def test_every_field_is_described() -> None:
    """Hovering over any key in an editor explains it."""
    for name, field in properties(SCHEMA):
        section = SCHEMA["$defs"].get(field.get("$ref", "").rpartition("/")[2], {})
        assert field.get("description") or section.get("description"), name


def test_the_schema_itself_is_valid() -> None:
    """It is what it says it is."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_what_is_not_supported_yet_says_so_in_the_schema() -> None:
    """The table of refusals and the descriptions agree."""
    whole = [each.where for each in UNSUPPORTED if not each.by_value and "." not in each.where]

    assert whole == [
        name
        for each in UNSUPPORTED
        if (name := each.where) in SCHEMA["properties"]
        and SCHEMA["properties"][name]["description"].startswith("Not supported yet")
    ]


def test_the_presets_are_those_of_the_schema() -> None:
    """No preset is published that does not exist, or exists unpublished."""
    assert get_args(PRESET_NAMES) == tuple(PRESETS)


def test_what_auto_means_stands_in_the_schema() -> None:
    """Who hovers over `heartbeat` reads between which bounds it is learned."""
    heartbeat = SCHEMA["$defs"]["Timeouts"]["properties"]["heartbeat"]

    assert heartbeat["default"] == "auto"
    assert "learned from the job's own cadence, between 10m and 30m" in heartbeat["description"]


def test_examples_in_the_schema_are_right() -> None:
    """Every example of a section loads into it."""
    examples = {
        name: field.examples[0]
        for name, field in JobFile.model_fields.items()
        if field.examples and name != "name"
    }

    job = JobFile.model_validate(
        {
            "name": "a",
            **examples,
            "resume": {"mode": "append", **examples["resume"]},
            "checkpoint": {"glob": "*", **examples["checkpoint"]},
        }
    )

    assert job.command == ("python", "train.py", "--epochs", "30")
