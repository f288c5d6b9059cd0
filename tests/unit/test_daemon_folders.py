"""Whose folder it is: what two jobs would write to at once is seen when they are submitted."""

import os
import sqlite3
from pathlib import Path

import pytest

from supervisor.daemon.contracts import Conflict
from supervisor.daemon.desk import Desk
from supervisor.host import identity
from supervisor.runner.opening import job_id
from tests.unit.daemon_desks import a_desk, a_folder, examined  # noqa: F401 - used by name


def test_a_folder_has_one_name(desk: Desk, folder: Path) -> None:
    """Whichever link a job names it by: two jobs that write there have a claim in common."""
    (folder / "disk").mkdir()
    (folder / "runs").symlink_to("disk")
    named = ["runs/net", "disk/net", "disk/../runs/./net"]
    found = [examined(desk, folder, checkpoint={"preset": "hf", "dir": one}) for one in named]
    assert [one["claims"] for one in found] == [[str(folder / "disk" / "net")]] * 3


def test_a_job_that_runs_in_a_terminal_is_not_submitted_beside_it(
    desk: Desk, folder: Path, state_dir: Path
) -> None:
    """The queue knows nothing of it; when its runner has left, the job may be queued."""
    found = examined(desk, folder)
    started = job_id("net", str(folder), 1)
    taken = {"id": started, "spec": found["spec"], "surroundings": None, "created_s": 7.5}
    desk.answer("accept", {"jobs": [taken]})
    runner = (os.getpid(), identity.start_ticks(os.getpid()), identity.boot_id())
    with sqlite3.connect(state_dir / "journal.sqlite") as rows:
        rows.execute("UPDATE jobs SET runner_pid = ?, runner_ticks = ?, boot_id = ?", runner)
    rows.close()
    with pytest.raises(Conflict, match=f"supervise wait {started}"):
        examined(desk, folder)
    with sqlite3.connect(state_dir / "journal.sqlite") as rows:
        rows.execute("UPDATE jobs SET runner_ticks = 1")
    rows.close()
    assert examined(desk, folder)["generation"] == 2
