"""A job's checkpoints as they lie on disk now.

Owns the way from a job's frozen spec to its layout. Reads only.
"""

from supervisor.checkpoint import Layout
from supervisor.runner.settings import Settings
from supervisor.spec.frozen import thaw
from supervisor.views.chosen import Chosen


def layout_of(chosen: Chosen) -> Layout | None:
    """Where the job's checkpoints lie; None for a job that has none.

    Raises:
        SpecError: the frozen spec is damaged or from a newer version.
    """
    return Settings.of(thaw(chosen.record.spec)).layout


def no_layout(chosen: Chosen) -> str:
    """What to say of a job that has no checkpoints."""
    return f"{chosen.record.id} has no checkpoints: its job.yaml has no section `checkpoint`"
