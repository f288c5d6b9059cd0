"""What can be known about the GPUs of this host, as plain values.

Owns the shapes that the probe fills and that everybody else reads; asks no driver. Every figure
that NVML may refuse is optional, and `None` always means "not known", never zero.
"""

from dataclasses import dataclass
from typing import Literal

ProcessKind = Literal["compute", "graphics"]


@dataclass(frozen=True, slots=True)
class Gpu:
    """A physical GPU, or a MIG instance of one, which is known by the uuid of its `parent`.

    `index` is the physical GPU's place in NVML's order (by PCI bus), and `bus_id` its address as
    the kernel log writes it: 0000:3b:00. `total_bytes` is 0 where NVML would not say. Where
    `leasable` is false, `note` says why; it may also say something about one that is.
    """

    uuid: str
    index: int
    name: str
    bus_id: str
    total_bytes: int
    parent: str | None = None
    leasable: bool = True
    note: str = ""


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process with a context on a GPU. In a container its pid may be another namespace's."""

    pid: int
    used_bytes: int | None
    kind: ProcessKind = "compute"


@dataclass(frozen=True, slots=True)
class Reading:
    """What one GPU does at this moment.

    `processes` is None where NVML would not say, which is not the same as empty. An empty list
    proves little inside a container: a driver that cannot translate pids answers that too.
    `problems` has a sentence for each figure that is missing although it was asked for.
    """

    uuid: str
    used_bytes: int | None = None
    utilization: float | None = None
    memory_utilization: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    temperature_c: float | None = None
    processes: tuple[GpuProcess, ...] | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inventory:
    """The GPUs of this host. `problem` says why there are none, or why the list may be short."""

    driver: str
    gpus: tuple[Gpu, ...]
    problem: str | None = None

    def find(self, uuid: str) -> Gpu | None:
        """Return the GPU or MIG instance of that uuid."""
        return next((gpu for gpu in self.gpus if gpu.uuid == uuid), None)
