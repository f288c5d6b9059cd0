"""The section `resources`: what a job needs of a host, and what its worker may use at most.

Owns the keys and their bounds; finds no GPU and sets no limit.
Invariant: null means that nothing is limited, never that the limit is nought.
"""

from typing import Annotated

from pydantic import Field

from supervisor.spec.kinds import UNFILLED, Flag, RoomySize
from supervisor.spec.sections import Section

# The kernel's own ceilings: PID_MAX_LIMIT, and what systemd raises fs.nr_open to.
_MOST_PIDS = 4_194_304
_MOST_OPEN_FILES = 1_073_741_816
_LEAST_OPEN_FILES = 16  # with fewer no interpreter starts


class Resources(Section):
    """What the job needs, and what its worker, with every process it starts, may use."""

    gpus: Annotated[int, Field(strict=True, ge=0, le=64), UNFILLED] = Field(
        0,
        description="GPUs the job holds for itself while it runs; the worker sees these and no "
        "other. In a batch job, each of its workers holds so many. 0: none is held, and "
        "CUDA_VISIBLE_DEVICES stays as it is.",
        examples=[1],
    )
    gpu_memory_bytes: RoomySize | None = Field(
        None,
        alias="gpu_memory",
        description="Memory of each GPU. A GPU that has not this much free is not used; a worker "
        "that takes more than this is killed. null: no limit.",
    )
    gpu_memory_soft_bytes: RoomySize | None = Field(
        None,
        alias="gpu_memory_soft",
        description="Memory of each GPU above which the worker is asked to save a checkpoint and "
        "leave, as by `stop`; smaller than gpu_memory. null: it is not asked.",
    )
    share_gpu: Flag = Field(
        default=False,
        description="Whether other jobs that say the same may use the GPU too; needs gpu_memory.",
    )
    memory_bytes: RoomySize | None = Field(
        None,
        alias="memory",
        description="Memory of the host for the worker's processes together; above it the worker "
        "is killed. null: no limit.",
    )
    cpus: Annotated[int, Field(strict=True, ge=1, le=4096), UNFILLED] | None = Field(
        None, description="Cores the worker may use. null: all.", examples=[8]
    )
    pids: Annotated[int, Field(strict=True, ge=1, le=_MOST_PIDS), UNFILLED] | None = Field(
        None,
        description="Most processes and threads of the worker at once; it cannot start more. "
        "null: no limit.",
        examples=[4096],
    )
    open_files: (
        Annotated[int, Field(strict=True, ge=_LEAST_OPEN_FILES, le=_MOST_OPEN_FILES), UNFILLED]
        | None
    ) = Field(
        None,
        description="Most files that each process of the worker may have open. null: as it is for "
        "who runs supervise.",
        examples=[65536],
    )
    core_dumps: Flag = Field(
        default=False,
        description="Whether a crash may write a core dump, which is as large as the process was.",
    )
