"""Checks of how the host's memory is limited, and how a shortage of it is told.

Owns the findings on memory limits, out-of-memory kills, pressure and shared memory.
"""

from supervisor.cli.diagnosis.facts import Check, Facts
from supervisor.cli.diagnosis.finding import Finding, missing, ok, weak
from supervisor.core.amounts import size
from supervisor.host.kernel_log import KernelLog
from supervisor.host.pressure import pressure
from supervisor.host.space import space

ROOMY_SHM_BYTES = 1 << 30
FULL_PARTS = 10  # less than one part in so many free counts as full
FIRST_PID_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO of linux/proc_ns.h


def _limit(facts: Facts) -> Finding:
    offer = facts.offer()
    if offer.memory is not None:
        return ok(f"cgroup v{offer.version_memory}: the kernel keeps `resources.memory`")
    return weak(
        "no memory controller: the memory of a worker's tree is sampled",
        "A worker that grows faster than it is looked at can exhaust the host before it is killed.",
        facts.lacks("memory"),
    )


def _attribution(facts: Facts) -> Finding:
    offer = facts.offer()
    if offer.memory is not None:
        return ok(f"cgroup v{offer.version_memory} counts them for each attempt")
    log = KernelLog(facts.path("dev/kmsg"))
    log.close()
    if log.available and _names_our_pids(facts):
        return ok("the kernel's log names the process that was killed")
    counted = "oom_kill " in (facts.says("proc/vmstat") or "")
    how = "only counted for the whole host" if counted else "not told at all"
    why_not = log.why_not or "the kernel's log names processes by ids of outside this container"
    return (weak if counted else missing)(
        f"they are {how}",
        "A worker that the kernel killed for memory cannot be told for sure from one that somebody"
        " else killed.",
        f"{facts.lacks('memory')} Or else: {why_not}.",
    )


def _names_our_pids(facts: Facts) -> bool:
    """Whether process ids in the kernel's log are ours: those of the first pid namespace."""
    try:
        return str(facts.path("proc/self/ns/pid").readlink()) == FIRST_PID_NAMESPACE
    except OSError:
        return False


def _pressure(facts: Facts) -> Finding:
    seen = pressure(facts.path("proc/pressure"))
    named = {"cpu": seen.cpu_some, "memory": seen.memory_some, "disk": seen.io_some}
    if None in named.values():
        return weak(
            "the kernel does not tell (no /proc/pressure)",
            "A job that stands still because the host is starved looks like one that hangs.",
            "Boot with psi=1 on the kernel's command line; in a container, let /proc/pressure be"
            " seen.",
        )
    now = ", ".join(f"{name} {share:.0f} %" for name, share in named.items())
    return ok(f"the kernel tells; over the last 10 s: {now}")


def _shared(facts: Facts) -> Finding:
    folder = facts.path("dev/shm")
    if not folder.is_dir():
        return missing(
            f"there is no {folder}",
            "Data loaders with worker processes fail.",
            "Mount it: mount -t tmpfs tmpfs /dev/shm",
        )
    seen = space(folder)
    found = f"{size(seen.total_bytes)}, {size(seen.free_bytes)} free"
    if seen.total_bytes < ROOMY_SHM_BYTES:
        return weak(
            found,
            "Data loaders pass batches through /dev/shm; when it is full their workers die of"
            " SIGBUS.",
            "In a container: --shm-size=8g (or --ipc=host); on a host: mount -o remount,size=8g"
            " /dev/shm",
        )
    if seen.free_bytes * FULL_PARTS < seen.total_bytes:
        return weak(
            found,
            "It is nearly full: data loaders pass batches through it, and their workers die of"
            " SIGBUS.",
            "See what dead processes left: ls -la /dev/shm",
        )
    return ok(found)


CHECKS = (
    Check("memory limit", _limit),
    Check("out-of-memory kills", _attribution),
    Check("pressure", _pressure),
    Check("shared memory", _shared),
)
