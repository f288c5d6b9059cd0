"""What the end of a run, or of any verb, means to a shell.

Owns the exit codes, which are documented and never change.
"""

from enum import IntEnum

from supervisor.core.causes import State


class Exit(IntEnum):
    """What the exit code says."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    HOLDING = 3
    STOPPED = 75
    INTERRUPTED = 130


_CODES = {
    State.SUCCEEDED: Exit.DONE,
    State.FAILED: Exit.FAILED,
    State.HOLDING: Exit.HOLDING,
    State.STOPPED: Exit.STOPPED,
}


def exit_code(state: State, *, forced: bool) -> Exit:
    """The exit code of `supervise run` and of a detached runner; `forced`: interrupted twice."""
    return Exit.INTERRUPTED if forced else _CODES.get(state, Exit.FAILED)
