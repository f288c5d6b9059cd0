"""Checks of what the GPU driver tells, and of the leases that jobs share.

Owns the findings on NVML, on figures by process, on GPUs set aside and on the lease folder.
"""

import os
import stat
from pathlib import Path

from supervisor.cli.diagnosis.facts import Check, Facts
from supervisor.cli.diagnosis.finding import Finding, missing, ok, weak
from supervisor.gpu import shared_folder
from supervisor.gpu.leases import Leases
from supervisor.gpu.model import Gpu
from supervisor.gpu.words import label, short_uuid

ANYBODY = stat.S_ISVTX | 0o777
BUSY_BYTES = 1 << 30  # in use on a GPU that names no process: more than a driver keeps for itself
NO_FIGURE_MEANS = (
    "A job's GPU memory is what its GPU uses beyond what it used before: right as long as nobody"
    " else is on it."
)


def _driver(facts: Facts) -> Finding:
    inventory, readings = facts.gpus()
    gpus = [one for one in inventory.gpus if one.parent is None]
    problems = [inventory.problem, *(line for one in readings for line in one.problems)]
    told = "; ".join(dict.fromkeys(filter(None, problems)))
    if not gpus:
        return missing(
            told or "the driver knows no GPU",
            "Jobs that ask for `resources.gpus` cannot start here; all others can.",
            "Nothing, if there is no GPU. Else install NVIDIA's driver; in a container, start it"
            " with --gpus all.",
        )
    found = f"driver {inventory.driver}; {_counted(gpus)}"
    if told:
        return weak(
            f"{found}; {told}",
            "What the driver does not tell is missing from limits and evidence.",
            "Compare with `nvidia-smi -q`, and look for NVRM in `dmesg`.",
        )
    return ok(found)


def _counted(gpus: list[Gpu]) -> str:
    names = [one.name for one in gpus]
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))


def _instances(facts: Facts) -> Finding | None:
    inventory, _ = facts.gpus()
    parts = [one for one in inventory.gpus if one.parent is not None]
    if not parts:
        return None
    indexes = ", ".join(sorted({str(one.index) for one in parts}))
    noun = "instance" if len(parts) == 1 else "instances"
    return ok(f"{len(parts)} {noun} of GPU {indexes}: leased one by one")


def _unusable(facts: Facts) -> Finding | None:
    """GPUs that the driver lists and no job gets; whole ones whose instances are leased are not."""
    inventory, _ = facts.gpus()
    parents = {one.parent for one in inventory.gpus}
    out = [one for one in inventory.gpus if not one.leasable and one.uuid not in parents]
    if not out:
        return None
    return weak(
        "; ".join(f"{label(one)}: {one.note or 'no reason is given'}" for one in out),
        "No job gets it.",
        "Settle what is said of it, then look at `supervise gpus`.",
    )


def _by_process(facts: Facts) -> Finding | None:
    inventory, readings = facts.gpus()
    if not readings:
        return None
    listed = [one for seen in readings for one in seen.processes or ()]
    if any(one.processes is None for one in readings):
        return weak("the driver does not list the processes on a GPU", NO_FIGURE_MEANS, _DO)
    if any(one.used_bytes is None for one in listed):
        return weak("the driver lists processes, without their memory", NO_FIGURE_MEANS, _DO)
    if listed:
        return ok(f"{len(listed)} processes are listed, with their memory")
    whole = {one.uuid for one in inventory.gpus if one.parent is None}
    if any(one.uuid in whole and (one.used_bytes or 0) > BUSY_BYTES for one in readings):
        return weak("memory is in use, and no process is listed", NO_FIGURE_MEANS, _DO)
    return ok("no process is on a GPU now; the driver would list them")


_DO = "In a container, share the host's process ids (--pid=host); on WSL and MIG there is no way."


def _set_aside(facts: Facts) -> Finding | None:
    found = Leases(shared_folder.lease_folder()).set_asides()
    if not found:
        return ok("none") if facts.gpus()[0].gpus else None
    words = "; ".join(f"{short_uuid(one.uuid)} ({one.reason})" for one in found)
    return weak(
        words,
        "No job gets a GPU that is set aside.",
        "When it is well again: supervise gpus --release UUID. A reboot also releases it.",
    )


def _leases(_facts: Facts) -> Finding:
    folder = shared_folder.lease_folder()
    try:
        with shared_folder.opened(folder, make=False) as descriptor:
            return _judged(folder, os.fstat(descriptor), "kept in")
    except FileNotFoundError:
        above = next(one for one in folder.parents if one.exists())
        return _judged(above, above.stat(), f"{folder} will be made in")
    except shared_folder.LeaseFolderUnusable as error:
        return missing(str(error), "No job gets a GPU.", f"See to the folder {folder}.")


def _judged(folder: Path, seen: os.stat_result, how: str) -> Finding:
    if not os.access(folder, os.W_OK | os.X_OK):
        return missing(
            f"{how} {folder}, where this user may not write",
            "No job of this user gets a GPU.",
            f"As root: install -d -m 1777 {shared_folder.IN_RUN}",
        )
    if seen.st_mode & ANYBODY != ANYBODY:
        return weak(
            f"{how} {folder}, which is not open to all users",
            "Jobs of other users can neither see these leases nor keep their own there.",
            f"Where several users share the GPUs, as root: chmod 1777 {folder}",
        )
    return ok(f"{how} {folder}, open to all users")


CHECKS = (
    Check("driver (NVML)", _driver),
    Check("MIG", _instances),
    Check("unusable GPUs", _unusable),
    Check("memory by process", _by_process),
    Check("set aside", _set_aside),
    Check("leases", _leases),
)
