"""A runner of its own: `python -m supervisor.runner --state-dir DIR [--gpus UUID,UUID] JOB_ID`.

Owns the detached form, for whoever starts runners without a terminal. The job was accepted before;
its spec is already frozen, so neither YAML nor a terminal library is loaded. Where it was submitted
to a daemon, the surroundings of who did that are put on before anything else is looked at.
"""

import gc
import sys
from pathlib import Path

from supervisor.journal import Journal, JournalError
from supervisor.runner import surroundings
from supervisor.runner.exits import Exit, exit_code
from supervisor.runner.home import JobFolder
from supervisor.runner.locks import AlreadyRunning
from supervisor.runner.opening import AlreadyDone, CancelledForGood, open_known
from supervisor.runner.remove import NotRemoved
from supervisor.runner.run import run

USAGE = (
    "usage: python -m supervisor.runner --state-dir DIR [--gpus UUID,UUID] [--stopped-by WHO] "
    "JOB_ID\n"
)
OPTIONS = frozenset({"--state-dir", "--gpus", "--stopped-by"})


def main(arguments: list[str]) -> int:
    """Run one job that the journal knows."""
    given: dict[str, str] = {}
    while len(arguments) > 1 and arguments[0] in OPTIONS:  # argparse would cost half a megabyte
        given[arguments[0]], arguments = arguments[1], arguments[2:]
    if len(arguments) != 1 or arguments[0].startswith("-") or not given.get("--state-dir"):
        sys.stderr.write(USAGE)
        return Exit.USAGE
    state_dir = Path(given["--state-dir"]).absolute()
    try:
        surroundings.apply(JobFolder.of(state_dir, arguments[0]).surroundings)
        return _run(state_dir, arguments[0], given)
    except AlreadyDone:
        return Exit.DONE
    except (AlreadyRunning, CancelledForGood) as error:
        return _leave(str(error), Exit.USAGE)
    except (surroundings.SurroundingsUnusable, NotRemoved, JournalError) as error:
        return _leave(str(error), Exit.HOLDING)


def _run(state_dir: Path, job_id: str, given: dict[str, str]) -> int:
    journal = Journal.open(state_dir)
    prefer = tuple(filter(None, given.get("--gpus", "").split(",")))
    try:
        with open_known(journal, state_dir, job_id, prefer) as job:
            gc.freeze()  # the modules are here to stay: no collection need look at them again
            outcome = run(job, stopped_by=given.get("--stopped-by"))
            return exit_code(outcome.state, forced=outcome.forced)
    except KeyError as error:
        if error.args != (job_id,):
            raise  # a fault of ours, and not that there is no such job
        return _leave(f"there is no job {job_id} in {state_dir}", Exit.USAGE)


def _leave(message: str, code: Exit) -> Exit:
    sys.stderr.write(f"supervise: {message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
