"""What every worker of a job starts from: its environment, and the name of its interpreter.

Owns the order of precedence: the runner's own variables, ours, the job's.
"""

import os
import sys
from collections.abc import Mapping

from supervisor.runner.isolation import owner_name
from supervisor.runner.opening import OpenJob
from supervisor.spec.paths import environment, resolve
from workers import protocol

# What an outer supervised job told its own worker is not for this one.
OUTER_ENV = frozenset(
    {protocol.ENV_JOB, protocol.ENV_ATTEMPT, protocol.ENV_RESUME_PATH, protocol.ENV_RESUME_STEP}
)

# What every worker gets unless the job says otherwise. Buffered output would look like a hang, and
# with faulthandler a fatal signal leaves every thread's stack in the log.
WORKER_ENV: Mapping[str, str] = {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}

# Workers of a batch job live for seconds, and each touches its memory anew: in large pages that is
# a quarter of the page faults, and a fifth less time for a network's first image.
BATCH_ENV: Mapping[str, str] = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def interpreter(job: OpenJob) -> str:
    """The Python of the job: its own, else the activated environment's, else the one running this.

    Named by its path wherever that is known: its folder may hold others by the name of `python`.
    """
    activated = os.environ.get("VIRTUAL_ENV") or os.environ.get("CONDA_PREFIX")
    return resolve(job.spec).python or ("python" if activated else sys.executable)


def worker_environment(job: OpenJob, number: int) -> dict[str, str]:
    """What every worker of an attempt starts from: the runner's, ours, the job's.

    The later word counts.
    """
    inherited = {key: text for key, text in os.environ.items() if key not in OUTER_ENV}
    ours = {
        protocol.ENV_JOB: job.id,
        protocol.ENV_ATTEMPT: str(number),
        protocol.ENV_OWNER: owner_name(job),
    }
    batch = {} if job.settings.batch is None else BATCH_ENV
    return environment(job.spec, {**batch, **inherited, **WORKER_ENV, **ours})
