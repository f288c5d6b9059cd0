"""What a run's end means to a shell.

Owns the exit codes, which are documented and never change.
"""

from supervisor.core.causes import State
from supervisor.runner.run import Outcome

FAILED, USAGE, HOLDING, STOPPED, INTERRUPTED_TWICE = 1, 2, 3, 75, 130

_CODES = {
    State.SUCCEEDED: 0,
    State.FAILED: FAILED,
    State.HOLDING: HOLDING,
    State.STOPPED: STOPPED,
}


def exit_code(outcome: Outcome) -> int:
    """The exit code of `supervise run` and of a detached runner."""
    return INTERRUPTED_TWICE if outcome.forced else _CODES.get(outcome.state, FAILED)
