"""The job file and the `-p name=value` options, as `run`, `check` and `submit` take them.

Owns the splitting of the options; what a value means is the spec's.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import click

from supervisor.spec.arrays import combinations, refuse_array
from supervisor.spec.job import JobSpec
from supervisor.spec.load import load_job
from supervisor.spec.problems import Problem, SpecError, at_most
from supervisor.spec.world import check_world


def load_checked(job_file: Path, given: tuple[str, ...]) -> JobSpec:
    """The one job of a file, provided that it could start here and now.

    Raises:
        SpecError: everything that is wrong with the file, or with what it names; or it is an array.
    """
    spec = load_job(job_file, parse_params(given))
    refuse_array(spec)
    check_here([spec])
    return spec


def load_every(
    job_file: Path,
    given: Mapping[str, str],
    arrays: Mapping[str, Sequence[str]] | None = None,
) -> list[JobSpec]:
    """Every job that a file makes, one for each combination of its values, if all could start here.

    Raises:
        SpecError: everything that is wrong with the file, any of its jobs, or what they name.
    """
    specs = combinations(job_file, given, arrays)
    check_here(specs)
    return specs


def check_here(specs: Iterable[JobSpec]) -> None:
    """Raise SpecError unless these jobs of one file could start on this host."""
    problems: dict[Problem, None] = {}
    for spec in specs:
        problems |= dict.fromkeys(check_world(spec))
    if problems:
        raise SpecError(at_most(problems))


def parse_params(given: tuple[str, ...]) -> dict[str, str]:
    """The options as a mapping; one without '=' or given twice is a usage error."""
    values: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.UsageError(f"-p {text}: write it as NAME=VALUE, for example -p lr=0.05")
        if name in values:
            raise click.UsageError(f"-p {name} is given twice: {values[name]} and {value}")
        values[name] = value
    return values


def parse_arrays(given: tuple[str, ...]) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """The options of `submit`: those with one value, and those with several, as in lr=0.1,0.01.

    A backslash before a comma keeps it in the value; before anything else it is itself.
    """
    single: dict[str, str] = {}
    several: dict[str, tuple[str, ...]] = {}
    for name, text in parse_params(given).items():
        first, *others = _split(text)
        if others:
            several[name] = (first, *others)
        else:
            single[name] = first
    return single, several


def _split(text: str) -> list[str]:
    values = [""]
    for at, part in enumerate(text.split(",")):
        if at and values[-1].endswith("\\"):
            values[-1] = f"{values[-1][:-1]},{part}"
        elif at:
            values.append(part)
        else:
            values[-1] = part
    return values
