"""Checks of what can be learned from a worker that hangs or dies.

Owns the findings on stacks, the kernel's log and core dumps. Ends every process that it starts.
"""

import resource
import subprocess
import sys
from pathlib import Path

from supervisor.cli.diagnosis.facts import Check, Facts
from supervisor.cli.diagnosis.finding import Finding, missing, ok, weak
from supervisor.host.kernel_log import KernelLog

DUMP_S = 5.0
ABOVE_SIBLINGS = 2  # Yama's scope from which not even a process that agrees can be read
CAP_SYS_PTRACE = 19

# A Python that stands still, and agrees to be read by our children as a worker does. Its stdin is a
# pipe of ours: it ends when we do, however that happens.
_STILL = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(0x59616d61, os.getppid(), 0, 0, 0)  # PR_SET_PTRACER
print(flush=True)
sys.stdin.read()
"""


def _stacks(facts: Facts) -> Finding:
    spy = Path(sys.executable).with_name("py-spy")
    means = "Before a hang is killed, only what faulthandler prints is kept of its stacks."
    if not spy.exists():
        return missing(
            f"py-spy is not installed beside {sys.executable}",
            means,
            f"Install it there: {sys.executable} -m pip install py-spy",
        )
    scope = facts.says("proc/sys/kernel/yama/ptrace_scope")
    where = f"Yama's ptrace scope is {scope}" if scope else "no Yama"
    refusal = _refusal(spy)
    if refusal is None:
        return ok(f"py-spy reads the stacks of a process of ours ({where})")
    return weak(f"py-spy cannot: {refusal} ({where})", means, _remedy(facts, scope))


def _refusal(spy: Path) -> str | None:
    """Read the stacks of a process of our own; None when that works, else what came of it."""
    still = [sys.executable, "-ISc", _STILL]
    with subprocess.Popen(still, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            if child.stdout is None or not child.stdout.read(1):
                return "the process that it was to read did not start"
            dump = subprocess.run(
                [spy, "dump", "--nonblocking", "--pid", str(child.pid)],
                capture_output=True,
                text=True,
                timeout=DUMP_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"it did not answer within {DUMP_S:.0f} s"
        finally:
            child.kill()
    said = dump.stderr.strip().splitlines() or [f"exit code {dump.returncode}"]
    return None if dump.returncode == 0 else said[0].removeprefix("Error: ")


def _remedy(facts: Facts, scope: str | None) -> str:
    if scope is not None and scope.isdigit() and int(scope) >= ABOVE_SIBLINGS:
        return "As root: sysctl kernel.yama.ptrace_scope=1 (3 stays until a reboot)."
    status = facts.says("proc/self/status") or ""
    allowed = next((line for line in status.splitlines() if line.startswith("CapBnd:")), "CapBnd:0")
    if not int(allowed.partition(":")[2], 16) >> CAP_SYS_PTRACE & 1:
        return "Start the container with --cap-add SYS_PTRACE."
    return "In a container, --cap-add SYS_PTRACE; elsewhere look at seccomp and SELinux."


def _kernel_log(facts: Facts) -> Finding:
    log = KernelLog(facts.path("dev/kmsg"))
    log.close()
    if log.available:
        return ok("can be read: the fallback for Xid errors and out-of-memory kills")
    what, _, remedy = log.why_not.partition(": ")
    return weak(
        what,
        "Xid errors are learned from NVML alone, out-of-memory kills from control groups alone.",
        f"{remedy[:1].upper()}{remedy[1:]}.",
    )


def _core_dumps(facts: Facts) -> Finding:
    pattern = facts.says("proc/sys/kernel/core_pattern") or ""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    if pattern.startswith("|") and "%c" not in pattern:
        return weak(
            f"piped to {pattern[1:].split()[0]}, which is not told the limit (%c)",
            "The kernel may hand it every crash whole: a large worker then ends late.",
            "Add %c to kernel.core_pattern, and heed it there; or write them to files:"
            " sysctl kernel.core_pattern=core.%p",
        )
    where = f"piped to {pattern[1:].split()[0]}" if pattern.startswith("|") else f"named {pattern}"
    bound = ", but `ulimit -Hc` 0 forbids them" if most == 0 else ""
    return ok(f"off unless `resources.core_dumps` is true{bound}; {where or 'kept nowhere'}")


CHECKS = (
    Check("stacks of a hang", _stacks),
    Check("kernel's log", _kernel_log),
    Check("core dumps", _core_dumps),
)
