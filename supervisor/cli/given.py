"""The job file and the `-p name=value` options, as `run` and `check` take them.

Owns the splitting of the options; what a value means is the spec's.
"""

from pathlib import Path

import click

from supervisor.spec.job import JobSpec
from supervisor.spec.load import load_job
from supervisor.spec.problems import SpecError
from supervisor.spec.world import check_world


def load_checked(job_file: Path, given: tuple[str, ...]) -> JobSpec:
    """The job of a file, provided that it could start here and now.

    Raises:
        SpecError: everything that is wrong with the file, or with what it names.
    """
    spec = load_job(job_file, parse_params(given))
    if problems := check_world(spec):
        raise SpecError(problems)
    return spec


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
