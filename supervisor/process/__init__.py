"""Isolated children: started by a launcher, ended with everything they started.

Owns spawning, waiting, stopping, killing and reaping; decides nothing about jobs. Invariant: a
child does not outlive the block it was made in, nor its parent.

Two forms: `isolated_child`, asynchronous, for any program; `isolated_process`, blocking, for a
Python function. The second pickles and therefore loads only when it is asked for. A `Zygote` makes
the first form quick for Python programs with heavy imports.
"""

from typing import TYPE_CHECKING

from supervisor.process.child import Child, isolated_child
from supervisor.process.command import Command, ExitStatus, LauncherDied, SpawnFailed
from supervisor.process.failures import (
    ChildExited,
    ChildFailed,
    ChildRaised,
    ChildSignaled,
    ChildTimedOut,
)
from supervisor.process.ladder import ChildUnkillable
from supervisor.process.launcher import Launcher
from supervisor.process.limits import Limits
from supervisor.process.warm import warm_reason
from supervisor.process.zygote import Preload, Zygote, ZygoteFailed

if TYPE_CHECKING:
    from supervisor.process.call import IsolatedProcess, Options, isolated_process

__all__ = [
    "Child",
    "ChildExited",
    "ChildFailed",
    "ChildRaised",
    "ChildSignaled",
    "ChildTimedOut",
    "ChildUnkillable",
    "Command",
    "ExitStatus",
    "IsolatedProcess",
    "Launcher",
    "LauncherDied",
    "Limits",
    "Options",
    "Preload",
    "SpawnFailed",
    "Zygote",
    "ZygoteFailed",
    "isolated_child",
    "isolated_process",
    "warm_reason",
]

_BLOCKING_FORM = frozenset({"IsolatedProcess", "Options", "isolated_process"})


def __getattr__(name: str) -> object:
    if name in _BLOCKING_FORM:
        from supervisor.process import call  # noqa: PLC0415 -- it imports pickle; see above

        return getattr(call, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
