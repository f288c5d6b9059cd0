"""A state folder that refuses: a clear sentence, the documented exit code, nothing lost."""

import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


def test_a_journal_that_is_no_database_is_refused_and_kept(job):
    """Garbage in the journal's place: exit 3, the advice names the file, not a byte is changed."""
    job.state_dir.mkdir()
    journal = job.state_dir / "journal.sqlite"
    journal.write_bytes(b"this is not a database" * 100)
    before = journal.read_bytes()
    code, output = job.run()
    assert code == 3
    assert f"the journal {journal} is damaged" in output
    assert journal.read_bytes() == before
    assert job.folder.joinpath("began.jsonl").exists() is False


def test_a_journal_of_a_newer_version_is_refused(job):
    """Schema 99: exit 3, and what to do."""
    job.run()
    journal = job.state_dir / "journal.sqlite"
    with sqlite3.connect(journal) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    code, output = job.run()
    assert code == 3
    assert "newer supervise" in output
    assert "Upgrade" in output


def test_a_state_folder_that_cannot_be_made_is_refused(job):
    """A file where the folder should be: a usage error, a sentence, no attempt."""
    job.state_dir.write_text("in the way")
    code, output = job.run()
    assert code == 2
    assert "--state-dir" in output
    assert job.folder.joinpath("began.jsonl").exists() is False


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 KiB; mounting it takes root."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("this host does not allow mounting a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def read_only(small_disk: Path) -> Path:
    """A file system that is mounted read-only."""
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    return small_disk


def test_a_read_only_state_folder_is_refused(job, read_only):
    """Nothing can be written: exit 3, no attempt."""
    job.state_dir = read_only / "state"
    code, output = job.run()
    assert code == 3, output
    assert "Read-only file system" in output
    assert job.folder.joinpath("began.jsonl").exists() is False


def test_a_full_disk_for_the_state_is_said_and_nothing_is_started(job, small_disk):
    """No byte is free: exit 3, the journal is named, no attempt."""
    job.state_dir = small_disk / "state"
    _fill(small_disk / "filler")
    code, output = job.run()
    assert code == 3, output
    assert str(job.state_dir) in output
    assert job.folder.joinpath("began.jsonl").exists() is False


def test_no_room_for_a_copy_holds_the_job_and_loses_nothing(job, small_disk, eventually):
    """Checkpoints too large to be copied: it trains on, then holds; with space it goes on.

    By itself, and without a restart being counted.
    """
    script = job.folder / "steps.py"
    script.write_text(script.read_text().replace('b"x" * 20000', 'b"x" * 500000'))
    job.state_dir = small_disk / "state"
    job.write(command=["python", "steps.py", "--steps", "400"])
    run = job.start()
    eventually(lambda: job.saved(150), 30)
    os.kill(eventually(job.worker), signal.SIGKILL)
    eventually(lambda: job.show()["state"] == "holding", 30)
    assert len(job.began()) == 1
    newest = max(int(path.stem[5:]) for path in (job.folder / "out").glob("ckpt-*.pt"))
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    eventually(lambda: len(job.began()) > 1, 30)
    assert job.began()[1] == newest
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=30)
    assert "no room" in output
    assert "going on" in output
    assert job.show()["attempts"][0]["decision"] == "resume"
    assert len(job.attempts()) == 2


def test_who_stops_a_job_that_waits_for_room_can_resume_it(job, small_disk, eventually):
    """Ctrl-C while it holds: exit 75, nothing is counted or lost."""
    script = job.folder / "steps.py"
    script.write_text(script.read_text().replace('b"x" * 20000', 'b"x" * 500000'))
    job.state_dir = small_disk / "state"
    job.write(command=["python", "steps.py", "--steps", "400"])
    run = job.start()
    eventually(lambda: job.saved(150), 30)
    os.kill(eventually(job.worker), signal.SIGKILL)
    eventually(lambda: job.show()["state"] == "holding", 30)
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=30)
    assert run.returncode == 75, output
    assert job.show()["state"] == "stopped"


def test_a_worker_that_fills_the_disk_goes_on_when_it_is_emptied(job, small_disk, eventually):
    """ENOSPC in the job's own folder: cause disk_full, no restart counted, no person needed."""
    data = small_disk / "data"
    data.mkdir()
    (job.folder / "out").symlink_to(data)
    filler = small_disk / "filler"
    run = job.start()
    eventually(lambda: job.saved(2), 20)
    _fill(filler)
    eventually(lambda: job.show()["state"] == "holding", 30)
    filler.unlink()
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 0, output
    assert job.causes() == ["disk_full", "completed"]
    assert job.attempts()[0]["decision"] == "hold"


def test_a_state_disk_that_fills_up_does_not_stop_a_training_that_works(
    job, small_disk, eventually
):
    """Journal and copies cannot grow while the worker trains on: they wait, and catch up."""
    job.state_dir = small_disk / "state"
    quiet = "exec python steps.py --steps 250 > /dev/null"  # its output lies on the full disk, too
    job.write(command=["sh", "-c", quiet], resume={"env": {"FROM": "{path}"}, "mode": "env"})
    run = job.start()
    eventually(lambda: job.saved(20), 20)
    worker = eventually(job.worker)
    filler = small_disk / "filler"
    _fill(filler)
    for line in run.stdout:  # the next verified checkpoint is what cannot be stored
        if "The worker goes on" in line:
            break
    eventually(lambda: job.saved(150), 30)
    assert job.began() == [0], f"worker {worker} was disturbed"
    filler.unlink()
    output, _ = run.communicate(timeout=60)
    assert "the journal can be written again" in output
    assert run.returncode == 0, output
    assert job.causes() == ["completed"]


def _fill(path):
    def write_for_ever():
        with path.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 512)

    with pytest.raises(OSError, match="No space"):
        write_for_ever()
