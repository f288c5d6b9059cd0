"""Whether a job is done, where job.yaml says what done is.

Owns the check of `done`. All its conditions must hold; exit code 0 is one of them unless it names
another. A file that is older than the job proves nothing.
"""

import re
from pathlib import Path

from supervisor.core.state import JobState
from supervisor.runner.home import AttemptFolder
from supervisor.runner.opening import OpenJob
from supervisor.watch.follow import open_log

LOG_LIMIT_BYTES = 16 << 20  # how much of the end of a log `done.regex` looks at
LINE_LIMIT_BYTES = 64 << 10  # a pattern of the slow kind must not meet a line of megabytes
CLOCK_SLACK_S = 2.0  # file systems round times, and a server's clock may be a little behind


def check_done(job: OpenJob, state: JobState, attempt: AttemptFolder) -> tuple[bool | None, str]:
    """Whether the ended attempt finished the job, and why; None where job.yaml does not say."""
    done = job.settings.done
    if done is None:
        return None, ""
    code = "no exit code" if state.exit_code is None else f"exit code {state.exit_code}"
    found = [(state.exit_code == done.exit_code, code)]
    if done.step is not None:
        reached = max(state.step or 0, state.best_checkpoint or 0)
        found.append((reached >= done.step, f"step {reached} of {done.step}"))
    if done.file is not None:
        found.append(_fresh_file(done.file, job.record.created_s))
    if done.regex is not None:
        seen = _in_log(attempt.log, done.regex)
        found.append((seen, f"/{done.regex}/ {'seen' if seen else 'not seen'} in its output"))
    missing = [words for holds, words in found if not holds]
    if missing:
        return False, "; ".join(missing)
    return True, "; ".join(words for _, words in found[1:]) or found[0][1]


def _fresh_file(path: Path, since_s: float) -> tuple[bool, str]:
    try:
        written_s = path.stat().st_mtime
    except OSError:
        return False, f"{path} does not exist"
    if written_s < since_s - CLOCK_SLACK_S:
        return False, f"{path} is older than this job"
    return True, f"{path} exists"


def _in_log(path: Path, pattern: str) -> bool:
    wanted = re.compile(pattern)
    try:
        with open(open_log(path), "rb") as log:  # noqa: PTH123 - a descriptor, not a path
            log.seek(max(0, log.seek(0, 2) - LOG_LIMIT_BYTES))
            return any(
                wanted.search(line[:LINE_LIMIT_BYTES].decode(errors="replace"))
                for ended in log
                for line in ended.split(b"\r")  # a progress bar rewrites its line
            )
    except OSError:
        return False
