"""What a worker's own report makes of its end: rows for test_core_classify."""

from supervisor.core.causes import Cause
from supervisor.core.evidence import ErrorReport, Evidence
from supervisor.core.reported import REPORTED

REPORT_ROWS: list[tuple[Cause, Evidence, str]] = [
    *(
        (
            cause,
            Evidence(
                exit_code=1,
                resumed_step=300,
                report=ErrorReport(kind, "ValueError", "too big\nat all"),
            ),
            words,
        )
        for kind, cause in REPORTED.items()
        for words in ("ValueError: too big (exit code 1)",)
    ),
    (
        Cause.BAD_CONFIG,
        Evidence(exit_code=2, report=ErrorReport("bad_config", "workers.entry.Problem", "no x")),
        "no x (exit code 2)",
    ),
    (
        Cause.EXIT_CODE,  # some other file of the job is broken
        Evidence(
            exit_code=1,
            resumed_step=300,
            step=301,
            report=ErrorReport("bad_checkpoint", "EOFError", "Ran out of input"),
        ),
        "exit code 1: EOFError: Ran out of input",
    ),
    (
        Cause.BAD_CHECKPOINT,  # our own trainer knows what it read
        Evidence(exit_code=1, report=ErrorReport("bad_checkpoint", "workers.train.errors.E", "no")),
        "no (exit code 1)",
    ),
    (
        Cause.EXIT_CODE,
        Evidence(
            exit_code=1,
            report=ErrorReport(
                "error", "IndexError", "Caught IndexError in worker 0.\n  File x\nIndexError: 9"
            ),
        ),
        "exit code 1: IndexError: 9",
    ),
    (
        Cause.EXIT_CODE,
        Evidence(exit_code=1, error_line="warned", report=ErrorReport("error", "KeyError", "")),
        "exit code 1: KeyError",
    ),
]
