"""Why an attempt ended, and what may be done about it: the two closed vocabularies.

Owns the words of the contract; decides nothing.
"""

from enum import StrEnum


class State(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    BACKING_OFF = "backing_off"
    HOLDING = "holding"
    STOPPING = "stopping"
    STOPPED = "stopped"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Cause(StrEnum):
    """Why an attempt ended."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    EXIT_CODE = "exit_code"
    SIGNAL = "signal"
    STARTUP_TIMEOUT = "startup_timeout"
    HANG = "hang"
    TOTAL_TIMEOUT = "total_timeout"
    HOST_OOM = "host_oom"
    HOST_MEMORY_LIMIT = "host_memory_limit"
    CUDA_OOM = "cuda_oom"
    GPU_MEMORY_LIMIT = "gpu_memory_limit"
    CUDA_ERROR = "cuda_error"
    GPU_HARDWARE = "gpu_hardware"
    NCCL = "nccl"
    SHM = "shm"
    DATALOADER = "dataloader"
    DISK_FULL = "disk_full"
    NON_FINITE = "non_finite"
    BAD_CHECKPOINT = "bad_checkpoint"
    BAD_CONFIG = "bad_config"
    SPAWN_FAILED = "spawn_failed"
    INCOMPLETE = "incomplete"
    POISON_ITEM = "poison_item"
    UNKILLABLE = "unkillable"
    RUNNER_LOST = "runner_lost"
    HOST_REBOOTED = "host_rebooted"


class Action(StrEnum):
    """What the policy chose to do about it."""

    RESUME = "resume"
    RESUME_FROM_OLDER = "resume_from_older"
    RETRY_OTHER_GPU = "retry_other_gpu"
    SHRINK_CHUNK = "shrink_chunk"
    QUARANTINE_ITEM = "quarantine_item"
    HOLD = "hold"
    GIVE_UP = "give_up"
    FINISH = "finish"
