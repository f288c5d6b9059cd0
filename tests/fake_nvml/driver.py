"""The Python side of the fake NVML: what its state file says, and how a test changes it.

Owns the format that fake_nvml.c reads, and the compiled library. A test sees the fixture
`fake_gpus`: an `NvmlDriver` with `LD_LIBRARY_PATH` and FAKE_NVML_STATE set, so that every child
process, and a `supervise` started as a command too, finds the library. Nothing here imports pynvml.
"""

import os
import shutil
import subprocess
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("fake_nvml.c")
LIBRARY = "libnvidia-ml.so.1"
VARIABLE = "FAKE_NVML_STATE"
GIB = 1024**3

FOR_EVER = -1.0
CODES = {
    "UNINITIALIZED": 1,
    "NOT_SUPPORTED": 3,
    "NO_PERMISSION": 4,
    "NOT_FOUND": 6,
    "DRIVER_NOT_LOADED": 9,
    "FUNCTION_NOT_FOUND": 13,
    "GPU_IS_LOST": 15,
    "RESET_REQUIRED": 16,
    "LIB_RM_VERSION_MISMATCH": 18,
    "UNKNOWN": 999,
}
XID, DOUBLE_BIT_ECC = 0x8, 0x2


def compiler() -> str | None:
    """Return a C compiler, where there is one."""
    return shutil.which("gcc") or shutil.which("cc")


def build(folder: Path) -> Path:
    """Compile the library into the folder, which LD_LIBRARY_PATH is to name."""
    command = [compiler() or "cc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    command += ["-fvisibility=hidden", f"-Wl,-soname,{LIBRARY}", "-o", folder / LIBRARY, SOURCE]
    subprocess.run(command, check=True)
    return folder


@dataclass
class FakeGpu:
    """One GPU, or with a `parent` one MIG instance. A figure of -1 is one that NVML has not."""

    uuid: str
    name: str = "NVIDIA H200"
    domain: int = 0
    bus: int = 0
    total: int = 140 * GIB
    used: int = 0
    utilization: int = 0
    memory_utilization: int = 0
    power_mw: int = 75_000
    power_limit_mw: int = 700_000
    temperature_c: int = 35
    ecc_uncorrected: int = 0
    compute_mode: int = 0
    recovery_action: int = 0
    mig: int = 0
    event_types: int = XID | DOUBLE_BIT_ECC
    event_instance: int = -1
    parent: str = "-"
    gpu_instance: int = 0

    def lines(self) -> list[str]:
        """Return what the library reads of it."""
        place = (self.gpu_instance, 0) if self.parent != "-" else (self.domain, self.bus)
        told = [f"gpu {self.uuid} {self.parent} {place[0]:x} {place[1]:x} {self.name}"]
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, int) and one.name not in {"domain", "bus", "gpu_instance"}:
                told.append(f"set {self.uuid} {one.name} {value}")
        return told


