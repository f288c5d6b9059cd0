"""What every worker of a job starts from: its environment, and the name of its interpreter.

Owns the order of precedence: the runner's own variables, ours, the job's.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from supervisor.runner.isolation import owner_name
from supervisor.runner.opening import OpenJob
from supervisor.spec.paths import environment
from workers import protocol

# What an outer supervised job told its own worker is not for this one.
OUTER_ENV = frozenset(
    {
        protocol.ENV_JOB,
        protocol.ENV_ATTEMPT,
        protocol.ENV_RESUME_PATH,
        protocol.ENV_RESUME_STEP,
        protocol.ENV_SESSION,
        protocol.ENV_CHECKPOINTS,
        protocol.ENV_MEMORY_TIER,
        protocol.ENV_MEMORY_BUDGET,
        protocol.ENV_SCRATCH,
    }
)

# What every worker gets unless the job says otherwise. Buffered output would look like a hang, and
# with faulthandler a fatal signal leaves every thread's stack in the log.
WORKER_ENV: Mapping[str, str] = {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}

# Workers of a batch job live for seconds, and each touches its memory anew: in large pages that is
# a quarter of the page faults, and a fifth less time for a network's first image.
BATCH_ENV: Mapping[str, str] = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def worker_environment(job: OpenJob, number: int) -> dict[str, str]:
    """What every worker of an attempt starts from: the runner's, ours, the job's.

    The later word counts. Raises OSError where the job's folder cannot be written.
    """
    inherited = {key: text for key, text in os.environ.items() if key not in OUTER_ENV}
    ours = {
        protocol.ENV_JOB: job.id,
        protocol.ENV_ATTEMPT: str(number),
        protocol.ENV_OWNER: owner_name(job),
    }
    batch = {} if job.settings.batch is None else BATCH_ENV
    merged = environment(job.spec, {**batch, **inherited, **WORKER_ENV, **ours})
    if job.spec.checkpoint is not None and job.spec.checkpoint.preset == "session":
        # Behind the script's own folder, and nothing else of ours: its interpreter may be another.
        folders = [merged.get("PYTHONPATH", ""), str(_session_modules(job))]
        merged["PYTHONPATH"] = os.pathsep.join(filter(None, folders))
    return merged


def _session_modules(job: OpenJob) -> Path:
    """A folder in which `workers` is found, and nothing else."""
    folder = job.folder.modules
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    link = folder / "workers"
    package = Path(protocol.__file__).resolve().parent
    if not link.is_symlink() or link.readlink() != package:  # supervise may have moved since
        link.unlink(missing_ok=True)
        link.symlink_to(package)
    return folder
