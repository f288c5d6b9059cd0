"""What a worker's own report says of its end: its kinds as causes, and its words.

Owns that table. A report is believed after the kernel's word and before the log's.
"""

from collections.abc import Callable

from supervisor.core.causes import Cause
from supervisor.core.evidence import ErrorReport, Evidence
from supervisor.core.status import status_words

# What a worker's own report means. Kinds that are not here say no more than its exit status.
REPORTED = {
    "disk_full": Cause.DISK_FULL,
    "cuda_oom": Cause.CUDA_OOM,
    "cuda_error": Cause.CUDA_ERROR,
    "nccl": Cause.NCCL,
    "dataloader": Cause.DATALOADER,
    "bad_checkpoint": Cause.BAD_CHECKPOINT,
    "bad_config": Cause.BAD_CONFIG,
    "non_finite": Cause.NON_FINITE,
}


def reported(kind: str) -> Callable[[Evidence], str | None]:
    """The reason in words, of an end that the worker reported to be of this kind."""

    def reason(seen: Evidence) -> str | None:
        report = seen.report
        if report is None or report.kind != kind or seen.exit_code == 0:
            return None
        # An error while other data is read looks the same; our own trainer knows what it read.
        if kind == "bad_checkpoint" and not (_is_ours(report) or was_loading(seen)):
            return None
        # Another rank was killed: the log says how.
        killed = seen.root_error is not None and seen.root_error.cause is Cause.SIGNAL
        if killed and kind in {"nccl", "dataloader"}:
            return None
        return f"{said(report)} ({status_words(seen)})"

    return reason


def was_loading(seen: Evidence) -> bool:
    """Whether it may have died of the checkpoint that it was given: there is one, and no step."""
    resumed = seen.resumed_step
    return resumed is not None and (seen.step is None or seen.step <= resumed)


def _is_ours(report: ErrorReport) -> bool:
    return report.type_name.startswith("workers.")


def said(report: ErrorReport) -> str:
    """The report's first line; a type of ours would tell a person nothing.

    What torch says of a loader's process has the error itself in its last line.
    """
    lines = report.message.strip().splitlines() or [""]
    if lines[0].startswith("Caught "):
        return lines[-1].strip()
    line = lines[0]
    if _is_ours(report):
        return line
    return f"{report.type_name}: {line}" if line else report.type_name
