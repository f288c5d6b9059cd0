"""job.yaml to JobSpec: the one door into the program for a job file.

Owns the order of the steps: read, parse, params, preset, schema, relations. Starts nothing.
Invariant: a JobSpec or a SpecError with every problem, whatever the file holds.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from supervisor.spec.complete import complete
from supervisor.spec.fields import keys_at
from supervisor.spec.job import JobFile, JobSpec
from supervisor.spec.nodes import Filled, Node, Scalar, Table, to_data, walk
from supervisor.spec.params import Params, read_params
from supervisor.spec.places import SourceMap, Where
from supervisor.spec.positions import Document, parse
from supervisor.spec.problems import Finding, Problem, SpecError, closest, locate
from supervisor.spec.semantics import relations
from supervisor.spec.substitute import substitute
from supervisor.spec.support import unsupported
from supervisor.spec.translate import translate

MAX_FILE_BYTES = 1024 * 1024
_SUFFIXES = (".yaml", ".yml")


def load_job(path: Path, given: Mapping[str, str] | None = None) -> JobSpec:
    """Read a job file; `given` holds the values of `-p`. Raises SpecError with every problem.

    What `array` still leaves open is in the spec, and the params of it have their first values.
    """
    return load_text(read_text(path), path, given)


def load_text(text: str, source: Path, given: Mapping[str, str] | None = None) -> JobSpec:
    """As `load_job`, of a text that stands nowhere yet; JSON is YAML.

    `source` is where it would stand: relative paths are understood from its folder.
    """
    document = parsed(text, source)
    return accepted(document, read_params(root_of(document), given or {}))


def parsed(text: str, source: Path) -> Document:
    """Parse the text of a job file. Raises SpecError where there is no tree of values in it."""
    if len(text) > MAX_FILE_BYTES or len(text.encode(errors="replace")) > MAX_FILE_BYTES:
        raise _too_large(source)
    document = parse(text, str(source))
    if document.root is None:
        raise SpecError(locate(document.findings, document.source))
    return document


def root_of(document: Document) -> Table:
    """Return the tree of a document that `parsed` gave."""
    if document.root is None:
        raise ValueError("there is no tree: the document is not of `parsed`")
    return document.root


def accepted(document: Document, params: Params) -> JobSpec:
    """Return the job of a parsed file with these params. Raises SpecError with every problem."""
    root = substitute(root_of(document), params, document.source)
    data = to_data(root)
    if params.arrays:
        data["array"] = {name: list(texts) for name, texts in params.arrays.items()}
    completed, notes = complete(data)
    meant, slips = _as_meant(data)
    findings = [
        *document.findings,
        *params.findings,
        *unsupported(data),
        *(_as_written(finding, slips) for finding in _relations(completed, meant, slips)),
    ]
    if params.is_chosen or params.arrays == {}:
        completed.pop("array", None)  # every param has its one value
    job, schema_findings = _validated(completed)
    told = {finding.where for finding in findings if finding.where} | _unfilled(root, params)
    broken = {finding.span for finding in document.findings}
    findings += [
        finding
        for finding in schema_findings
        if finding.where not in told and document.source.span(finding.where) not in broken
    ]
    if job is None or findings:
        raise SpecError(locate(findings, document.source))
    return JobSpec.accept(job, _with_notes(document, notes), params.values)


def _relations(
    completed: Mapping[str, object], meant: Mapping[str, object], slips: Mapping[str, str]
) -> Iterator[Finding]:
    return relations(complete(meant)[0] if slips else completed)


def read_text(path: Path) -> str:
    """Read a job file as text. Raises SpecError when there is none to read."""
    try:
        # Non-blocking, so that a named pipe without a writer cannot stop us here.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise _refused(path, *_not_opened(path, error)) from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        what = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise _refused(path, f"this is {what}", _nearby(path) or "name a job.yaml")
    with os.fdopen(descriptor, "rb") as file:
        try:
            content = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            reason = error.strerror or "error"
            raise _refused(path, f"cannot be read: {reason}", "check the disk") from error
    if len(content) > MAX_FILE_BYTES:
        raise _too_large(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = before.count(b"\n") + 1
        message = f"byte 0x{content[error.start]:02x} on line {line} is not UTF-8 text"
        raise _refused(path, message, "save the file as UTF-8") from error


def _too_large(path: Path) -> SpecError:
    return _refused(path, "larger than 1 MiB, which no job file is", "is this the right file?")


def _refused(path: Path, message: str, hint: str) -> SpecError:
    return SpecError([Problem(str(path), message, hint)])


def _not_opened(path: Path, error: OSError | ValueError) -> tuple[str, str]:
    if isinstance(error, FileNotFoundError):
        return "there is no such file", _nearby(path.parent) or "name a job.yaml"
    if isinstance(error, PermissionError):
        return "you may not read this file", f"ls -l {path}"
    reason = error.strerror if isinstance(error, OSError) else "its name is not a path"
    return f"cannot be opened: {reason}", "name a job.yaml"


def _nearby(folder: Path) -> str:
    """Name the job files of a folder, if there are a few."""
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.suffix in _SUFFIXES)
    except (OSError, ValueError):
        return ""
    return f"in {folder} there is: {', '.join(names[:5])}" if names else ""


def _as_meant(data: Mapping[str, object]) -> tuple[dict[str, object], dict[str, str]]:
    """Return the data with misspelt sections under the name that was probably meant.

    So that `comand:` is one problem, and not also a job without a command. The second mapping
    leads from each such name back to what was written.
    """
    known = keys_at(())
    slips = {
        near: key
        for key in data
        if key not in known and (near := closest(key, known)) and near not in data
    }
    meant = {written: name for name, written in slips.items()}
    return {meant.get(key, key): value for key, value in data.items()}, slips


def _as_written(finding: Finding, slips: Mapping[str, str]) -> Finding:
    if finding.where and finding.where[0] in slips:
        return replace(finding, where=(slips[str(finding.where[0])], *finding.where[1:]))
    return finding


def _validated(data: Mapping[str, object]) -> tuple[JobFile | None, list[Finding]]:
    try:
        return JobFile.model_validate(data), []
    except ValidationError as error:
        return None, translate(error, data)


def _unfilled(root: Node, params: Params) -> set[Where]:
    """Places whose text could not be filled in: what they hold is not what was meant."""
    if not params.findings:
        return set()
    return {
        where
        for where, _, node in walk(root)
        if isinstance(node, Scalar) and isinstance(node.value, Filled) and "${" in node.value
    }


def _with_notes(document: Document, notes: Mapping[Where, str]) -> SourceMap:
    return replace(document.source, notes=notes)
