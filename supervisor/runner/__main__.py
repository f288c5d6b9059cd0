"""A runner of its own: `python -m supervisor.runner --state-dir DIR JOB_ID`.

Owns the detached form, for whoever starts runners without a terminal. The job was accepted before;
its spec is already frozen, so neither YAML nor a terminal library is loaded.
"""

import gc
import sys
from pathlib import Path

from supervisor.journal import Journal, JournalError
from supervisor.runner.exits import Exit, exit_code
from supervisor.runner.locks import AlreadyRunning
from supervisor.runner.opening import AlreadyDone, open_known
from supervisor.runner.run import run


def main(arguments: list[str]) -> int:
    """Run one job that the journal knows."""
    match arguments:
        case ["--state-dir", folder, job_id]:
            state_dir = Path(folder)
        case _:
            sys.stderr.write("usage: python -m supervisor.runner --state-dir DIR JOB_ID\n")
            return Exit.USAGE
    try:
        journal = Journal.open(state_dir)
        with open_known(journal, state_dir, job_id) as job:
            gc.freeze()  # the modules are here to stay: no collection need look at them again
            outcome = run(job)
            return exit_code(outcome.state, forced=outcome.forced)
    except KeyError:
        sys.stderr.write(f"supervise: there is no job {job_id} in {state_dir}\n")
        return Exit.USAGE
    except AlreadyDone:
        return Exit.DONE
    except AlreadyRunning as error:
        sys.stderr.write(f"supervise: {error}\n")
        return Exit.USAGE
    except JournalError as error:
        sys.stderr.write(f"supervise: {error}\n")
        return Exit.HOLDING


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
