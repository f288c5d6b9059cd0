"""What changed between two versions of a job.

Owns the wording of the difference; two jobs that freeze alike have none.
"""

from supervisor.spec.effective import effective, shown
from supervisor.spec.job import JobSpec

_NOTHING = ("null", "{}")


def differences(old: JobSpec, new: JobSpec) -> list[str]:
    """Return a line for each field that was changed (` `), added (`+`) or removed (`-`).

    Folder and path of the file do not count. Secrets are masked: these lines are shown and stored.
    """
    before, after = _fields(old), _fields(new)
    told_before, told_after = _fields(shown(old)), _fields(shown(new))
    lines = []
    for where, value in after.items():
        if where not in before:
            if not (value in _NOTHING and _has_below(where, before)):
                lines.append(f"+ {where}: {told_after[where]}")
        elif before[where] != value:
            lines.append(f"  {where}: {told_before[where]} -> {told_after[where]}")
    for where, value in before.items():
        if where not in after and not (value in _NOTHING and _has_below(where, after)):
            lines.append(f"- {where}: {told_before[where]}")
    return lines


def _fields(spec: JobSpec) -> dict[str, str]:
    named = {".".join(map(str, where)): value for where, value in effective(spec)}
    return named | {f"-p {name}": value for name, value in spec.values.items()}


def _has_below(where: str, fields: dict[str, str]) -> bool:
    return any(other.startswith(f"{where}.") for other in fields)
