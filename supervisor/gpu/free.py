"""Which GPUs a job may have, and in words why not the others.

Owns the judgement; pure but for the names of processes. It fails closed: a GPU is free only when
everything that could say otherwise was heard. `CHECKS` is the order in which it is asked.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from supervisor.gpu.aside import SetAside
from supervisor.gpu.lease_files import LeaseRecord
from supervisor.gpu.model import Gpu, GpuProcess, Inventory, Reading
from supervisor.gpu.words import gib, handle, label, process, since

# What may be in use on a GPU that nobody uses: older drivers count their own reserve as used, some
# hundred MiB on large cards, and a desktop that NVML does not list takes as much. A job that has
# begun to work is above it: its CUDA context alone takes 300 to 500 MB. On a small MIG instance,
# a tenth.
IDLE_BYTES = 1 << 30
IDLE_PART = 10
NAMED = 3  # so many processes are named in a sentence


class Standing(StrEnum):
    """What a GPU is, to whoever wants one."""

    FREE = "free"
    LEASED = "leased"
    USED = "used"
    SET_ASIDE = "set_aside"
    NOT_LEASABLE = "not_leasable"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Want:
    """What a job asks for. `memory_bytes` is what it needs of each GPU; None: it did not say.

    `avoid` it never gets; `prefer`, which it had before, come first. With `share` it puts up with
    other jobs that said the same, as far as their declared memory fits.
    """

    count: int
    memory_bytes: int | None
    share: bool
    avoid: frozenset[str] = frozenset()
    prefer: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """No lease. `never`: no waiting can help on this host. `per_gpu`: (uuid, why) of each GPU."""

    reason: str
    never: bool
    per_gpu: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """The reason, with what there is to say about each GPU."""
        return "; ".join((self.reason, *(why for _, why in self.per_gpu)))


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known when it is decided. `own_pids` are of the job's own tree."""

    inventory: Inventory
    readings: Mapping[str, Reading]
    records: tuple[LeaseRecord, ...]
    asides: tuple[SetAside, ...]
    own_pids: frozenset[int] = frozenset()

    def leases_on(self, gpu: Gpu) -> list[LeaseRecord]:
        """The leases that hold on a GPU."""
        return [one for one in self.records if one.covers(gpu)]


Judgement = tuple[Standing, str]
Check = Callable[[Gpu, Want, Facts], Judgement | None]


def judge(gpu: Gpu, want: Want, facts: Facts) -> Judgement:
    """What a GPU is to a job, and why, without its name; free when no check objects."""
    for check in CHECKS:
        objection = check(gpu, want, facts)
        if objection is not None:
            return objection
    return Standing.FREE, "free"


def choose(want: Want, facts: Facts) -> tuple[str, ...] | Refused:
    """The GPUs that the job gets: all that it wants, or none."""
    if want.count < 1:
        raise ValueError(f"a lease is of one GPU or more: {want.count}")
    gpus = facts.inventory.gpus
    judged = {gpu.uuid: judge(gpu, want, facts) for gpu in gpus}
    # "GPU 1 (GPU-ab12cd34…, A100): leased to job …"
    per_gpu = tuple((gpu.uuid, f"{label(gpu)}: {judged[gpu.uuid][1]}") for gpu in gpus)
    impossible = _impossible(want, facts.inventory)
    if impossible:
        return Refused(impossible, facts.inventory.problem is None, per_gpu)
    free = [gpu for gpu in gpus if judged[gpu.uuid][0] is Standing.FREE]
    if len(free) < want.count:
        some = f"only {len(free)}" if free else "none"
        of = len([gpu for gpu in gpus if gpu.leasable])
        reason = f"the job wants {_gpus(want.count)}, and {some} of {of} is free"
        return Refused(reason, never=False, per_gpu=per_gpu)
    return tuple(gpu.uuid for gpu in sorted(free, key=_order(want, facts))[: want.count])


def _order(want: Want, facts: Facts) -> Callable[[Gpu], tuple[int, float]]:
    """What it had before comes first; then, to share, the emptiest. Else as the host has them."""

    def key(gpu: Gpu) -> tuple[int, float]:
        liked = want.prefer.index(gpu.uuid) if gpu.uuid in want.prefer else len(want.prefer)
        return liked, -(_free_bytes(gpu, facts) or 0) if want.share else 0

    return key


def _impossible(want: Want, inventory: Inventory) -> str:
    """Why no GPU of this host could ever do; empty if some could."""
    leasable = [gpu for gpu in inventory.gpus if gpu.leasable]
    if len(leasable) < want.count:
        have = str(len(leasable)) if leasable else "none"
        that = "" if len(leasable) == len(inventory.gpus) else " that a job can use"
        why = f": {inventory.problem}" if inventory.problem else ""
        return f"the job wants {_gpus(want.count)}, this host has {have}{that}{why}"
    need = want.memory_bytes or 0
    large = [gpu for gpu in leasable if gpu.total_bytes >= need or not gpu.total_bytes]
    if len(large) < want.count:
        most = gib(max(gpu.total_bytes for gpu in leasable))
        have = str(len(large)) if large else "none"
        return (
            f"the job wants {_gpus(want.count)} with {gib(need)}, this host has {have} so large; "
            f"the largest has {most}"
        )
    return ""


def _gpus(count: int) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs"


def _not_leasable(gpu: Gpu, _want: Want, _facts: Facts) -> Judgement | None:
    return None if gpu.leasable else (Standing.NOT_LEASABLE, gpu.note or "it cannot be leased")