@dataclass
class NvmlDriver:
    """What the fake library says. Every method takes effect before it returns."""

    path: Path
    version: str = "580.65.06"
    gpus: list[FakeGpu] = field(default_factory=list)
    processes: list[tuple[str, int, int, str]] = field(default_factory=list)
    events: list[tuple[int, str, int, int]] = field(default_factory=list)
    fails: dict[tuple[str, str], int] = field(default_factory=dict)
    blocks: dict[tuple[str, str], float] = field(default_factory=dict)
    _written_ns: int = 0

    def add_gpu(self, **figures: Any) -> str:
        """Add a physical GPU, by default an empty H200, and return its uuid."""
        number = sum(gpu.parent == "-" for gpu in self.gpus)
        figures.setdefault("uuid", f"GPU-00000000-0000-4000-8000-{number:012}")
        figures.setdefault("bus", 0x10 + number)
        return self._add(FakeGpu(**figures))

    def add_instance(self, parent: str, **figures: Any) -> str:
        """Switch a GPU to MIG, add an instance, and return the instance's uuid."""
        number = sum(gpu.parent == parent for gpu in self.gpus)
        figures.setdefault("uuid", f"MIG-{parent[-12:]}-0000-4000-8000-{number:012}")
        figures.setdefault("name", "NVIDIA H200 MIG 1g.18gb")
        figures.setdefault("total", 18 * GIB)
        figures.setdefault("gpu_instance", number + 7)
        self.set(parent, mig=1)
        return self._add(FakeGpu(parent=parent, power_mw=-1, utilization=-1, **figures))

    def _add(self, gpu: FakeGpu) -> str:
        self.gpus.append(gpu)
        self.write()
        return gpu.uuid

    def gpu(self, uuid: str) -> FakeGpu:
        """Return the GPU or instance of that uuid."""
        return next(gpu for gpu in self.gpus if gpu.uuid == uuid)

    def set(self, uuid: str, **figures: Any) -> None:
        """Change figures of a GPU: `used`, `utilization`, `power_mw`, `ecc_uncorrected` ..."""
        gpu = self.gpu(uuid)
        known = {one.name for one in fields(gpu)}
        assert figures.keys() <= known, f"not in FakeGpu: {sorted(figures.keys() - known)}"
        for name, value in figures.items():
            setattr(gpu, name, value)
        self.write()

    def remove_gpu(self, uuid: str) -> None:
        """Take a GPU away: it is listed no more, and handles of it say that it is lost."""
        self.gpus = [gpu for gpu in self.gpus if gpu.uuid != uuid]
        self.write()

    def add_process(
        self, uuid: str, pid: int, used: int | None = GIB, kind: str = "compute"
    ) -> None:
        """Put a process on a GPU and its memory into the GPU's. None: NVML has no figure for it."""
        self.processes.append((uuid, pid, -1 if used is None else used, kind))
        self.set(uuid, used=self.gpu(uuid).used + (used or 0))

    def remove_process(self, uuid: str, pid: int, *, keeps_memory: bool = False) -> None:
        """Take a process off a GPU; its memory comes back, unless it leaks."""
        gone = [one for one in self.processes if one[:2] == (uuid, pid)]
        self.processes = [one for one in self.processes if one not in gone]
        freed = 0 if keeps_memory else sum(max(0, one[2]) for one in gone)
        self.set(uuid, used=self.gpu(uuid).used - freed)

    def raise_xid(self, uuid: str, code: int) -> None:
        """Let the driver report an Xid now."""
        self.raise_event(uuid, XID, code)

    def raise_event(self, uuid: str, kind: int, data: int = 0) -> None:
        """Let the driver report any event now: `kind` is an nvmlEventType."""
        self.events.append((len(self.events) + 1, uuid, kind, data))
        self.write()

    def fail(self, function: str, code: str | int, uuid: str = "*") -> None:
        """Let a function return an error, by name or number; `*` is every function."""
        self.fails[function, uuid] = CODES[code] if isinstance(code, str) else code
        self.write()

    def block(self, function: str, uuid: str = "*", seconds: float = FOR_EVER) -> None:
        """Let a function take so long before it answers, or not answer until `mend`."""
        self.blocks[function, uuid] = seconds
        self.write()

    def mend(self) -> None:
        """End every failure and every block."""
        self.fails.clear()
        self.blocks.clear()
        self.write()

    def write(self) -> None:
        """Put the state in place of the one before, whole."""
        lines = [f"driver {self.version}"]
        lines += [line for gpu in self.gpus for line in gpu.lines()]
        lines += [f"process {u} {pid} {used} {kind}" for u, pid, used, kind in self.processes]
        lines += [f"event {n} {u} {kind} {data}" for n, u, kind, data in self.events]
        lines += [f"fail {name} {u} {code}" for (name, u), code in self.fails.items()]
        lines += [f"block {name} {u} {s}" for (name, u), s in self.blocks.items()]
        new = self.path.with_suffix(".new")
        new.write_text("\n".join(lines) + "\n")
        # The library knows a new state by its time, and clocks of file systems are coarse.
        self._written_ns = max(self._written_ns + 1, time.time_ns())
        os.utime(new, ns=(self._written_ns, self._written_ns))
        new.replace(self.path)
