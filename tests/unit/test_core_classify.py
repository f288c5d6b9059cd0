"""From evidence to cause: every row of the precedence table, and who wins where two speak."""

from typing import Any

import pytest

from supervisor.core.causes import Cause
from supervisor.core.classify import PRECEDENCE, classify
from supervisor.core.evidence import (
    Breach,
    DeadlineName,
    ErrorReport,
    Evidence,
    Limit,
    Oom,
    SpawnError,
)
from supervisor.core.gpu import GpuTrouble, Severity, TroubleKind, xid_trouble
from supervisor.core.signatures import first_root_error
from tests.unit.core_report_rows import REPORT_ROWS

KILL, TERM, SEGV, BUS, ABRT = 9, 15, 11, 7, 6
GIB = 1 << 30
NO_SUCH = SpawnError("exec", 2, "train.sh: No such file or directory")
RSS = Breach(Limit.MEMORY, 33 * GIB, 32 * GIB)
HARD = Breach(Limit.GPU_MEMORY, 21 * GIB, 20 * GIB, "GPU 0 (NVIDIA H200)")
SOFT = Breach(Limit.GPU_MEMORY_SOFT, 19 * GIB, 18 * GIB, "GPU 0")
FALLEN, FAULTY = xid_trouble("GPU-a", 79, 5.0), xid_trouble("GPU-a", 31, 5.0)
TORN_DOWN = xid_trouble("GPU-a", 45, 5.0)
SILENT_DRIVER = GpuTrouble(
    "GPU-a", TroubleKind.DRIVER_HUNG, None, "NVML gave no answer in 10 s", Severity.AVOID, 5.0
)
OWN_OOM = Oom(1, of_limit=True, source="cgroup v2", limit_bytes=32 * GIB, peak_bytes=32 * GIB)
HOST_OOM = Oom(2, of_limit=False, source="the kernel's log names it")
HEARTBEAT: dict[str, Any] = {"deadline": DeadlineName.HEARTBEAT, "deadline_s": 1800.0}


def seen(log: str = "", **facts: Any) -> Evidence:
    """Evidence with what the given log shows."""
    return Evidence(root_error=first_root_error(log.splitlines()), **facts)


