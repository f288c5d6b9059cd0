"""What `supervise submit` sends: jobs, in requests of a bearable size, and their surroundings.

Owns the making of these requests from a job file and options; sends nothing. Invariant: what looks
like a secret leaves this process only if it was named.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from supervisor.cli.given import load_every, parse_arrays
from supervisor.runner.surroundings import capture
from supervisor.spec.arrays import combinations
from supervisor.spec.frozen import freeze
from supervisor.spec.job import JobSpec

Json = Any  # what json.dumps takes

JOBS_AT_ONCE = 500
BYTES_AT_ONCE = 2 * 1024 * 1024  # the daemon takes 4 MiB, with the surroundings


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of `submit`; None and empty where nothing was said."""

    job_file: Path
    given: tuple[str, ...] = ()
    priority: int | None = None
    after: tuple[str, ...] = ()
    key: str | None = None
    group: str | None = None
    hold_after: int | None = None
    env_keep: tuple[str, ...] = ()
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Submission:
    """What is to be sent: `portions` of jobs, one request each, with the same surroundings.

    `left_out` are variables that look like secrets and are not passed on; `odd` those that are not,
    because their bytes are no text.
    """

    portions: tuple[list[dict[str, Json]], ...]
    surroundings: dict[str, Json]
    left_out: tuple[str, ...]
    odd: tuple[str, ...]


def prepared(asked: Asked, *, far: bool = False) -> Submission:
    """The jobs of a file as the options want them.

    `far`: they run on another host, so what they name need not exist on this one.

    Raises:
        SpecError: everything that is wrong with the file, or with what it names.
        click.UsageError: options that contradict each other.
    """
    single, several = parse_arrays(asked.given)
    specs = (combinations if far else load_every)(asked.job_file, single, several)
    if asked.hold_after is not None and len(specs) == 1 and not (asked.group or specs[0].group):
        raise click.UsageError("--hold-after is about a group of jobs: name it with --group")
    if any(not name or "=" in name for name in asked.env_keep):
        raise click.UsageError("--env-keep takes the name of a variable, without its value")
    captured = capture({*asked.env_keep, *(name for one in specs for name in one.env_keep)})
    left_out = tuple(captured.pop("left_out"))
    env, odd = _sayable(captured["env"])
    surroundings = {"env": env, "umask": captured["umask"], "limits": captured["limits"]}
    if asked.env_keep:  # what a job's own file names is in its spec
        surroundings["env_keep"] = list(asked.env_keep)
    jobs = [_job(asked, one, specs) for one in specs]
    return Submission(tuple(_portions(jobs)), surroundings, left_out, odd)


def _job(asked: Asked, spec: JobSpec, all_of_them: Sequence[JobSpec]) -> dict[str, Json]:
    """One job of the request; an option that was not given leaves the word to the job file."""
    many = len(all_of_them) > 1
    group = asked.group
    if group is None and asked.hold_after is not None and spec.group is None:
        group = spec.name
    job: dict[str, Json] = {
        "spec": freeze(spec),
        "priority": asked.priority,
        "after": list(asked.after) or None,
        "key": _key(asked.key, spec, all_of_them) if many else asked.key,
        "group": group,
        "hold_after": asked.hold_after,
    }
    given = {name: value for name, value in job.items() if value is not None}
    return given | ({"fresh": True} if asked.fresh else {})


def _key(key: str | None, spec: JobSpec, all_of_them: Sequence[JobSpec]) -> str | None:
    """A key of its own for each combination, the same whenever the same array is submitted."""
    if key is None:
        return None
    differ = [
        name for name in spec.values if len({one.values.get(name) for one in all_of_them}) > 1
    ]
    return "/".join([key, *(f"{name}={spec.values[name]}" for name in differ)])


def _portions(jobs: Sequence[dict[str, Json]]) -> Iterator[list[dict[str, Json]]]:
    some: list[dict[str, Json]] = []
    size = 0
    for job in jobs:
        own = len(json.dumps(job))
        if some and (len(some) >= JOBS_AT_ONCE or size + own > BYTES_AT_ONCE):
            yield some
            some, size = [], 0
        some.append(job)
        size += own
    yield some


def _sayable(env: dict[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The variables that JSON can carry, and the names of those whose bytes are no UTF-8."""
    odd = tuple(name for name, value in env.items() if not _is_text(name + value))
    return {name: value for name, value in env.items() if name not in odd}, odd


def _is_text(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= one <= "\udfff" for one in text)
