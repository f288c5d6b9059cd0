"""Which GPUs there are, and what each of them does, in questions to NVML.

Owns the inventory and the readings; runs in the probe's child process only. Never raises for what
NVML refuses: the figure is None and a sentence says why, or the GPU is listed as not leasable.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pynvml

from supervisor.gpu.model import Gpu, GpuProcess, Inventory, ProcessKind, Reading
from supervisor.gpu.nvml import (
    GONE,
    RECOVERY_ACTIONS,
    Answer,
    Error,
    Handle,
    Nvml,
    text,
    words,
)

Call = tuple[Any, ...]
"""A function of pynvml, and its arguments after the handle."""

# A driver older than the call answers one of these; then an older call is tried.
TOO_OLD = (
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
)

# Processes served by MPS are listed apart. One that computes and draws is in two lists, with the
# same memory: the first counts.
PROCESS_LISTS: tuple[tuple[ProcessKind, str, bool], ...] = (
    ("compute", "nvmlDeviceGetComputeRunningProcesses", True),
    ("compute", "nvmlDeviceGetMPSComputeRunningProcesses", False),
    ("graphics", "nvmlDeviceGetGraphicsRunningProcesses", False),
)

MEMORY: tuple[Call, ...] = (
    ("nvmlDeviceGetMemoryInfo", pynvml.nvmlMemory_v2),  # without what the driver keeps for itself
    ("nvmlDeviceGetMemoryInfo",),
)


class Questions:
    """Questions about one GPU: refusals are noted, and once it is gone it is left in peace."""

    def __init__(self, nvml: Nvml, uuid: str) -> None:
        self.uuid = uuid
        self.problems: list[str] = []
        self.gone = ""
        self._nvml = nvml

    def of(self, what: str, *calls: Call) -> Answer:
        """Return the answer to the first call that the driver knows, or None.

        `what` is the figure in words; a refusal is not worth noting where it is empty.
        """
        refusal = None
        for function, *arguments in () if self.gone else calls:
            try:
                return self._nvml.ask(self.uuid, function, self._handle(), *arguments)
            except Error as error:
                refusal = error
                if error.value not in TOO_OLD:
                    break
        if refusal is not None and refusal.value in GONE:
            self.gone = words(refusal)
        if refusal is not None and (what or self.gone):
            self.problems.append(f"{what or 'the GPU'}: {words(refusal)}")
        return None

    def number(self, what: str, *calls: Call, per: int = 1) -> float | None:
        """Return a figure, `per` of which are one."""
        answer = self.of(what, *calls)
        return None if answer is None else answer / per

    def processes(self) -> tuple[GpuProcess, ...] | None:
        """Return the processes on it, each once; None where NVML would not say."""
        found: dict[int, GpuProcess] = {}
        for kind, name, essential in PROCESS_LISTS:
            # Without graphics, or without MPS, a GPU may say so by an error.
            what = "processes" if essential else ""
            listed = self.of(what, (f"{name}_v3",), (f"{name}_v2",))
            if listed is None and essential:
                return None
            for one in listed or ():
                found.setdefault(one.pid, GpuProcess(one.pid, one.usedGpuMemory, kind))
        return None if self.gone else tuple(found.values())

    def _handle(self) -> Handle:
        return self._nvml.handle(self.uuid)


def driver(nvml: Nvml) -> tuple[Inventory, int]:
    """Return the driver's version, or why there is none, and how many physical GPUs it knows."""
    problem = nvml.begin()
    if problem:
        return Inventory("", (), problem), 0
    try:
        version = text(nvml.ask("", "nvmlSystemGetDriverVersion"))
        return Inventory(version, ()), int(nvml.ask("", "nvmlDeviceGetCount"))
    except Error as error:
        return Inventory("", (), f"NVML: {words(error)}; `nvidia-smi` may say more"), 0