def _set_aside(gpu: Gpu, _want: Want, facts: Facts) -> Judgement | None:
    for one in facts.asides:
        if one.uuid in {gpu.uuid, gpu.parent}:
            typed = handle(gpu) if one.uuid == gpu.uuid else str(gpu.index)
            words = f"set aside: {one.reason}; release it with: supervise gpus --release {typed}"
            return Standing.SET_ASIDE, words
    return None


def _leased(gpu: Gpu, want: Want, facts: Facts) -> Judgement | None:
    there = facts.leases_on(gpu)
    if not there:
        return None
    closed = next((one for one in there if one.problem or not (one.share and want.share)), None)
    if closed is not None:
        return Standing.LEASED, lease_words(closed)
    silent = next((one for one in there if one.memory_bytes is None), None)
    if silent is not None:
        return Standing.LEASED, f"{lease_words(silent)}, without saying how much memory it needs"
    if want.memory_bytes is None:
        words = f"shared by {_jobs(there)}; to join, say how much memory this job needs"
        return Standing.LEASED, f"{words} (resources: gpu_memory)"
    promised = sum(one.memory_bytes or 0 for one in there)
    if promised + want.memory_bytes > gpu.total_bytes:
        return Standing.LEASED, (
            f"shared by {_jobs(there)}: {gib(promised)} of its {gib(gpu.total_bytes)} are "
            f"promised, and the job wants {gib(want.memory_bytes)}"
        )
    return None


def lease_words(one: LeaseRecord) -> str:
    """`leased to job digits-3fa2 (runner 812) since 10:31`."""
    if one.problem:
        return (
            f"leased, perhaps: {one.file} in the lease folder is locked, but {one.problem}. "
            "It may be of a newer version; it counts for every GPU until its process ends"
        )
    how = "shared by" if one.share else "leased to"
    runner = f"runner {one.owner.pid}"
    if not one.owner.lives:  # said, not judged: the lock is what counts
        runner += ", which is gone or in another container; its worker still holds it"
    return f"{how} job {one.owner.job_id} ({runner}) since {since(one.at_s)}"


def _jobs(records: list[LeaseRecord]) -> str:
    return ", ".join(f"job {one.owner.job_id}" for one in records)


def _used_by_strangers(gpu: Gpu, want: Want, facts: Facts) -> Judgement | None:
    reading = facts.readings.get(gpu.uuid)
    if reading is None:
        return Standing.UNKNOWN, "the driver did not say what it is doing"
    if want.share and facts.leases_on(gpu):
        return None  # which of its processes belong to the jobs that share it cannot be told
    strangers = [
        one
        for one in reading.processes or ()
        if one.kind == "compute" and one.pid not in facts.own_pids
    ]
    return (Standing.USED, stranger_words(strangers)) if strangers else None


def stranger_words(strangers: list[GpuProcess]) -> str:
    """`used by process 4711 (python, 20.1 GiB), which is not a supervised job`."""
    names = ", ".join(process(one) for one in strangers[:NAMED])
    more = f" and {len(strangers) - NAMED} more" if len(strangers) > NAMED else ""
    are = "which is not a supervised job" if len(strangers) == 1 else "which no lease covers"
    return f"used by {names}{more}, {are}"


def _used_by_nobody_known(gpu: Gpu, want: Want, facts: Facts) -> Judgement | None:
    reading = facts.readings[gpu.uuid]
    if reading.used_bytes is None:
        if reading.processes is not None:
            return None
        why = "; ".join(reading.problems)
        said = "the driver names neither its processes nor the memory in use"
        return Standing.UNKNOWN, f"{said} ({why})" if why else said
    if want.share and want.memory_bytes is not None:
        return None  # it is enough that there is room, which is the next question
    ours = [one.used_bytes for one in reading.processes or ()]
    hidden = reading.used_bytes - sum(one or 0 for one in ours)
    if None in ours or hidden <= idle_bytes(gpu):
        return None
    return Standing.USED, (
        f"{gib(hidden)} of its memory are in use, and the driver does not say by whom: a process "
        "of another container, one that died badly, or a desktop"
    )


def idle_bytes(gpu: Gpu) -> int:
    """How much memory may be in use on a GPU that nobody uses."""
    return min(IDLE_BYTES, gpu.total_bytes // IDLE_PART) if gpu.total_bytes else IDLE_BYTES


def _too_small(gpu: Gpu, want: Want, facts: Facts) -> Judgement | None:
    need = want.memory_bytes
    if need is None:
        return None
    if 0 < gpu.total_bytes < need:
        return Standing.USED, f"it has {gib(gpu.total_bytes)}, the job wants {gib(need)}"
    free = _free_bytes(gpu, facts)
    if free is None and (want.share or not gpu.total_bytes):
        return Standing.UNKNOWN, f"how much of it is free is not known, the job wants {gib(need)}"
    if free is not None and free < need:
        return Standing.USED, f"{gib(free)} of it are free, the job wants {gib(need)}"
    return None


def _free_bytes(gpu: Gpu, facts: Facts) -> int | None:
    reading = facts.readings.get(gpu.uuid)
    if reading is None or reading.used_bytes is None or not gpu.total_bytes:
        return None
    own = [one.used_bytes or 0 for one in reading.processes or () if one.pid in facts.own_pids]
    return gpu.total_bytes - reading.used_bytes + sum(own)


def _avoided(gpu: Gpu, want: Want, _facts: Facts) -> Judgement | None:
    if want.avoid.isdisjoint({gpu.uuid, gpu.parent}):
        return None
    return Standing.USED, "not for this job, which had trouble on it"


CHECKS: tuple[Check, ...] = (
    _not_leasable,
    _set_aside,
    _leased,
    _used_by_strangers,
    _used_by_nobody_known,
    _too_small,
    _avoided,
)
