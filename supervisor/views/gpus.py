"""A GPU as a JSON document: `supervise gpus --json`, and what the API answers.

Owns the names of its fields; judges nothing that `gpu.free` does not.
"""

from collections.abc import Sequence

from supervisor.gpu.aside import SetAside
from supervisor.gpu.free import Judgement
from supervisor.gpu.lease_files import LeaseRecord
from supervisor.gpu.model import Gpu, GpuProcess, Reading
from supervisor.gpu.words import process_name
from supervisor.views.fields import Fields
from supervisor.views.times import iso


def gpu_fields(
    gpu: Gpu,
    now: Reading,
    judgement: Judgement,
    leases: Sequence[LeaseRecord],
    asides: Sequence[SetAside],
) -> Fields:
    """All that is known of one GPU, as the reading has it; what the driver does not say is null."""
    standing, why = judgement
    return {
        "index": gpu.index,
        "uuid": gpu.uuid,
        "name": gpu.name,
        "bus_id": gpu.bus_id or None,
        "parent": gpu.parent,
        "state": str(standing),
        "why": why,
        "note": gpu.note or None,
        "total_bytes": gpu.total_bytes or None,
        "used_bytes": now.used_bytes,
        "utilization": now.utilization,
        "memory_utilization": now.memory_utilization,
        "power_w": now.power_w,
        "power_limit_w": now.power_limit_w,
        "temperature_c": now.temperature_c,
        "processes": None if now.processes is None else [_process(one) for one in now.processes],
        "leases": [_lease(one) for one in leases],
        "set_aside": [_aside(one) for one in asides],
        "problems": list(now.problems),
    }


def _process(one: GpuProcess) -> Fields:
    return {
        "pid": one.pid,
        "name": process_name(one.pid) or None,
        "kind": one.kind,
        "used_bytes": one.used_bytes,
    }


def _lease(one: LeaseRecord) -> Fields:
    known = not one.problem
    return {
        "job": one.owner.job_id if known else None,
        "state_dir": one.owner.state_dir if known else None,
        "runner_pid": one.owner.pid if known else None,
        "runner_alive": one.owner.lives if known else None,
        "user_id": one.user if one.user >= 0 else None,
        "share": one.share if known else None,
        "memory_bytes": one.memory_bytes,
        "since": iso(one.at_s) if known else None,
        "problem": one.problem or None,
    }


def _aside(one: SetAside) -> Fields:
    at = iso(one.at_s) if one.at_s else None
    return {"reason": one.reason, "job": one.job_id or None, "since": at}
