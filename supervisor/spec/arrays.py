"""`array`: from one job file to a job for each combination of the values.

Owns the product, and that no two jobs of it get in each other's way; array_params.py reads the
values. The file is read and parsed once, whatever the number of jobs.
Invariant: of a spec that comes from here, no value is open: it has no `array`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

from supervisor.spec import nodes
from supervisor.spec.claims import claimed
from supervisor.spec.flow import in_flow
from supervisor.spec.job import JobSpec
from supervisor.spec.load import accepted, parsed, read_text, root_of
from supervisor.spec.params import read_params
from supervisor.spec.places import Where, dotted
from supervisor.spec.positions import Document
from supervisor.spec.problems import MAX_PROBLEMS, Finding, Problem, SpecError, locate, shown
from supervisor.spec.queue_sections import count_jobs

Arrays = Mapping[str, Sequence[str]]


def combinations(
    path: Path, given: Mapping[str, str] | None = None, arrays: Arrays | None = None
) -> list[JobSpec]:
    """Return the jobs of a file: one for each combination of values, the last param's fastest.

    `given` has one value for a param, `arrays` has several; both come before the file's `array`.
    Without any array the list has one job.

    Raises:
        SpecError: every problem of the file or of any combination; too many combinations; two jobs
            would write into one folder, or have one key.
    """
    return combinations_of_text(read_text(path), path, given, arrays)


def combinations_of_text(
    text: str,
    source: Path,
    given: Mapping[str, str] | None = None,
    arrays: Arrays | None = None,
) -> list[JobSpec]:
    """As `combinations`, of a text that would stand at `source`."""
    document = parsed(text, source)
    root = root_of(document)
    params = read_params(root, given or {}, arrays or {})
    first = accepted(document, params)
    if not params.arrays:
        return [first]
    # Without the values that are not chosen: a copy of all of them for each job is their square.
    bare = replace(root, pairs=tuple(pair for pair in root.pairs if pair[0].text != "array"))
    document = replace(document, root=bare)
    specs: list[JobSpec] = []
    problems: dict[tuple[int, int, str], Problem] = {}
    for values in product(*params.arrays.values()):
        chosen = dict(zip(params.arrays, values, strict=True))
        try:
            specs.append(accepted(document, params.chosen(chosen)))
        except SpecError as error:
            for each in error.problems:
                problems.setdefault((each.line, each.column, each.message), _of(each, chosen))
        if len(problems) >= MAX_PROBLEMS:
            break
    if problems:
        raise SpecError(problems.values())
    names = tuple(params.arrays)
    if findings := [*_one_key(specs, names, document), *_shared_folders(specs, names, document)]:
        raise SpecError(locate(findings, document.source))
    return specs


def refuse_array(spec: JobSpec) -> None:
    """Raise SpecError where a job that is to run now is an array that leaves values open."""
    if not spec.array:
        return
    example = " ".join(f"-p {name}={values[0]}" for name, values in spec.array.items())
    many = count_jobs(spec.array)
    jobs = "one job for each value" if many == 1 else f"{many:,} jobs"
    message = f"array: this file makes {jobs}, and one is to run"
    hint = f"choose one: {example}\nor queue them all: supervise submit {spec.source.name}"
    raise SpecError(locate([Finding(("array",), message, hint, key=True)], spec.written))


def _of(problem: Problem, chosen: Mapping[str, str]) -> Problem:
    of = ", ".join(f"{name}={value}" for name, value in chosen.items())
    hint = f"{problem.hint}\n" if problem.hint else ""
    return replace(problem, hint=f"{hint}in the job of the array with {of}")


def _one_key(
    specs: Sequence[JobSpec], names: Sequence[str], document: Document
) -> Iterator[Finding]:
    sharing = _clash((spec.key, spec) for spec in specs if spec.key is not None)
    if sharing:
        key = sharing[0].key or ""
        message = f"key: {len(sharing):,} jobs of the array would have the key {shown(key)}"
        apart = "-".join([_text(("key",), document) or key, *_missing(sharing, names)])
        hint = f"only one of them would be queued\nsuch as key: {in_flow(apart)}"
        yield Finding(("key",), message, hint)


def _shared_folders(
    specs: Sequence[JobSpec], names: Sequence[str], document: Document
) -> Iterator[Finding]:
    places: dict[Where, list[tuple[Path, JobSpec]]] = {}
    for spec in specs:
        for where, folder in claimed(spec):
            places.setdefault(where, []).append((folder, spec))
    for where, folders in places.items():
        sharing = _clash(folders)
        if sharing:
            folder = next(folder for folder, spec in folders if spec is sharing[0])
            message = f"{dotted(where)}: {len(sharing):,} jobs of the array would write to {folder}"
            text = _text(where, document) or _default(where, sharing[0])
            apart = "/".join([*filter(None, [text]), *_missing(sharing, names)])
            hint = f"give each a folder of its own, such as {where[-1]}: {in_flow(apart)}"
            yield Finding(where, message, hint)


def _clash(marked: Iterable[tuple[object, JobSpec]]) -> list[JobSpec]:
    """Return the jobs with the first mark that several have; none where each has its own."""
    by_mark: dict[object, dict[int, JobSpec]] = {}
    for mark, spec in marked:
        by_mark.setdefault(mark, {})[id(spec)] = spec
    return next((list(found.values()) for found in by_mark.values() if len(found) > 1), [])


def _missing(specs: Sequence[JobSpec], names: Sequence[str]) -> list[str]:
    """Return the params in which these jobs differ, as a job file refers to them."""
    differ = [name for name in names if len({spec.values[name] for spec in specs}) > 1]
    return [f"${{{name}}}" for name in differ]


def _text(where: Where, document: Document) -> str:
    """Return what the file says at a place, without a slash at the end; nothing if it does not."""
    node: nodes.Node | None = root_of(document)
    for part in where:
        node = node.get(str(part)) if isinstance(node, nodes.Table) else None
    text = node.text.rstrip("/") if isinstance(node, nodes.Scalar) else ""
    return "" if text == "." else text


def _default(where: Where, spec: JobSpec) -> str:
    found: object = spec
    for part in where:
        found = getattr(found, str(part))
    text = str(found).rstrip("/")
    return "" if text == "." else text
