"""The mark of a tree, which every process of it inherits in one variable of its environment.

Owns making marks and reading them back from other processes; never ends one. Invariant: the chain
of marks that a child is given begins with this process's own, so that whoever ends an outer tree
finds the inner ones too.
"""

import os
import time

from supervisor.host import processes
from supervisor.host.processes import ProcessId
from workers.protocol import ENV_TREE

SEPARATOR = "/"
_MARK_BYTES = 8
_CHUNK_BYTES = 1 << 16
_EXEC_S = 0.2  # an exec takes that long only where nobody gets to run
_ENV_END = 48  # proc_pid_stat(5): field 51, counted from the one behind the name


def new_mark() -> str:
    """Return a name that no other tree has."""
    return os.urandom(_MARK_BYTES).hex()


def own_chain() -> str:
    """Return the chain that this process hands on to what it starts; empty outside of any tree."""
    return os.environ.get(ENV_TREE, "")


def chain_with(mark: str) -> str:
    """Return the chain for a child of this process whose tree has this mark."""
    return SEPARATOR.join(filter(None, (own_chain(), mark)))


def chain_of(pid: int) -> str | None:
    """Return the chain a process was started with; None when it has none, or hides it."""
    prefix = os.fsencode(f"{ENV_TREE}=")
    try:
        environment = _environment(pid)
    except OSError:
        return None
    for variable in environment.split(b"\0"):
        if variable.startswith(prefix):
            return os.fsdecode(variable[len(prefix) :])
    return None


def marked(prefix: str) -> list[ProcessId]:
    """Return who lives of all trees whose mark begins so, this process aside."""
    found = []
    for pid in list(processes.pids()):
        one = None if pid == os.getpid() else processes.living(pid)
        chain = chain_of(pid) if one else None
        if one and chain and any(mark.startswith(prefix) for mark in chain.split(SEPARATOR)):
            found.append(one)
    return found


def _environment(pid: int) -> bytes:
    if os.getsid(pid) == 0:  # the kernel's own threads have none
        return b""
    deadline = time.monotonic() + _EXEC_S
    while not (content := _content(f"/proc/{pid}/environ")):
        if not _executes(pid) or time.monotonic() > deadline:
            return _content(f"/proc/{pid}/environ")  # the exec may have been over in between
        os.sched_yield()
    return content


def _executes(pid: int) -> bool:
    """Tell whether a process without an environment is in the midst of an exec, which has none."""
    fields = _content(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return fields[0] not in (b"Z", b"X") and fields[_ENV_END] == b"0"


def _content(path: str) -> bytes:
    # A plain descriptor: io costs more than the kernel does.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, _CHUNK_BYTES):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)
