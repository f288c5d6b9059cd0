"""What to run, and how it ended: the data of a child.

Owns the checks that can be made before a process exists; starts nothing. Invariant: a `Command`
that was built can be sent to a launcher as it is.
"""

import errno
import math
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from supervisor.host.processes import ProcessId
from supervisor.process.limits import Limits

STANDARD_FDS = 3


class Leaf(Protocol):
    """A worker's own cgroup, as supervisor.host.cgroup makes them."""

    @property
    def entries(self) -> Sequence[Path]:
        """The cgroup.procs files by which to enter."""

    def kill(self) -> None:
        """Send SIGKILL to all that are in it."""

    def members(self) -> list[ProcessId]:
        """Return who lives in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program, with everything its process starts from.

    `argv[0]` without a slash is looked up on the child's PATH; relative paths, `argv[0]` and PATH
    included, are relative to `cwd`. `cwd` and `output` themselves are relative to the parent.
    `env` is the whole environment; None inherits the parent's. `output` receives stdout and stderr,
    appended; None inherits both. stdin is /dev/null. `inherit_fds` keep their numbers.
    `stop_signals` go to the main process one after the other, sharing `grace_s` equally.
    `leaf` is a cgroup that the child enters before it runs, and with which it is ended. `mark` is
    the name by which its processes are found elsewhere; None draws one. `tracer_pid` and what it
    starts may look into the child with ptrace, where Yama leaves that to ancestors.

    Raises TypeError or ValueError, in words, for what no kernel would accept.
    """

    argv: Sequence[str]
    cwd: Path | str | None = None
    env: Mapping[str, str] | None = None
    output: Path | str | None = None
    inherit_fds: Sequence[int] = ()
    stop_signals: Sequence[int] = (signal.SIGTERM,)
    grace_s: float = 10.0
    leaf: Leaf | None = None
    mark: str | None = None
    limits: Limits | None = None
    tracer_pid: int | None = None

    def __post_init__(self) -> None:
        _check_argv(self.argv)
        if self.env is not None:
            _check_env(self.env)
        if self.mark is not None and (not self.mark or set(self.mark) & set("/\0")):
            raise ValueError(f"mark is a word without '/' and NUL: {self.mark!r}")
        for name in ("cwd", "output"):
            if "\0" in str(getattr(self, name)):
                raise ValueError(f"{name} holds a NUL character: {getattr(self, name)!r}")
        if any(fd < STANDARD_FDS for fd in self.inherit_fds):
            raise ValueError(f"inherit_fds are 3 or more, 0 to 2 are set: {self.inherit_fds!r}")
        if not self.stop_signals:
            raise ValueError("stop_signals is empty; name one, such as SIGTERM")
        for number in self.stop_signals:
            signal.Signals(number)
        check_grace(self.grace_s)
        # Copies, so that a list or dict changed afterwards changes nothing here.
        for name in ("argv", "inherit_fds", "stop_signals"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.env is not None:
            object.__setattr__(self, "env", dict(self.env))


def _check_argv(argv: Sequence[str]) -> None:
    if isinstance(argv, (str, bytes)):
        raise TypeError(f"argv is a list of words, not one string: use shlex.split({argv!r})")
    if not argv or not argv[0]:
        raise ValueError("argv is empty: there is no program to run")
    for word in argv:
        if not isinstance(word, str):
            raise TypeError(f"argv holds {word!r}, which is no string: use str(...)")
        if "\0" in word:
            raise ValueError(f"argv holds a NUL character: {word!r}")


def _check_env(env: Mapping[str, str]) -> None:
    for name, value in env.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"env holds {name!r}: {value!r}; names and values are strings")
        if not name or "=" in name or "\0" in name + value:
            raise ValueError(f"env holds {name!r}: {value!r}; no '=' in a name, no NUL in either")


def check_grace(grace_s: float) -> None:
    """Raise ValueError unless this is a finite number of seconds, zero or more."""
    if not (math.isfinite(grace_s) and grace_s >= 0):
        raise ValueError(f"grace_s is a finite number of seconds, 0 or more: {grace_s!r}")


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended: exactly one of `code` and `signal`.

    Both are None when another part of the program reaped the child (or ignores SIGCHLD), which
    loses its status.
    """

    code: int | None
    signal: int | None
    core_dumped: bool = False

    @property
    def ok(self) -> bool:
        """Whether the process ended by itself with exit code 0."""
        return self.code == 0

    def __str__(self) -> str:
        if self.code is not None:
            return f"exit code {self.code}"
        if self.signal is None:
            return "ended, but its exit status was taken by another part of this program"
        return f"killed by {signal_name(self.signal)}" + " (core dumped)" * self.core_dumped


def signal_name(number: int) -> str:
    """Return SIGTERM for 15; real-time signals, which have no names, by number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@dataclass(frozen=True, slots=True)
class SpawnFailure:
    """Where a start failed. `errno` is 0 where the kernel gave none."""

    stage: str
    errno: int
    path: str
    argv: Sequence[str]


class SpawnFailed(Exception):
    """No worker was started. `str()` says which step failed, why, and what to do."""

    def __init__(self, failure: SpawnFailure) -> None:
        super().__init__(failure)
        self.stage = failure.stage
        self.errno = failure.errno
        self.path = failure.path

    def __str__(self) -> str:
        failure: SpawnFailure = self.args[0]
        return f"cannot start {failure.argv[0]!r}: {_reason(failure)}"


class LauncherDied(SpawnFailed):
    """The launcher ended before it became the worker: nothing ran, another one may be tried."""


def _reason(failure: SpawnFailure) -> str:
    known = _REASONS.get((failure.stage, failure.errno), _REASONS.get((failure.stage, 0)))
    if failure.stage == "exec" and failure.errno == errno.ENOENT:
        known = _missing_program(failure)
    if failure.stage == "exec" and failure.errno == errno.EACCES and Path(failure.path).is_dir():
        known = "{path} is a folder; name the program in it"
    kernel = os.strerror(failure.errno) if failure.errno else "no reason given"
    return (known or "{kernel}: {path}").format(path=failure.path, kernel=kernel)


def _missing_program(failure: SpawnFailure) -> str:
    if Path(failure.path).exists():
        return "the interpreter in the first line ('#!...') of {path} does not exist; correct it"
    if "/" in failure.path:
        return "{path} does not exist"
    return "no such command on the PATH of the child; check the spelling or give the full path"


_REASONS = {
    ("exec", errno.EACCES): "{path} is not executable; try: chmod +x {path}",
    ("exec", errno.ENOEXEC): "{path} is no program; a script needs a first line like '#!/bin/sh'",
    ("exec", errno.E2BIG): "arguments and environment together are larger than the kernel accepts",
    ("chdir", errno.ENOENT): "its working folder {path} does not exist",
    ("chdir", 0): "its working folder {path} cannot be entered ({kernel})",
    ("cgroup", 0): "its cgroup cannot be entered by {path} ({kernel})",
    ("limit", errno.EPERM): "{path}; ask for less, or have the hard limit raised",
    ("limit", 0): "the kernel refuses {path} ({kernel})",
    ("output", errno.ENOENT): "the folder of its output file {path} does not exist",
    ("output", 0): "its output file {path} cannot be opened ({kernel})",
    ("message", 0): "its launcher does not know {path!r}; this installation mixes two versions",
    ("fork", 0): "this program cannot be forked ({kernel})",
    ("launcher", 0): "the launcher did not survive ({path}, {kernel})",
}
