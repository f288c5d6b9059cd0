"""Where a job was submitted from: its environment, umask and limits, as the worker shall have them.

Owns the file in the job's folder that carries them from `submit` to the runner, which puts them on.
Never stores what looks like a secret unless it is named. Invariants: a file that cannot be
understood changes nothing of this process; what it does not say stays as the runner was given it.

A detached runner that has put them on is what `supervise run` in that shell would have been, and
like that one it hears of some of them itself: TMPDIR (its own temporary files), PATH (py-spy, the
job's interpreter), LD_LIBRARY_PATH and LD_PRELOAD (of the processes that it starts, so which NVML
answers), HOME. What acts when an interpreter starts (PYTHON*, LD_*, MALLOC_*) comes too late for
the runner and in time for the worker. Two things are not taken from the shell: SUPERVISE_*, which
are those of whoever starts the runner, for the leases of a host lie in one folder
(SUPERVISE_LEASE_DIR) whoever submits, and a job that is submitted from within another is no part of
it; and hard limits, which only bound the soft ones.
"""

import json
import os
import resource
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from supervisor.host.durable import replacing

FORMAT: Final = 1
LIMITS: Final = {
    "nofile": resource.RLIMIT_NOFILE,
    "nproc": resource.RLIMIT_NPROC,
    "core": resource.RLIMIT_CORE,
    "memlock": resource.RLIMIT_MEMLOCK,
    "stack": resource.RLIMIT_STACK,
    "as": resource.RLIMIT_AS,
    "fsize": resource.RLIMIT_FSIZE,
    "cpu": resource.RLIMIT_CPU,
}
_UNLIMITED: Final = resource.RLIM_INFINITY  # -1, also in the file
_UNBOUND: Final = 1 << 63  # what setrlimit(2) of Python does not take
_OURS: Final = "SUPERVISE_"
_UMASK_MOST: Final = 0o777
_PAIR: Final = 2


class SurroundingsUnusable(Exception):
    """What a job was submitted from is not known; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a worker starts in; None is what its runner was given.

    `limits` are pairs of soft and hard by the names of LIMITS.
    """

    env: dict[str, str] | None = None
    umask: int | None = None
    limits: dict[str, tuple[int, int]] = field(default_factory=dict)


def capture(keep: Collection[str] = ()) -> dict[str, Any]:
    """Those of this process, as JSON: `format`, `env`, `umask`, `limits`, and `left_out`.

    `left_out` are the names of variables that look like secrets and are not among `keep`; their
    values are nowhere in it. Bytes of the environment that are no UTF-8 are lone surrogates
    (PEP 383), which JSON carries as escapes.
    """
    from supervisor.core.secrets import without_secrets  # noqa: PLC0415 - a runner never captures

    env, left_out = without_secrets(os.environ, keep)
    return {
        "format": FORMAT,
        "env": {name: value for name, value in env.items() if not name.startswith(_OURS)},
        "umask": _umask(),
        "limits": {name: list(resource.getrlimit(number)) for name, number in LIMITS.items()},
        "left_out": list(left_out),
    }


def write(folder: Path, surroundings: Mapping[str, Any]) -> None:
    """Store what `capture` gave in a job's folder, for its user alone: wholly or not at all.

    Raises:
        OSError: it could not be written; an earlier one is still there.
        SurroundingsUnusable: they are not what `capture` gives.
    """
    path = folder / "surroundings.json"
    understood(surroundings, path)
    with replacing(path, folder / ".surroundings.partial", mode=0o600) as file:
        file.write(json.dumps(dict(surroundings)).encode("ascii"))


def apply(path: Path) -> None:
    """Put on what the file says; where there is none, everything stays as it is.

    Soft limits are clipped to the hard ones of this process, which stay.

    Raises:
        SurroundingsUnusable: the file cannot be read or understood; nothing has changed.
    """
    try:
        given = understood(json.loads(path.read_bytes()), path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise _unusable(path, f"it is no JSON ({error})") from error
    if given.env is not None:
        own = {name: value for name, value in os.environ.items() if name.startswith(_OURS)}
        others = {name: text for name, text in given.env.items() if not name.startswith(_OURS)}
        os.environ.clear()
        os.environ.update(others | own)
    if given.umask is not None:
        os.umask(given.umask)
    for name, (soft, _) in given.limits.items():
        _limit(LIMITS[name], soft)


def understood(found: object, path: Path) -> Surroundings:
    """What a file, or a request, says: some of its fields, or none. Unknown keys are left alone.

    Raises:
        SurroundingsUnusable: it is of a newer version, or a field is not what it should be.
    """
    if not isinstance(found, Mapping):
        raise _unusable(path, "it is no JSON object")
    if found.get("format", FORMAT) != FORMAT:
        raise _unusable(path, f"it is of a newer supervise (format {found['format']})")
    said: dict[str, Any] = {}
    if "env" in found:
        env = found["env"]
        if not (isinstance(env, Mapping) and all(_is_variable(*one) for one in env.items())):
            raise _unusable(path, "its env is no environment")
        said["env"] = dict(env)
    if "umask" in found:
        umask = found["umask"]
        if not (isinstance(umask, int) and 0 <= umask <= _UMASK_MOST):
            raise _unusable(path, f"its umask is {umask!r}")
        said["umask"] = umask
    limits = found.get("limits", {})
    if not (isinstance(limits, Mapping) and all(_is_pair(one) for one in limits.values())):
        raise _unusable(path, "its limits are no pairs of numbers")
    known = {name: (one[0], one[1]) for name, one in limits.items() if name in LIMITS}
    return Surroundings(**said, limits=known)


def _is_variable(name: object, value: object) -> bool:
    """Whether execve(2) takes it, and os.environ can encode it."""
    if not (isinstance(name, str) and isinstance(value, str)):
        return False
    try:
        whole = os.fsencode(f"{name}={value}")
    except UnicodeEncodeError:
        return False
    return bool(name) and "=" not in name and b"\0" not in whole


def _is_pair(value: Any) -> bool:  # noqa: ANN401 - what json.loads gives
    if not (isinstance(value, list | tuple) and len(value) == _PAIR):
        return False
    return all(isinstance(one, int) and _UNLIMITED <= one < _UNBOUND for one in value)


def _umask() -> int:
    """That of this process, without setting it for a moment: other threads may make files."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    was = os.umask(0o077)  # a kernel before 4.7
    os.umask(was)
    return was


def _limit(number: int, soft: int) -> None:
    _, hard = resource.getrlimit(number)
    wanted = hard if soft == _UNLIMITED else soft
    if hard != _UNLIMITED:
        wanted = min(wanted, hard)
    # The kernel may refuse: open files beyond fs.nr_open, in a container with bounds of its own.
    with suppress(OSError, ValueError):
        resource.setrlimit(number, (wanted, hard))


def _unusable(path: Path, why: str) -> SurroundingsUnusable:
    return SurroundingsUnusable(
        f"the environment that the job was submitted from cannot be read from {path}: {why}. "
        "Nothing was started. Submit the job again; or remove that file, and it runs in the "
        "environment of the daemon."
    )