# One row per cause: the least that proves it, and words that its reason must hold.
ROWS: list[tuple[Cause, Evidence, str]] = [
    (Cause.HOST_REBOOTED, seen(host_rebooted=True), "host was restarted"),
    (Cause.RUNNER_LOST, seen(runner_lost=True), "runner died"),
    (
        Cause.DISK_FULL,
        seen(spawn_error=SpawnError("output", 28, "no space left for the log", permanent=False)),
        "no space left for the log",
    ),
    (Cause.SPAWN_FAILED, seen(spawn_error=NO_SUCH), "train.sh: No such file"),
    (Cause.UNKILLABLE, seen(exit_code=0, survivors=(12, 13)), "12, 13"),
    (Cause.BAD_CONFIG, seen(exit_code=0, nothing_works="the first 10 calls failed"), "first 10"),
    (Cause.POISON_ITEM, seen(exit_code=0, items_quarantined=2), "2 items are quarantined"),
    (Cause.POISON_ITEM, seen(exit_code=0, items_quarantined=1, done_detail="9 done"), "9 done"),
    (Cause.COMPLETED, seen(exit_code=0), "exit code 0"),
    (Cause.COMPLETED, seen(exit_code=0, done=True, done_detail="step 30 of 30"), "step 30 of 30"),
    (Cause.COMPLETED, seen(exit_code=3, done=True, done_detail="exit code 3"), "exit code 3"),
    (Cause.STOPPED, seen(signal=TERM, stop_requested=True), "on request: killed by SIGTERM"),
    (
        Cause.STOPPED,
        seen(signal=KILL, stop_requested=True, deadline=DeadlineName.STOP, deadline_s=60.0),
        "after the grace period",
    ),
    (
        Cause.STARTUP_TIMEOUT,
        seen(signal=KILL, deadline=DeadlineName.STARTUP, deadline_s=600.0),
        "no sign of progress in 600 s",
    ),
    (
        Cause.HANG,
        seen(signal=KILL, deadline=DeadlineName.HEARTBEAT, deadline_s=1800.0),
        "no sign of progress for 1800 s",
    ),
    (
        Cause.HANG,
        seen(signal=KILL, hang="no output for 1800 s, and idle: CPU 0.0 %", **HEARTBEAT),
        "and idle: CPU",
    ),
    (
        Cause.TOTAL_TIMEOUT,
        seen(exit_code=0, deadline=DeadlineName.TOTAL, deadline_s=7200.0),
        "ran for its whole 7200 s",
    ),
    (Cause.INCOMPLETE, seen(exit_code=0, done=False, done_detail="step 159 of 300"), "159 of 300"),
    (Cause.HOST_MEMORY_LIMIT, seen(signal=KILL, breach=RSS), "33.00 GiB, resources.memory is 32"),
    (Cause.HOST_MEMORY_LIMIT, seen(signal=KILL, oom=OWN_OOM), "memory limit of 32.00 GiB (cgroup"),
    (
        Cause.HOST_MEMORY_LIMIT,
        seen(signal=KILL, oom=Oom(1, of_limit=True, source="cgroup v1")),
        "at a memory limit (cgroup v1; killed by SIGKILL)",
    ),
    (Cause.HOST_OOM, seen(signal=KILL, oom=HOST_OOM), "host ran out of memory (the kernel's log"),
    (Cause.HOST_OOM, seen(signal=KILL, oom_kills=1), "whom it killed cannot be read here"),
    (Cause.HOST_OOM, seen(exit_code=137, oom_kills=1), "whom it killed cannot be read here"),
    (
        Cause.GPU_MEMORY_LIMIT,
        seen(signal=KILL, breach=HARD),
        "used 21.00 GiB on GPU 0 (NVIDIA H200), resources.gpu_memory is 20.00 GiB",
    ),
    (
        Cause.GPU_MEMORY_LIMIT,
        seen(exit_code=0, breach=SOFT),
        "resources.gpu_memory_soft is 18.00 GiB; it was asked to save and leave",
    ),
    (Cause.GPU_HARDWARE, seen(exit_code=0, gpu_troubles=(FAULTY, FALLEN)), "Xid 79"),
    (
        Cause.GPU_HARDWARE,
        seen(signal=KILL, gpu_troubles=(SILENT_DRIVER,), **HEARTBEAT),
        "NVML gave no answer",
    ),
    (Cause.CUDA_ERROR, seen(exit_code=1, gpu_troubles=(FAULTY,)), "Xid 31"),
    (Cause.SIGNAL, seen(signal=KILL), "SIGKILL, sent from outside"),
    (Cause.SIGNAL, seen(exit_code=143), "exit code 143 (a shell's word for SIGTERM)"),
    (Cause.SIGNAL, seen(signal=SEGV), "killed by SIGSEGV"),
    (Cause.SIGNAL, seen(exit_code=139), "SIGSEGV"),
    (Cause.DISK_FULL, seen("No space left on device", exit_code=1), "free some space"),
    (
        Cause.DISK_FULL,
        seen(exit_code=1, no_room="/data is full"),
        "with a full disk: /data is full",
    ),
    (Cause.GPU_HARDWARE, seen("NVRM: Xid (PCI:0): 79", signal=ABRT), "reset"),
    (Cause.CUDA_OOM, seen("CUDA out of memory", exit_code=1), "smaller batch"),
    (Cause.CUDA_ERROR, seen("CUDA error: device-side assert triggered", exit_code=1), "label"),
    (
        Cause.SIGNAL,
        seen(
            "Watchdog caught collective operation timeout\n"
            "  traceback : Signal 9 (SIGKILL) received by PID 77",
            exit_code=1,
            report=ErrorReport("nccl", "RuntimeError", "closed by peer"),
        ),
        "Signal 9 (SIGKILL) received by PID 77 (exit code 1)",
    ),
    (Cause.NCCL, seen("Watchdog caught collective operation timeout", signal=ABRT), "SIGABRT"),
    (Cause.SHM, seen("is killed by signal: Bus error", exit_code=1), "/dev/shm"),
    (Cause.SHM, seen(signal=BUS), "/dev/shm"),
    (Cause.SHM, seen(exit_code=135), "/dev/shm"),
    (Cause.DATALOADER, seen("DataLoader worker (pid 3) exited unexpectedly", exit_code=1), "died"),
    (Cause.BAD_CHECKPOINT, seen("Ran out of input", exit_code=1, resumed_step=300), "cannot be"),
    (Cause.BAD_CONFIG, seen("ImportError: no x", exit_code=1), "ImportError"),
    (Cause.BAD_CONFIG, seen(exit_code=127), "shell could not run"),
    (Cause.BAD_CONFIG, seen(exit_code=126), "shell could not run"),
    (Cause.NON_FINITE, seen("loss: nan", exit_code=1), "learning rate"),
    *REPORT_ROWS,
    (Cause.EXIT_CODE, seen(exit_code=17, error_line="KeyError: 'x'"), "exit code 17: KeyError"),
    (Cause.EXIT_CODE, seen(exit_code=2), "exit code 2"),
    (Cause.EXIT_CODE, seen(), "exit code None"),
]