def listed(nvml: Nvml, index: int) -> Inventory:
    """Return one physical GPU and its MIG instances, or the reason why it cannot be listed."""
    problem = nvml.begin()
    if problem:
        return Inventory("", (), problem)
    place = f"GPU {index}"
    try:
        uuid = nvml.remember(nvml.ask(place, "nvmlDeviceGetHandleByIndex", index), place)
    except Error as error:
        return Inventory("", (), f"{place} cannot be listed: {words(error)}")
    asked = Questions(nvml, uuid)
    pci = asked.of("its place on the bus", ("nvmlDeviceGetPciInfo",))
    bus_id = f"{pci.domain:04x}:{pci.bus:02x}:{pci.device:02x}" if pci else ""
    whole = Gpu(uuid, index, _name(asked), bus_id, _total_bytes(asked))
    mig = asked.of("", ("nvmlDeviceGetMigMode",))
    instances = _instances(nvml, whole) if mig and mig[0] else None
    why_not = _why_not(nvml, asked, instances)
    if why_not:
        whole = replace(whole, leasable=False, note=why_not)
    return Inventory("", (whole, *(instances or ())))


def read(nvml: Nvml, uuids: Iterable[str]) -> tuple[Reading, ...]:
    """Return what each of these GPUs or instances does now, in this order."""
    problem = nvml.begin()
    if problem:
        return tuple(Reading(uuid, problems=(problem,)) for uuid in uuids)
    return tuple(_reading(Questions(nvml, uuid)) for uuid in uuids)


def _reading(asked: Questions) -> Reading:
    memory = asked.of("memory", *MEMORY)
    used_bytes = int(memory.used) if memory else None
    processes = asked.processes()
    if asked.uuid.startswith("MIG-"):  # the rest is measured for whole GPUs only
        problems = tuple(asked.problems)
        return Reading(asked.uuid, used_bytes, processes=processes, problems=problems)
    rates = asked.of("utilization", ("nvmlDeviceGetUtilizationRates",))
    power = asked.number("power", ("nvmlDeviceGetPowerUsage",), per=1000)
    limit = asked.number("the power limit", ("nvmlDeviceGetEnforcedPowerLimit",), per=1000)
    sensor = pynvml.NVML_TEMPERATURE_GPU
    return Reading(
        asked.uuid,
        used_bytes,
        utilization=float(rates.gpu) if rates else None,
        memory_utilization=float(rates.memory) if rates else None,
        power_w=power,
        power_limit_w=limit,
        temperature_c=asked.number("temperature", ("nvmlDeviceGetTemperature", sensor)),
        processes=None if asked.gone else processes,
        problems=tuple(asked.problems),
    )


def _why_not(nvml: Nvml, asked: Questions, instances: tuple[Gpu, ...] | None) -> str:
    """Return why a physical GPU may not be leased, or nothing."""
    mode = asked.of("", ("nvmlDeviceGetComputeMode",))
    if asked.gone:
        return f"{asked.gone}: see `dmesg`; a reset of the GPU or a reboot may bring it back"
    if instances is not None and not instances:
        return "MIG is on, but there are no instances: `nvidia-smi mig -cgi ... -C` makes some"
    if instances:
        return "MIG is on: its instances are leased, not the whole"
    if mode == pynvml.NVML_COMPUTEMODE_PROHIBITED:
        return "its compute mode is Prohibited: `nvidia-smi -c DEFAULT` allows work on it"
    wanted = RECOVERY_ACTIONS.get(nvml.recovery_action(asked.uuid) or 0)
    return f"the driver asks for {wanted}" if wanted else ""


def _instances(nvml: Nvml, whole: Gpu) -> tuple[Gpu, ...]:
    asked = Questions(nvml, whole.uuid)
    found = []
    for place in range(asked.of("", ("nvmlDeviceGetMaxMigDeviceCount",)) or 0):
        handle = asked.of("", ("nvmlDeviceGetMigDeviceHandleByIndex", place))
        if handle is None:  # nothing at this place
            continue
        try:
            one = Questions(nvml, nvml.remember(handle, whole.uuid))
        except Error:
            continue
        bytes_ = _total_bytes(one)
        found.append(Gpu(one.uuid, whole.index, _name(one), whole.bus_id, bytes_, whole.uuid))
    return tuple(found)


def _name(asked: Questions) -> str:
    return text(asked.of("its name", ("nvmlDeviceGetName",)) or "unnamed GPU")


def _total_bytes(asked: Questions) -> int:
    memory = asked.of("memory", *MEMORY)
    return int(memory.total) if memory else 0
