"""A GPU that nobody uses, for what needs a real one: found, or a sentence why there is none.

Owns the choice, by the same judgement as a lease, and quick looks at the GPU through NVML. Takes no
lease: who measures is alone on it for a moment, and says so by being on it.
"""

import ctypes
from dataclasses import dataclass
from typing import Any

import pynvml

from benchmarks.cuda import LIBRARY
from supervisor.gpu.free import Facts, Standing, Want, judge
from supervisor.gpu.leases import LeaseFolderUnusable, Leases, lease_folder
from supervisor.gpu.model import Gpu, Inventory
from supervisor.gpu.probe import look
from supervisor.gpu.words import label

DRIVER_TIMEOUT_S = 20.0  # without its persistence daemon a driver begins with every first question


@dataclass(frozen=True, slots=True)
class Card:
    """One GPU. `others` are the uuids of all that could be leased instead of it."""

    gpu: Gpu
    others: tuple[str, ...]
    handle: Any

    @property
    def uuid(self) -> str:
        """As NVML and CUDA_VISIBLE_DEVICES have it."""
        return self.gpu.uuid

    def used_bytes(self) -> int:
        """How much of its memory is in use now, by whomever."""
        return int(pynvml.nvmlDeviceGetMemoryInfo(self.handle).used)

    def processes(self) -> dict[int, int | None]:
        """Pids of those who compute on it, each with its bytes where NVML says them."""
        try:
            listed = pynvml.nvmlDeviceGetComputeRunningProcesses(self.handle)
        except pynvml.NVMLError:
            return {}
        return {one.pid: one.usedGpuMemory for one in listed}

    def drawn_on(self) -> bool:
        """Whether somebody draws on it: a desktop would freeze."""
        try:
            return bool(pynvml.nvmlDeviceGetGraphicsRunningProcesses(self.handle))
        except pynvml.NVMLError:
            return False

    def power_share(self) -> float | None:
        """Its power now as a share of its limit; None where NVML does not say."""
        try:
            limit = pynvml.nvmlDeviceGetEnforcedPowerLimit(self.handle)
            return float(pynvml.nvmlDeviceGetPowerUsage(self.handle) / limit)
        except pynvml.NVMLError:
            return None


def found(need_bytes: int) -> Card | str:
    """A GPU with so much free memory that nobody uses; else why there is none."""
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return f"there is no {LIBRARY} here: no NVIDIA driver, or a container without its GPUs"
    inventory, readings = look(DRIVER_TIMEOUT_S)
    if not inventory.gpus:
        return inventory.problem or "this host has no NVIDIA GPU"
    leases = Leases(lease_folder())
    try:
        records, asides = leases.records(), leases.set_asides()
    except LeaseFolderUnusable as error:
        return str(error)
    by_uuid = {one.uuid: one for one in readings}
    facts = Facts(inventory, by_uuid, tuple(records), tuple(asides))
    want = Want(1, need_bytes, share=False)
    judged = {gpu.uuid: judge(gpu, want, facts) for gpu in inventory.gpus}
    for gpu in inventory.gpus:
        if judged[gpu.uuid][0] is Standing.FREE:
            return _card(gpu, inventory)
    whys = "; ".join(f"{label(gpu)}: {judged[gpu.uuid][1]}" for gpu in inventory.gpus)
    return f"no GPU is free: {whys}"


def _card(gpu: Gpu, inventory: Inventory) -> Card | str:
    others = tuple(one.uuid for one in inventory.gpus if one.leasable and one.uuid != gpu.uuid)
    try:
        pynvml.nvmlInit()
        return Card(gpu, others, pynvml.nvmlDeviceGetHandleByUUID(gpu.uuid.encode()))
    except pynvml.NVMLError as error:
        return f"NVML: {error}"