@pytest.mark.parametrize(("cause", "evidence", "words"), ROWS)
def test_each_cause_by_the_least_that_proves_it(
    cause: Cause, evidence: Evidence, words: str
) -> None:
    """The evidence leads to the cause, and the reason says what a person needs to know."""
    found, reason = classify(evidence)
    assert found is cause
    assert words in reason


def test_every_row_of_the_table_is_tried() -> None:
    """No row stands in the precedence table that is not the first to speak in a case above."""
    first = [
        next(number for number, row in enumerate(PRECEDENCE) if row.reason(evidence) is not None)
        for _, evidence, _ in ROWS
    ]
    assert set(first) == set(range(len(PRECEDENCE)))


STOPPED: dict[str, Any] = {"stop_requested": True}
STOP: dict[str, Any] = {"deadline": DeadlineName.STOP, "deadline_s": 60.0}
HUNG: dict[str, Any] = {"deadline": DeadlineName.HEARTBEAT, "deadline_s": 60.0}
STARTUP: dict[str, Any] = {"deadline": DeadlineName.STARTUP, "deadline_s": 60.0}
TOTAL: dict[str, Any] = {"deadline": DeadlineName.TOTAL, "deadline_s": 60.0}
NOT_DONE: dict[str, Any] = {"done": False, "done_detail": "step 1 of 2"}
DONE: dict[str, Any] = {"done": True, "done_detail": "step 2 of 2"}

