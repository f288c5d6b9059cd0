"""The options of `daemon run`, as the daemon takes them.

Owns the defaults that depend on whom the daemon serves. A bad value is a usage error.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from supervisor.cli.daemon.run import SYSTEM_SOCKET, TOKEN, USER_SOCKET
from supervisor.daemon.main import Options
from supervisor.daemon.notify import listen_fds
from supervisor.daemon.retention import Keep
from supervisor.daemon.serve import Doors
from supervisor.spec.problems import BadValue
from supervisor.spec.units import read_duration, read_size

T = TypeVar("T")


def options_of(state_dir: Path, given: Mapping[str, Any]) -> Options:
    """What the daemon is told. Raises click.UsageError."""
    system = bool(given["system"])
    doors = Doors(
        path=(given["path"] or (SYSTEM_SOCKET if system else state_dir / USER_SOCKET)).absolute(),
        group=given["group"] if system else None,
        only=None if system else os.geteuid(),
        admin_group=given["admin_group"] if system else None,
        tcp=given["tcp"],
        token_file=(given["token_file"] or state_dir / TOKEN).absolute(),
        hosts=frozenset(given["allow_host"]),
        handed=[one.sock for one in listen_fds()],
    )
    return Options(
        state_dir=state_dir,
        doors=doors,
        system=system,
        cpus=given["cpus"],
        memory_bytes=_read(read_size, "--memory", given["memory"]),
        launcher=given["launcher"],
        keep=Keep(
            _read(read_duration, "--keep-jobs", given["keep_jobs"]),
            _read(read_size, "--keep-size", given["keep_size"]),
        ),
    )


def _read(parse: Callable[[str], T], option: str, text: str | None) -> T | None:
    try:
        return None if text is None else parse(text)
    except BadValue as error:
        raise click.UsageError(f"{option} {text}: {error}. {error.hint}") from error
