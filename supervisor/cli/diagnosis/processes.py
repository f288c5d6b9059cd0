"""Checks of what follows a worker, and ends the whole of it.

Owns the findings on the kernel, on ending trees and on limits of their number.
"""

import os
import resource

from supervisor.cli.diagnosis.facts import Check, Facts
from supervisor.cli.diagnosis.finding import Finding, missing, ok, weak


def _kernel(_facts: Facts) -> Finding:
    name = f"Linux {os.uname().release}"
    try:
        _follow_myself()
    except OSError as error:
        return missing(
            f"{name}: no pidfd ({error.strerror})",
            "A worker cannot be followed safely, so none is started.",
            "Use Linux 5.4 or newer; in a container, a runtime whose seccomp profile allows"
            " pidfd_open and waitid.",
        )
    return ok(f"{name}; processes are followed by pidfd")


def _follow_myself() -> None:
    """Ask for what the supervisor cannot do without. Raises OSError where it is not to be had."""
    pidfd = os.pidfd_open(os.getpid())
    try:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:  # understood: this process is no child of itself
        return
    finally:
        os.close(pidfd)


def _whole_tree_kill(facts: Facts) -> Finding:
    offer = facts.offer()
    if offer.kill is not None:
        return ok(f"cgroup v2: one write ends a whole tree, in {offer.kill}")
    if offer.memory is not None or offer.pids is not None:
        return weak(
            "control groups without cgroup.kill: their members are killed one by one",
            "A tree that grows while it is killed takes longer to end.",
            facts.lacks("kill"),
        )
    return weak(
        "no control groups: a worker's descendants are looked for and killed, in a sweep",
        "A process that hides its origin and left its parents can outlive a runner that was"
        " itself killed.",
        facts.lacks("kill"),
    )


def _number_of_processes(facts: Facts) -> Finding:
    offer = facts.offer()
    if offer.pids is not None:
        return ok(f"cgroup v{offer.version_pids}: `resources.pids` is kept by the kernel")
    most, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    bound = "nothing" if most == resource.RLIM_INFINITY else f"`ulimit -u` ({most}) alone"
    return weak(
        f"no pids controller: {bound} stops a fork bomb",
        "`resources.pids` is not kept: a worker that forks without end takes the host with it.",
        facts.lacks("pids"),
    )


CHECKS = (
    Check("kernel", _kernel, vital=True),
    Check("whole-tree kill", _whole_tree_kill),
    Check("process limit", _number_of_processes),
)
