"""What a training job comes to: the plan that its worker reads, and where its checkpoints are.

Owns the worker's view of the section `train`; relates no fields, and looks at no file.
Invariant: a plan's paths do not depend on where the runner stands.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from supervisor.spec.job import JobSpec
from supervisor.spec.paths import below, resolve
from supervisor.spec.train_sections import Train


@dataclass(frozen=True, slots=True)
class TrainPlan:
    """A training job as its worker sees it; `out` is absolute."""

    given: Train
    out: Path

    @property
    def processes(self) -> int:
        """How many processes train together."""
        return self.given.processes

    def to_json(self) -> str:
        """The plan as one JSON object; its keys are the fields of `workers.train.plan.Plan`.

        Durations are in seconds, and `loader.pin` is null where the worker is to choose.
        """
        plan = self.given.model_dump(mode="json") | {"out": str(self.out)}
        if plan["loader"]["pin"] == "auto":
            plan["loader"]["pin"] = None
        return json.dumps(plan, sort_keys=True, separators=(",", ":"), allow_nan=False)


def train_of(spec: JobSpec) -> TrainPlan | None:
    """Return the plan of a training job, None for any other."""
    if spec.train is None:
        return None
    return TrainPlan(spec.train, below(resolve(spec).cwd, spec.train.out))
