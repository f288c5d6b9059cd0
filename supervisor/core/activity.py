"""What a worker was doing during a window of time, and what its figures mean.

Owns the record and the thresholds, each with its reason; judges nothing, and reads nothing itself.
Invariant: a figure that is unknown never counts as idle, nor as a proof of anything.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

# A core's share that sleeping processes use: watchdog, heartbeat and telemetry threads wake up ten
# times a second. Every process of a tree has some of them.
IDLE_CPU_SHARE = 0.03
IDLE_CPU_SHARE_EACH = 0.003
# A logger that samples the host every few seconds and writes a line moves less; a download that is
# worth waiting for moves more.
IDLE_IO_BYTES_PER_S = 32 * 1024
# New memory is touched at 0.4 MB/s: a slow download into memory, which no counter of I/O shows.
# A thread that runs `nvidia-smi` every few seconds causes more; such a hang is found later.
IDLE_FAULTS_PER_S = 100
# A worker that waits for a CPU for longer than it runs on one is slower than it would be by half.
STARVED_WAIT_SHARE = 0.2

IDLE_GPU_PERCENT = 5  # a desktop or a monitoring agent on the same GPU
SPIN_PERCENT = 98  # a kernel that waits is always there; one that works has gaps before the next
# Stuck collectives were seen at 14 to 25 % of the limit (see hang.py), and a badly fed but working
# 16-GPU training at 36 % (simplescaling/s1 #125): the bound lies between.
SPIN_POWER_SHARE = 0.30
SPIN_MEMORY_PERCENT = 2  # a kernel that polls a flag reads one cache line
WORK_POWER_SHARE = 0.45
WORK_MEMORY_PERCENT = 10

# Pressure (PSI, share of the last 10 s in percent) from which slowness is the host's fault. Some
# task waiting for a CPU is normal where data loaders outnumber the cores; all tasks waiting for
# memory or disk is not.
STARVED_CPU_PERCENT = 80.0
STARVED_MEMORY_PERCENT = 10.0
STARVED_IO_PERCENT = 40.0


@dataclass(frozen=True, slots=True)
class GpuActivity:
    """One GPU during the window: percentages and watts; None where the driver does not say.

    Of several readings, each figure is the highest, but for `lowest_utilization`; see `over`.
    """

    uuid: str
    utilization: float | None
    memory_utilization: float | None
    power_w: float | None
    power_limit_w: float | None
    lowest_utilization: float | None = None

    @property
    def power_share(self) -> float | None:
        """Power as a share of its limit."""
        if self.power_w is None or not self.power_limit_w:
            return None
        return self.power_w / self.power_limit_w


@dataclass(frozen=True, slots=True)
class Activity:
    """What the whole tree of a worker did in `window_s` seconds.

    `cpu_share` is of one core, and so is `cpu_wait_share`, the time in which it could have run if
    it had been given a CPU. `births` counts new processes. The pids of `stopped` and `traced`
    are given where that keeps the whole worker from running; `hindered` are single processes of
    it that are stopped or traced. `runnable` processes want a CPU, `uninterruptible` ones wait in
    the kernel. `starved` says in words which pressure of the host is high, if one is.
    """

    window_s: float
    cpu_share: float = 0.0
    io_bytes_per_s: float = 0.0
    faults_per_s: float = 0.0
    births: int = 0
    stopped: tuple[int, ...] = ()
    traced: tuple[int, ...] = ()
    frozen: bool = False
    uninterruptible: tuple[int, ...] = ()
    starved: str = ""
    gpus: tuple[GpuActivity, ...] = ()
    hindered: tuple[int, ...] = ()
    runnable: tuple[int, ...] = ()
    processes: int = 1
    cpu_wait_share: float = 0.0

    @property
    def cpu_idle(self) -> bool:
        """Whether it uses no more of a CPU than processes that sleep."""
        return self.cpu_share < IDLE_CPU_SHARE + IDLE_CPU_SHARE_EACH * self.processes

    @property
    def calm(self) -> bool:
        """Whether next to nothing changes: no I/O, no new memory, no new process."""
        return (
            self.io_bytes_per_s < IDLE_IO_BYTES_PER_S
            and self.faults_per_s < IDLE_FAULTS_PER_S
            and not self.births
        )

    @property
    def cpu_starved(self) -> bool:
        """Whether it waits for a CPU more than it runs: crowded out, or throttled by a quota."""
        return self.cpu_wait_share >= max(STARVED_WAIT_SHARE, self.cpu_share)

    @property
    def wants_host(self) -> bool:
        """Whether it would do something if the host let it; one that sleeps is not starved."""
        return bool(self.runnable or self.uninterruptible) or not (self.cpu_idle and self.calm)


class Use(Enum):
    """What the figures of a GPU say."""

    IDLE = "idle"
    SPINNING = "spinning"
    WORKING = "working"
    BUSY = "busy"  # whether with work is not known


def use_of(gpu: GpuActivity) -> Use:
    """What a GPU was used for. A GPU that is shared shows the work of others too."""
    if gpu.utilization is None:
        return Use.BUSY
    if gpu.utilization <= IDLE_GPU_PERCENT:
        return Use.IDLE
    memory, power = gpu.memory_utilization, gpu.power_share
    if (memory or 0.0) >= WORK_MEMORY_PERCENT or (power or 0.0) >= WORK_POWER_SHARE:
        return Use.WORKING
    if memory is None or power is None:
        return Use.BUSY
    lowest = gpu.utilization if gpu.lowest_utilization is None else gpu.lowest_utilization
    hardly_works = memory <= SPIN_MEMORY_PERCENT and power <= SPIN_POWER_SHARE
    return Use.SPINNING if lowest >= SPIN_PERCENT and hardly_works else Use.BUSY


def over(readings: Sequence[GpuActivity]) -> GpuActivity:
    """Several readings of one GPU as one: a single sign of work in the window is enough."""
    known = [one.utilization for one in readings if one.utilization is not None]
    return replace(
        readings[-1],
        utilization=max(known, default=None),
        lowest_utilization=min(known, default=None),
        memory_utilization=_highest(one.memory_utilization for one in readings),
        power_w=_highest(one.power_w for one in readings),
    )


def _highest(figures: Iterable[float | None]) -> float | None:
    return max((one for one in figures if one is not None), default=None)


def starvation(cpu_some: float | None, memory_full: float | None, io_full: float | None) -> str:
    """Which pressure of the host explains a slow worker, in words; "" if none does.

    Shares in percent of the time in which some, or all, tasks waited (PSI `avg10`); None where
    the kernel does not say.
    """
    waited = (
        ("memory", memory_full, STARVED_MEMORY_PERCENT),
        ("disks", io_full, STARVED_IO_PERCENT),
        ("a CPU", cpu_some, STARVED_CPU_PERCENT),
    )
    for what, share, most in waited:
        if share is not None and share >= most:
            return f"its tasks wait for {what} {share:.0f} % of the time"
    return ""
