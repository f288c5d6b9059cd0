"""A GPU as a JSON document, the same as in `supervise gpus --json`.

Owns what is told of one that looks free and may not be; its fields are those of the views.
"""

from supervisor.daemon.contracts import Json
from supervisor.gpu.free import Facts, Standing, Want, judge
from supervisor.gpu.model import Gpu, Reading
from supervisor.views.gpus import gpu_fields


def document(gpu: Gpu, facts: Facts, want: Want, trouble: str) -> Json:
    """All that is known of one GPU. `trouble`: why what looks free may not be."""
    now = facts.readings.get(gpu.uuid, Reading(gpu.uuid))
    standing, why = judge(gpu, want, facts)
    if trouble and standing is Standing.FREE:
        standing, why = Standing.UNKNOWN, trouble
    asides = [one for one in facts.asides if one.uuid in {gpu.uuid, gpu.parent}]
    return gpu_fields(gpu, now, (standing, why), facts.leases_on(gpu), asides)
