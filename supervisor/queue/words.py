"""Why a job waits, in words for people.

Owns these sentences, each the rest of "JOB ..."; decides nothing.
"""

from collections.abc import Sequence

from supervisor.core.causes import State
from supervisor.queue.model import Needs

GIB = 1 << 30

# What became of a job that another one waits for, and what can be done about it.
NOT_DONE = {
    State.FAILED: "which failed: resume it, or cancel this job",
    State.STOPPED: "which was stopped: resume it, or cancel this job",
    State.HOLDING: "which needs a person: see what it holds for and resume it, or cancel this job",
    State.CANCELLED: "which was cancelled and will never be done: cancel this job",
}
LEFT = "which ended without success: resume it, or cancel this job"
RUNNING = "which is running"
WAITING = "which waits itself"
UNKNOWN = "of which the queue knows nothing: cancel this job, and submit it without that"
ITSELF = "which is this job: cancel it"


def gpus(count: int) -> str:
    """`1 GPU`, `2 GPUs`."""
    return "1 GPU" if count == 1 else f"{count} GPUs"


def cpus(count: int) -> str:
    """`1 CPU`, `8 CPUs`."""
    return "1 CPU" if count == 1 else f"{count} CPUs"


def memory(count: int) -> str:
    """`32.0 GiB of memory`."""
    return f"{count / GIB:.1f} GiB of memory"


def too_few_cpus(needs: Needs, have: int) -> str:
    """It can never run here."""
    return f"the job wants {cpus(needs.cpus)}, and jobs may use {have} of this host"


def too_little_memory(wanted_bytes: int, have_bytes: int) -> str:
    """It can never run here."""
    have = f"{have_bytes / GIB:.1f} GiB"
    return f"the job wants {memory(wanted_bytes)}, and jobs may use {have} of this host"


def lacks_cpus(needs: Needs, free: int, have: int) -> str:
    """There are enough, and others have them."""
    some = f"{max(free, 0) or 'none'} of {have} {'is' if free <= 1 else 'are'} free"
    return f"waits for {cpus(needs.cpus)}: {some}"


def lacks_memory(wanted_bytes: int, free_bytes: int, have_bytes: int) -> str:
    """There is enough, and others have it."""
    some = f"{max(free_bytes, 0) / GIB:.1f} of {have_bytes / GIB:.1f} GiB are free"
    return f"waits for {memory(wanted_bytes)}: {some}"


def lacks_gpus(needs: Needs, why: str) -> str:
    """What the GPUs' own words add to."""
    return f"waits for {gpus(needs.gpus)}: {why}"


def never(why: str) -> str:
    """The host has become smaller since it was accepted."""
    return f"cannot run on this host: {why}. Cancel it, or change what it asks for"


def goes_first(what: str, job_id: str) -> str:
    """Another one has waited longer for the same than anybody should."""
    return f"waits for {what}: {job_id} has waited longer, and goes first"


def after(job_id: str, how: str, others: int) -> str:
    """A job that must succeed first."""
    more = f", and for {others} more" if others else ""
    return f"waits for {job_id}, {how}{more}"


def held(group: str, failures: int) -> str:
    """Nothing of its group starts."""
    row = f"{failures} failures in a row" if failures > 1 else "a failure"
    said = f"group {group} is held after {row}" if failures else f"group {group} is held"
    return f"{said}: `supervise resume --group {group}`"


def same_folder(folder: str, job_id: str) -> str:
    """Two jobs never write to one folder at a time."""
    return f"waits for {job_id}, which is running and writes to the same folder, {folder}"


def unwanted(wish: str) -> str:
    """Its owner does not want it to run."""
    return f"does not start: its owner wants it to {wish}"


def first_of(missing: Sequence[tuple[str, str]]) -> str:
    """The first of the jobs that must succeed before it, and how many more there are."""
    job_id, how = missing[0]
    return after(job_id, how, len(missing) - 1)
