"""A disk is full while a batch job runs: it waits, and loses nothing and does nothing twice."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

import pytest

SmallDisk = Callable[[Path, str], Path]


@pytest.fixture
def small_disk() -> Iterator[SmallDisk]:
    """Mount a file system of a given size in a folder."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    mounted: list[Path] = []

    def make(folder: Path, size: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if subprocess.run(command, check=False).returncode:
            pytest.skip("no tmpfs can be mounted here")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def grow(folder: Path, size: str) -> None:
    """Give a small file system more room."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


WORDY = "def wordy(item):\n    square(item)\n    return 'x' * 4000"


def test_results_wait_for_room(batch: Any, eventually: Any, small_disk: SmallDisk) -> None:
    """64 KiB for results of 200 KB: it says so, waits, and every item is there once."""
    small_disk(batch.out, "64k")
    batch.items(range(1, 51))
    batch.add(WORDY)
    batch.write("wordy", timeouts={"item": 1, "chunk": 3, "stop": 5})
    run = batch.start()
    eventually(lambda: "results cannot be written" in log_of(batch), 20)
    assert run.poll() is None
    grow(batch.out, "2m")
    output, _ = run.communicate(timeout=30)
    assert run.returncode == 0, output
    assert "results can be written again" in output
    batch.is_whole(50)
    assert set(batch.calls().values()) == {1}


def test_nobody_is_called_hung_who_waits_for_the_disk(
    batch: Any, eventually: Any, small_disk: SmallDisk
) -> None:
    """Promise 8: the runner hears nobody while so much lies unwritten; no item is to blame."""
    small_disk(batch.out, "64k")
    batch.items(range(1, 31))
    batch.add("def long(item):\n    square(item)\n    return 'x' * 1_000_000")
    batch.write("long", timeouts={"item": 0.5, "stop": 5})
    run = batch.start()
    eventually(lambda: "results cannot be written" in log_of(batch), 20)
    waited = Event()
    waited.wait(1.5)  # longer than an item may take
    grow(batch.out, "80m")
    output, _ = run.communicate(timeout=30)
    assert run.returncode == 0, output
    batch.is_whole(30)
    assert set(batch.calls().values()) == {1}
    assert batch.events("WorkerReplaced") == []


def log_of(batch: Any) -> str:
    """What the runner logged so far."""
    files = list(batch.job.state_dir.glob("jobs/*/runner.log"))
    return files[0].read_text() if files else ""


@pytest.mark.parametrize("stops", [1, 2])
def test_stopped_while_no_result_can_be_written(
    batch: Any, eventually: Any, small_disk: SmallDisk, stops: int
) -> None:
    """No item is called done that is not: what was not acknowledged is done by the next run."""
    small_disk(batch.out, "64k")
    batch.items(range(1, 51))
    batch.add(WORDY)
    batch.write("wordy", timeouts={"stop": 1})
    run = batch.start()
    eventually(lambda: "results cannot be written" in log_of(batch), 20)
    run.send_signal(2)
    if stops == 2:
        eventually(lambda: batch.show()["state"] == "stopping", 10)
        run.send_signal(2)
    output, _ = run.communicate(timeout=30)
    assert run.returncode == (75 if stops == 1 else 130), output
    grow(batch.out, "2m")
    assert batch.show()["items"]["done"] < 50
    assert batch.show()["step"] == batch.show()["items"]["done"]
    code, output = batch.run()
    assert code == 0, output
    batch.is_whole(50)


def test_the_journal_waits_for_room(batch: Any, eventually: Any, small_disk: SmallDisk) -> None:
    """A full state folder: workers wait, and a poison item among them is still found."""
    state = small_disk(batch.job.state_dir, "600k")
    batch.items(range(1, 61))
    batch.add("def dies(item):\n    if item == '45': os._exit(9)\n    return slow(item)")
    batch.write("dies")
    run = batch.start()
    eventually(lambda: len(batch.lines()) > 3, 20)
    free = os.statvfs(state)
    filler = state / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):  # until it is full
        for _ in range(free.f_bfree + 10):
            file.write(b"x" * free.f_bsize)
    eventually(lambda: "trying again" in output_of(batch) or "cannot be" in output_of(batch), 20)
    filler.unlink()
    grow(state, "20m")
    output, _ = run.communicate(timeout=40)
    assert run.returncode == 3, output
    batch.is_whole(60, without=("45",))


def output_of(batch: Any) -> str:
    """What a full disk leaves of the runner's log, and of the job's count."""
    return "cannot be" if len(batch.lines()) > 30 else log_of(batch)


def test_a_function_that_finds_the_disk_full_holds_the_job(
    batch: Any, eventually: Any, small_disk: SmallDisk
) -> None:
    """Its ENOSPC is no fault of the item; the job goes on when there is room."""
    scratch = small_disk(batch.folder / "scratch", "64k")
    batch.add(
        "def writes(item):\n"
        "    with open(f'scratch/{item}', 'wb') as file: file.write(b'x' * 12000)\n"
        "    return square(item)"
    )
    batch.write("writes")
    run = batch.start()
    eventually(lambda: len(batch.show_or_none()) == 1, 20)
    grow(scratch, "2m")
    output, _ = run.communicate(timeout=40)
    assert run.returncode == 0, output
    batch.is_whole(10)
    assert batch.quarantined() == {}
    assert set(batch.causes()) == {"disk_full", "completed"}
