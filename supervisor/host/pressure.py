"""How much this host's processes wait for what they need.

Owns reading the kernel's pressure stall information. Judges nothing. Invariant: a figure that the
kernel does not give is None, never 0.
"""

from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path("/proc/pressure")


@dataclass(frozen=True, slots=True)
class Pressure:
    """Share of the last ten seconds, in percent, that was waited; the kernel's psi.rst.

    `some`: at least one process waited; `full`: none that wanted to run could.
    """

    cpu_some: float | None = None
    memory_some: float | None = None
    memory_full: float | None = None
    io_some: float | None = None
    io_full: float | None = None


def pressure(folder: Path = _FOLDER) -> Pressure:
    """Read the pressure of the whole host; a kernel without PSI says nothing."""
    cpu, memory, io = (_shares(folder / name) for name in ("cpu", "memory", "io"))
    return Pressure(
        cpu_some=cpu.get("some"),
        memory_some=memory.get("some"),
        memory_full=memory.get("full"),
        io_some=io.get("some"),
        io_full=io.get("full"),
    )


def _shares(file: Path) -> dict[str, float]:
    try:
        text = file.read_text(encoding="ascii")
    except OSError:  # built without it, switched off (psi=0: reading fails), or hidden
        return {}
    found = {}
    for line in text.splitlines():  # some avg10=0.12 avg60=0.05 avg300=0.01 total=123456
        kind, _, figures = line.partition(" avg10=")
        share = figures.partition(" ")[0]
        if share:
            found[kind] = float(share)
    return found
