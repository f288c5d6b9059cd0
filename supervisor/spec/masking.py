"""What programs may read of a frozen job's variables.

Owns which parts of a job hold some; what looks like a secret is core/secrets.py's to say. Imports
no schema, so that quick verbs can use it.
Invariant: what is masked here is masked in every output; the worker gets it as it was written.
"""

from collections.abc import Mapping
from typing import Any

from supervisor.core.secrets import masked


def masked_job(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job as plain data (the `job` of what `freeze` wrote) with its secrets masked."""
    resume = job.get("resume")
    shown = dict(job)
    if isinstance(resume, Mapping):
        shown["resume"] = _masked_env(resume)
    return _masked_env(shown)


def _masked_env(section: Mapping[str, Any]) -> dict[str, Any]:
    env = section.get("env")
    if not isinstance(env, Mapping):
        return dict(section)
    return {**section, "env": masked({str(name): str(value) for name, value in env.items()})}
