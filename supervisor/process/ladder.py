"""Ending a child, as steps: stop signals, grace, SIGKILL to the tree, reap.

Owns the order of these, for the asynchronous and the blocking form alike: a ladder is a generator
that acts and yields how long to pause, in seconds, or until the main process ends, whichever is
first. Never waits itself. Invariant: SIGKILL reaches the whole tree before its leader is reaped,
and the leader only after a bounded wait for the others, so group and session are ours all along.
"""

import signal
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

from supervisor.host.processes import ProcessId
from supervisor.process import orphans
from supervisor.process.main_process import MainProcess
from supervisor.process.tree import Tree

FIRST_PAUSE_S = 0.001
LONGEST_PAUSE_S = 0.05


class ChildUnkillable(Exception):
    """SIGKILL was sent, the wait for it was over, and the main process is still there.

    It hangs in the kernel (state D: a dead network disk, a driver) and cannot be reaped.
    `survivors` are the (pid, start_ticks) of the tree.
    """

    def __init__(self, pid: int, survivors: Sequence[ProcessId]) -> None:
        super().__init__(pid, survivors)
        self.pid = pid
        self.survivors = survivors

    def __str__(self) -> str:
        return (
            f"process {self.pid} did not die of SIGKILL: it hangs in the kernel (see "
            f"/proc/{self.pid}/stack); alive: {[member.pid for member in self.survivors]}"
        )


@dataclass(slots=True)
class Worker:
    """A main process with its tree, and who of it was still alive after the last kill.

    `mark`: what its members inherited. `over`: a kill went to its end, the main process is reaped.
    """

    main: MainProcess
    tree: Tree
    mark: str = ""
    survivors: Sequence[ProcessId] = ()
    over: bool = False


def stop(worker: Worker, signals: Sequence[int], grace_s: float) -> Iterator[float]:
    """Ask the main process to stop, then the members it left behind.

    The main process alone is asked first: data loaders that were told too would break the very save
    the main process is doing. Each signal has an equal share of the grace.
    """
    deadline = time.monotonic() + grace_s
    for index, number in enumerate(signals, start=1):
        share_ends = deadline - grace_s * (1 - index / len(signals))
        worker.main.signal(number)
        worker.main.signal(signal.SIGCONT)  # a stopped process could not hear it
        yield from _until_exit(worker.main, share_ends)
    if worker.main.exited() and worker.tree.left():
        worker.tree.signal(signals[-1])
        yield from _until_empty(worker.tree, deadline)


def kill(worker: Worker, limit_s: float) -> Iterator[float]:
    """Kill the tree, wait for its end at most `limit_s` seconds, reap the main process.

    Raises ChildUnkillable when the main process is still there. Members that are still there are
    left in `worker.survivors`.
    """
    main, tree = worker.main, worker.tree
    deadline = time.monotonic() + limit_s
    # Mostly the main process has ended by itself, and alone: then one look is all it takes.
    if not worker.over and (not main.exited() or tree.left()):
        struck = set(tree.kill())
        yield from _until_exit(main, deadline)
        if main.exited():
            left = yield from _until_killed(tree, struck, deadline)
        else:
            left = tree.left()
        # Two ladders may climb at once (a kill during a stop); the other may have been quicker.
        worker.survivors = worker.survivors if worker.over else left
        if not main.exited():
            raise ChildUnkillable(main.pid, left)
        orphans.collect(struck)
    main.reap()
    worker.over = True


def drive(steps: Iterator[float], main: MainProcess) -> None:
    """Take the steps, blocking."""
    for pause_s in steps:
        if main.exited():
            time.sleep(pause_s)
        else:
            main.wait(pause_s)


def _until_exit(main: MainProcess, deadline: float) -> Iterator[float]:
    while not main.exited() and (left_s := deadline - time.monotonic()) > 0:
        yield left_s


def _until_killed(
    tree: Tree, struck: set[ProcessId], deadline: float
) -> Generator[float, None, list[ProcessId]]:
    """Wait for the end of those who were struck, and strike whoever appears meanwhile."""
    pause_s = FIRST_PAUSE_S
    while left := tree.left():
        if (left_s := deadline - time.monotonic()) <= 0:
            break
        if not struck.issuperset(left):
            struck.update(tree.kill())
        yield min(pause_s, left_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
    return left


def _until_empty(tree: Tree, deadline: float) -> Iterator[float]:
    pause_s = FIRST_PAUSE_S
    while tree.left() and (left_s := deadline - time.monotonic()) > 0:
        yield min(pause_s, left_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
