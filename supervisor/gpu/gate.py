"""The gate before the next attempt: whether a GPU was given back by the one that ended.

Owns the judgement; pure. What cannot be known is not called clean.
"""

from supervisor.gpu.model import Reading
from supervisor.gpu.words import gib, process

# More than idle figures drift by (a desktop, the driver's own bookkeeping), less than the smallest
# thing that a process leaves behind: a CUDA context takes 300 to 500 MB.
SLACK_BYTES = 256 << 20
SHARED = "the GPU is shared: processes are looked at, its memory is other jobs' as well"


def clean(
    before: Reading,
    now: Reading,
    tree: frozenset[int],
    slack_bytes: int = SLACK_BYTES,
    *,
    shared: bool = False,
) -> str | None:
    """None when the GPU is as it was before the attempt; else what is still on it, in words.

    Args:
        before: what it did when it was leased.
        now: what it does.
        tree: pids of the worker tree that ended.
        slack_bytes: how much more memory may be in use than before.
        shared: other jobs have leases on it, so its memory proves nothing (`SHARED`).

    """
    left = [one for one in now.processes or () if one.pid in tree]
    if left:
        names = ", ".join(process(one) for one in left)
        return f"still on the GPU from the attempt that ended: {names}"
    if shared:
        return None
    if before.used_bytes is None or now.used_bytes is None:
        if now.processes is not None:
            return None
        why = "; ".join(now.problems)
        said = "the driver says neither which processes are on the GPU nor how much memory is used"
        return f"{said} ({why})" if why else said
    more = now.used_bytes - before.used_bytes
    if more <= slack_bytes:
        return None
    words = f"{gib(more)} more GPU memory are in use than before the attempt"
    others = _newcomers(before, now)
    return f"{words}{others}"


def _newcomers(before: Reading, now: Reading) -> str:
    """Who could be it: processes that were not there before, and are not of the tree."""
    known = {one.pid for one in before.processes or ()}
    new = [one for one in now.processes or () if one.pid not in known]
    if new:
        return f"; on the GPU now: {', '.join(process(one) for one in new)}, not of this job"
    return ", by no process that the driver names" if now.processes is not None else ""
