"""What a batch job comes to: which entry is called with what, and where results go.

Owns that `gradcam` is a `map` of our own entry. Reads no item and looks at no file.
Invariant: a plan's paths do not depend on where the runner stands.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from supervisor.spec.batch_kinds import is_entry
from supervisor.spec.batch_sections import GradCam
from supervisor.spec.job import JobSpec
from supervisor.spec.paths import below, resolve

GRADCAM_ENTRY: Final = "workers.gradcam:GradCam"
RESULTS: Final = "results.jsonl"
QUARANTINE: Final = "quarantine.jsonl"


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """A batch job as its workers see it.

    `items` is what the file says, to be understood from the job's cwd; `out` is absolute; `batch`
    None means one item a call. `contact_sheet` asks for an index.html of the results.
    """

    entry: str
    args: Mapping[str, object]
    items: str
    out: Path
    batch: int | None
    contact_sheet: bool

    @property
    def results(self) -> Path:
        """The file of results."""
        return self.out / RESULTS

    @property
    def quarantine(self) -> Path:
        """The file of quarantined items."""
        return self.out / QUARANTINE


def batch_of(spec: JobSpec) -> BatchPlan | None:
    """Return the plan of a batch job, None for any other."""
    cwd = resolve(spec).cwd
    if spec.map is not None:
        given = spec.map
        return BatchPlan(
            entry=given.entry,
            args=given.args,
            items=_expanded(given.items),
            out=below(cwd, given.out),
            batch=given.batch,
            contact_sheet=False,
        )
    if spec.gradcam is not None:
        return BatchPlan(
            entry=GRADCAM_ENTRY,
            args=_gradcam_args(spec.gradcam, cwd),
            items=_expanded(spec.gradcam.images),
            out=below(cwd, spec.gradcam.out),
            batch=None,
            contact_sheet=True,
        )
    return None


def _gradcam_args(given: GradCam, cwd: Path) -> dict[str, object]:
    """Give all that is neither items nor out, as plain data with absolute paths."""
    args = given.model_dump(mode="json", by_alias=True, exclude={"images", "out"})
    files = ["weights", "labels"] if is_entry(given.model) else ["model", "weights", "labels"]
    return args | {name: str(below(cwd, args[name])) for name in files if args[name] is not None}


def _expanded(text: str) -> str:
    # Path.expanduser raises for a user nobody knows; this one leaves the text alone.
    return os.path.expanduser(text)  # noqa: PTH111 - see above
