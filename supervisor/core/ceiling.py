"""Which checkpoints are to be avoided: those from the ceiling up.

Owns the ceiling's arithmetic. It comes down when an attempt could not load its checkpoint, or ran
sick; it holds for every attempt after that, until those checkpoints have been written anew.
"""

from supervisor.core.causes import Cause
from supervisor.core.events import CheckpointChosen
from supervisor.core.state import JobState


def lowered(state: JobState, cause: Cause) -> int | None:
    """The ceiling after an attempt of which the next one must resume from an older checkpoint."""
    if state.saved_step is None:
        return state.resumed_step
    # An attempt that went on to save had loaded its checkpoint: that one is not to blame.
    return state.ceiling if cause is Cause.BAD_CHECKPOINT else state.saved_step


def raised(state: JobState, verified_step: int) -> int | None:
    """The ceiling once this step has been saved and verified."""
    if state.ceiling is None or verified_step < state.ceiling:
        return state.ceiling
    # Copies of what the sick run left above this step may still exist.
    best = state.best_checkpoint
    return best if best is not None and verified_step < best else None


def nothing_usable(state: JobState, event: CheckpointChosen) -> str | None:
    """Why there is no checkpoint to start from although there was one; None if that is fine.

    Only the disk tier is meant to last: a restart of the host takes the snapshots in memory away.
    """
    if event.path is not None or (event.candidates == 0 and state.disk_checkpoint is None):
        return None
    if state.ceiling is not None:
        why = f"no checkpoint before step {state.ceiling} verifies"
    elif event.candidates:
        why = f"none of {event.candidates} checkpoints verifies"
    else:
        why = f"the checkpoints (the last at step {state.disk_checkpoint}) are gone"
    return f"{why}; it does not start from zero by itself"