# (who wins, why, evidence in which at least two rows could speak)
PAIRS: list[tuple[Cause, str, Evidence]] = [
    (
        Cause.HOST_REBOOTED,
        "a reboot explains the lost runner",
        seen(host_rebooted=True, runner_lost=True),
    ),
    (
        Cause.RUNNER_LOST,
        "nothing was spawned by a runner that died",
        seen(runner_lost=True, spawn_error=NO_SUCH),
    ),
    (
        Cause.STOPPED,
        "quarantined items need a person only when all else is done",
        seen(exit_code=0, items_quarantined=2, **STOPPED),
    ),
    (
        Cause.SIGNAL,
        "a worker that was killed explains the end, with or without quarantined items",
        seen(signal=SEGV, items_quarantined=2),
    ),
    (
        Cause.BAD_CONFIG,
        "an error of the entry explains what its workers did after it",
        seen("CUDA out of memory", exit_code=1, nothing_works="all failed", items_quarantined=10),
    ),
    (
        Cause.UNKILLABLE,
        "a tree that lives on blocks what follows",
        seen(exit_code=0, survivors=(7,), **DONE),
    ),
    (Cause.COMPLETED, "done is done, stop or no stop", seen(exit_code=0, **DONE, **STOPPED)),
    (Cause.COMPLETED, "done is done, at the last minute", seen(exit_code=0, **DONE, **TOTAL)),
    (
        Cause.STOPPED,
        "a stopped script that leaves with 0 is not done",
        seen(exit_code=0, **STOPPED),
    ),
    (
        Cause.STOPPED,
        "nor is one that the job says is not done",
        seen(exit_code=0, **STOPPED, **NOT_DONE),
    ),
    (
        Cause.STOPPED,
        "a stop explains a crash on the way out",
        seen("CUDA out of memory", exit_code=1, **STOPPED),
    ),
    (
        Cause.STOPPED,
        "a stop explains the SIGKILL after its grace",
        seen(signal=KILL, **STOPPED, **STOP),
    ),
    (Cause.HANG, "a kill for a hang is ours, even if it meets a 0", seen(exit_code=0, **HUNG)),
    (Cause.HANG, "our own SIGKILL is no stranger's", seen(signal=KILL, **HUNG)),
    (
        Cause.HANG,
        "stacks dumped on the way out are no cause",
        seen("NCCL error", signal=ABRT, **HUNG),
    ),
    (
        Cause.TOTAL_TIMEOUT,
        "the time was up before it was done",
        seen(exit_code=0, **TOTAL, **NOT_DONE),
    ),
    (Cause.HOST_OOM, "the kernel's word beats the guess", seen(signal=KILL, oom_kills=2)),
    (
        Cause.SIGNAL,
        "an OOM kill of somebody else explains no SIGTERM",
        seen(signal=TERM, oom_kills=2),
    ),
    (
        Cause.SIGNAL,
        "a stranger's SIGKILL beats what the log said earlier",
        seen("NCCL error", signal=KILL),
    ),
    (Cause.NCCL, "an abort is explained by the log", seen("NCCL error", signal=ABRT)),
    (Cause.CUDA_ERROR, "a crash is explained by the log", seen("CUDA error: x", signal=SEGV)),
    (Cause.SHM, "a bus error beats a log without a root error", seen("loss: nan", signal=BUS)),
    (Cause.SIGNAL, "a crash beats a symptom", seen("loss: nan", signal=SEGV)),
    (
        Cause.BAD_CONFIG,
        "what the log says beats the bare 127",
        seen("ImportError: x", exit_code=127),
    ),
    (
        Cause.EXIT_CODE,
        "a 127 after progress is the script's own",
        seen(exit_code=127, progressed=True),
    ),
    (
        Cause.EXIT_CODE,
        "an import error after progress is no configuration error",
        seen("ImportError: x", exit_code=1, progressed=True),
    ),
    (
        Cause.EXIT_CODE,
        "without a checkpoint of ours, some other file is broken",
        seen("Ran out of input", exit_code=1),
    ),
    (
        Cause.EXIT_CODE,
        "who has trained on has loaded its checkpoint",
        seen("Ran out of input", exit_code=1, resumed_step=300, step=420),
    ),
    (
        Cause.BAD_CHECKPOINT,
        "no step since: it was loading",
        seen("Ran out of input", exit_code=1, resumed_step=300, step=300),
    ),
    (
        Cause.EXIT_CODE,
        "another exit code than the job's own is no success",
        seen(exit_code=1, done=False),
    ),
    (Cause.COMPLETED, "done is done, over a limit too", seen(exit_code=0, **DONE, breach=HARD)),
    (
        Cause.COMPLETED,
        "done is done, though the GPU fell off the bus then",
        seen(exit_code=0, **DONE, gpu_troubles=(FALLEN,)),
    ),
    (
        Cause.COMPLETED,
        "a driver that was slow to answer us says nothing about a worker that left with 0",
        seen(exit_code=0, gpu_troubles=(SILENT_DRIVER,)),
    ),
    (
        Cause.COMPLETED,
        "a helper that the kernel killed is no matter when all ended well",
        seen(exit_code=0, oom=OWN_OOM),
    ),
    (
        Cause.GPU_MEMORY_LIMIT,
        "who leaves with 0 because it was asked to is not done",
        seen(exit_code=0, breach=SOFT, **NOT_DONE),
    ),
    (
        Cause.STOPPED,
        "it was already leaving when it went over its limit",
        seen(signal=KILL, breach=HARD, **STOPPED),
    ),
    (
        Cause.STOPPED,
        "a stop that came first explains the end, with a sick GPU too",
        seen(exit_code=0, gpu_troubles=(FALLEN,), **STOPPED),
    ),
    (
        Cause.TOTAL_TIMEOUT,
        "the limit was broken while it left because its time was up",
        seen(signal=KILL, breach=HARD, **TOTAL),
    ),
    (
        Cause.TOTAL_TIMEOUT,
        "and so was the GPU",
        seen(signal=KILL, gpu_troubles=(FALLEN,), **TOTAL),
    ),
    (
        Cause.HOST_MEMORY_LIMIT,
        "our kill at the limit needs no log",
        seen("CUDA out of memory", signal=KILL, breach=RSS),
    ),
    (
        Cause.GPU_MEMORY_LIMIT,
        "our kill at the hard limit is the nearer reason",
        seen(signal=KILL, breach=HARD, gpu_troubles=(FALLEN,)),
    ),
    (
        Cause.GPU_HARDWARE,
        "it was to leave for its memory, but could not with such a GPU",
        seen(signal=KILL, breach=SOFT, gpu_troubles=(FALLEN,), **STOP),
    ),
    (
        Cause.GPU_MEMORY_LIMIT,
        "the grace after a soft limit ran out: the limit is why",
        seen(signal=KILL, breach=SOFT, **STOP),
    ),
    (
        Cause.GPU_HARDWARE,
        "a GPU off the bus explains the silence",
        seen(signal=KILL, gpu_troubles=(FALLEN,), **HUNG),
    ),
    (
        Cause.GPU_HARDWARE,
        "a driver that answers nobody explains why it never began",
        seen(signal=KILL, gpu_troubles=(SILENT_DRIVER,), **STARTUP),
    ),
    (
        Cause.CUDA_OOM,
        "a silent driver explains no end that is not a silence",
        seen("CUDA out of memory", exit_code=1, gpu_troubles=(SILENT_DRIVER,)),
    ),
    (
        Cause.HANG,
        "a program's own fault on the GPU stops no worker: the silence does",
        seen(signal=KILL, gpu_troubles=(FAULTY,), **HUNG),
    ),
    (
        Cause.CUDA_OOM,
        "the log knows better than an Xid that programs cause",
        seen("CUDA out of memory", exit_code=1, gpu_troubles=(FAULTY,)),
    ),
    (
        Cause.SIGNAL,
        "channels that are torn down follow from every sudden end",
        seen(signal=SEGV, gpu_troubles=(TORN_DOWN,)),
    ),
    (
        Cause.SIGNAL,
        "a stranger's SIGKILL, and then the driver's note of it",
        seen(signal=KILL, gpu_troubles=(FAULTY,)),
    ),
    (
        Cause.CUDA_ERROR,
        "the kernel killed something of it long ago; it died of another error",
        seen("CUDA error: an illegal memory access", signal=ABRT, oom=OWN_OOM),
    ),
    (
        Cause.CUDA_OOM,
        "also where the host was short of memory then",
        seen("CUDA out of memory", exit_code=1, oom=HOST_OOM),
    ),
    (
        Cause.HOST_MEMORY_LIMIT,
        "the loader that is gone was killed for memory",
        seen("DataLoader worker (pid 3) is killed by signal: Killed", exit_code=1, oom=OWN_OOM),
    ),
    (
        Cause.HOST_OOM,
        "the rank that the others wait for was killed for memory",
        seen("NCCL error", signal=ABRT, oom=HOST_OOM),
    ),
    (
        Cause.HOST_MEMORY_LIMIT,
        "nothing else says why: the kernel does",
        seen(exit_code=1, oom=OWN_OOM, error_line="BrokenProcessPool"),
    ),
    (
        Cause.SIGNAL,
        "somebody sent SIGTERM; the loader that was killed before is no reason for that",
        seen(signal=TERM, oom=OWN_OOM),
    ),
    (
        Cause.HOST_MEMORY_LIMIT,
        "a shell's word for the kill",
        seen(exit_code=137, oom=OWN_OOM),
    ),
    (
        Cause.HOST_MEMORY_LIMIT,
        "the worker's own limit is nearer than the host's count",
        seen(signal=KILL, oom=OWN_OOM, oom_kills=3),
    ),
    (
        Cause.CUDA_OOM,
        "what the log says beats a disk that is full as well",
        seen("CUDA out of memory", exit_code=1, no_room="/data is full"),
    ),
    (
        Cause.SIGNAL,
        "a stranger's SIGKILL needs no full disk",
        seen(signal=KILL, no_room="/data is full"),
    ),
    (Cause.COMPLETED, "nor does success", seen(exit_code=0, no_room="/data is full")),
    (
        Cause.RUNNER_LOST,
        "its limits went with the runner",
        seen(runner_lost=True, breach=SOFT, gpu_troubles=(FALLEN,)),
    ),
    (
        Cause.UNKILLABLE,
        "what does not die is told before why it was to",
        seen(survivors=(7,), breach=HARD),
    ),
]


@pytest.mark.parametrize(("winner", "why", "evidence"), PAIRS)
def test_who_wins_where_two_rows_could_speak(winner: Cause, why: str, evidence: Evidence) -> None:
    """The precedence is the one that a person would expect."""
    assert classify(evidence)[0] is winner, why
