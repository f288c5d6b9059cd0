"""The step of a checkpoint, from its name or from a small file beside it.

Owns reading and parsing of steps; never looks at modification times. Invariant: a step is an
integer from 0 to 2**63 - 1, or there is none and the reason is known.
"""

import re
from pathlib import Path
from typing import Final

from supervisor.checkpoint.layout import (
    LAST_DIGITS,
    Layout,
    StepFromJson,
    StepFromName,
    StepFromPointer,
)
from supervisor.checkpoint.reading import parse_json, read_small
from supervisor.checkpoint.verdict import BadBytes

_LIMIT: Final = 2**63  # what the journal can store
_ONE_NUMBER: Final = re.compile(r"\D*(\d{1,19})\D*", re.ASCII | re.DOTALL)


class NoStep(Exception):
    """No step can be told; the message says why."""


def step_of(layout: Layout, path: Path) -> int:
    """Read the step of the checkpoint at `path`.

    Raises:
        NoStep: there is none; why.

    """
    source = layout.step
    if isinstance(source, StepFromName):
        return _from_name(source, path.name, path.relative_to(layout.root).as_posix())
    where = step_file(layout, path)
    if where is None:  # unreachable: only names have no file
        raise NoStep("no file tells its step")
    try:
        content = read_small(where)
    except OSError as error:
        raise NoStep(f"its step stands in {where.name}, which cannot be read: {error}") from error
    except BadBytes as error:
        raise NoStep(f"its step cannot be told: {error.reason}") from error
    return (
        _from_json(source, content)
        if isinstance(source, StepFromJson)
        else _from_pointer(source, content)
    )


def step_file(layout: Layout, path: Path) -> Path | None:
    """Give the file that tells the step of the checkpoint at `path`, if a file does."""
    match layout.step:
        case StepFromPointer(file):
            return layout.root / file
        case StepFromJson(file, _):
            return (path if path.is_dir() else path.parent) / file
        case _:
            return None


def _from_name(source: StepFromName, name: str, relative: str) -> int:
    if source.pattern is None:
        texts = [name.rpartition(".")[0] or name, name]
        pattern = re.compile(LAST_DIGITS, re.ASCII | re.DOTALL)
    else:
        texts, pattern = [name, relative], re.compile(source.pattern)
    for text in texts:
        matches = list(pattern.finditer(text))
        if matches:
            return _number(_captured(matches[-1]), "its name")
    raise NoStep("its name has no step")


def _captured(match: re.Match[str]) -> str:
    if "step" in match.re.groupindex:
        return match["step"] or ""
    return (match[1] if match.re.groups else match[0]) or ""


def _from_json(source: StepFromJson, content: bytes) -> int:
    try:
        value = parse_json(content)
    except ValueError as error:
        raise NoStep(f"its step stands in {source.file}, which is not valid JSON") from error
    for key in source.key.split("."):
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and re.fullmatch(r"-?\d{1,9}", key, re.ASCII):
            index = int(key)
            if not -len(value) <= index < len(value):
                raise NoStep(f"{source.file} has no {source.key!r}")
            value = value[index]
        else:
            raise NoStep(f"{source.file} has no {source.key!r}")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise NoStep(f"{source.key!r} in {source.file} is not a number")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return _number(str(value), f"{source.key!r} in {source.file}")


def _from_pointer(source: StepFromPointer, content: bytes) -> int:
    match = _ONE_NUMBER.fullmatch(content.decode("utf-8", "replace"))
    if match is None:
        raise NoStep(f"{source.file} does not hold exactly one integer")
    return _number(match[1], source.file)


def _number(text: str, where: str) -> int:
    if not re.fullmatch(r"\d{1,19}", text.strip()) or int(text) >= _LIMIT:
        raise NoStep(f"{where} gives {text[:40]!r}, which is not a step")
    return int(text)
