"""The table of the corpus: what each script must come to.

Owns kinds, deadlines and what a kind needs of the host. A slow phase must be left alone; a hang
must be found within `SLACK_S` of its deadline. What only computes cannot be told from a spin, so
its deadline is twice the heartbeat; that of everything else silent and idle is the heartbeat.
"""

from dataclasses import dataclass

from benchmarks.corpus.signs import HEARTBEAT_S

SLACK_S = 2.0
BUSY_DEADLINE_S = 2 * HEARTBEAT_S
STARTUP_S = 4.0
PATIENT_STARTUP_S = 60.0


@dataclass(frozen=True, slots=True)
class Case:
    """One script: `phase` is its `module.function`.

    `deadline_s` counts from the last sign of progress; None: it may not be killed at all. `first`:
    the phase comes before any output. `saves`: the job has checkpoints. `meddling` names what is
    done to it from outside, `gpu` what its GPU shows. `busy` ones run one at a time, or they would
    starve each other.
    """

    name: str
    phase: str
    deadline_s: float | None = None
    first: bool = False
    saves: bool = False
    busy: bool = False
    meddling: str = ""
    program: str = ""
    gpu: str = ""
    quick: bool = False

    @property
    def is_hang(self) -> bool:
        """Whether it must be killed."""
        return self.deadline_s is not None

    @property
    def startup_s(self) -> float:
        """The timeout of the start: short where that is what the case is about."""
        return STARTUP_S if self.first else PATIENT_STARTUP_S


SLOW = (
    Case("key-stretching", "slow_computing.key_stretching", busy=True, quick=True),
    Case("compression", "slow_computing.compression", busy=True),
    Case("evaluation", "slow_computing.evaluation", busy=True, quick=True),
    Case("memory-filling", "slow_computing.memory_filling"),
    Case("short-processes", "slow_computing.short_processes", quick=True),
    Case("compiler", "slow_computing.compiler", busy=True, program="cc"),
    Case("gpu-kernels", "slow_computing.gpu_kernels", busy=True, gpu="working"),
    Case("checkpoint", "slow_files.checkpoint", saves=True),
    Case("checkpoint-elsewhere", "slow_files.checkpoint_elsewhere", quick=True),
    Case("checkpoint-by-child", "slow_files.checkpoint_by_child"),
    Case("quiet-saves", "slow_files.quiet_saves", saves=True),
    Case("preprocessing", "slow_files.preprocessing"),
    Case("copy-to-disk", "slow_files.copy_to_disk"),
    Case("loaders", "slow_files.loaders", quick=True),
    Case("thread-pool", "slow_files.thread_pool"),
    Case("late-flush", "slow_files.late_flush"),
    Case("slow-start", "slow_files.slow_start", first=True),
    Case("dead-mount", "slow_files.dead_mount"),
    Case("download-to-file", "slow_waiting.download_to_file"),
    Case("download-to-memory", "slow_waiting.download_to_memory"),
    Case("sparse-logger", "slow_waiting.sparse_logger"),
    Case("progress-bar", "slow_waiting.progress_bar"),
    Case("stopped", "slow_waiting.rest", meddling="stop", quick=True),
    Case("stopped-in-pulses", "slow_computing.little_work", meddling="pulses"),
    Case("traced", "slow_waiting.rest", meddling="trace"),
    Case("frozen-v1", "slow_waiting.rest", meddling="freeze-v1"),
    Case("frozen-v2", "slow_waiting.rest", meddling="freeze-v2"),
    Case("throttled", "slow_computing.little_work", meddling="throttle"),
    Case("runner-stopped", "slow_waiting.chatter", meddling="stop-runner"),
    Case("suspended", "slow_waiting.rest", meddling="stop-both"),
)

HANGS = (
    Case("event", "hung_waiting.event", HEARTBEAT_S, quick=True),
    Case("lock-order", "hung_waiting.lock_order", HEARTBEAT_S, quick=True),
    Case("fifo", "hung_waiting.fifo", HEARTBEAT_S),
    Case("silent-peer", "hung_waiting.silent_peer", HEARTBEAT_S, quick=True),
    Case("full-pipe", "hung_waiting.full_pipe", HEARTBEAT_S),
    Case("dead-loader", "hung_waiting.dead_loader", HEARTBEAT_S),
    Case("idle-loaders", "hung_waiting.idle_loaders", HEARTBEAT_S, quick=True),
    Case("file-lock", "hung_waiting.file_lock", HEARTBEAT_S),
    Case("lock-file", "hung_waiting.lock_file", HEARTBEAT_S),
    Case("sleeping-child", "hung_waiting.sleeping_child", HEARTBEAT_S),
    Case("watchdog-thread", "hung_waiting.watchdog_thread", HEARTBEAT_S, quick=True),
    Case("monitor-thread", "hung_waiting.monitor_thread", HEARTBEAT_S),
    Case("deaf", "hung_waiting.deaf", HEARTBEAT_S),
    Case("after-done", "hung_waiting.after_done", HEARTBEAT_S),
    Case("silent-start", "hung_waiting.event", STARTUP_S, first=True),
    Case("spin", "hung_spinning.spin", BUSY_DEADLINE_S, busy=True, quick=True),
    Case("collective", "hung_spinning.collective", BUSY_DEADLINE_S, busy=True),
    Case(
        "gpu-collective",
        "hung_spinning.collective",
        HEARTBEAT_S,
        busy=True,
        gpu="stuck",
        quick=True,
    ),
)

CASES = SLOW + HANGS
