"""How much memory of a GPU a worker's tree uses, as well as can be known.

Owns the rule. Pure.
"""

from supervisor.gpu.model import Reading


def tree_bytes(
    before: Reading, now: Reading, tree: frozenset[int], *, shared: bool = False
) -> int | None:
    """Bytes that the processes of a tree use on a GPU; None where nothing tells.

    By process where NVML says so. Where it names none of the tree with a figure (containers see
    other pids, WSL and MIG give no figure), what the whole device uses beyond what it used before
    the job came: right as long as nobody else is on it, which an unshared lease sees to.
    """
    ours = [one for one in now.processes or () if one.pid in tree]
    known = [one.used_bytes for one in ours if one.used_bytes is not None]
    if ours and len(known) == len(ours):
        return sum(known)
    if shared or now.used_bytes is None or before.used_bytes is None:
        return sum(known) if known else None
    return max(0, now.used_bytes - before.used_bytes)
