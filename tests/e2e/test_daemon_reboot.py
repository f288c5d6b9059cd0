"""A power cut, as far as it can be played: runners and daemon are gone, and so is their boot.

The real one is in tests/vm/test_vm_reboot.py.
"""

import json
import os
import secrets
import signal
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest

from supervisor.checkpoint.manifest import Pin
from supervisor.checkpoint.pins import Pins
from tests.e2e.conftest import READER, STEPS
from tests.e2e.daemon_host import Host, lives

# Has begun, and does not leave when it is asked to.
DEAF = """
import signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open("ran.txt", "a") as ran:
    ran.write(f"{sys.argv[1]} 0\\n")
print("step 1", flush=True)
while True:
    signal.pause()
"""
FILES = {"journal": "UPDATE jobs SET boot_id = ?", "queue": "UPDATE entries SET boot_id = ?"}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A folder for jobs, and a daemon that is not started yet."""
    made = Host(tmp_path, READER)
    yield made
    made.clean_up()


def cut_power(host: Host, running: Iterable[str], *, torn: bool = False) -> None:
    """End the daemon and these runners at once, and have their boot be an earlier one.

    What SQLite leaves is kept as a power cut would: its logs were never put into the files. `torn`:
    the last write of each log is half there, and what processes shared in memory is noise.
    """
    assert host.daemon is not None
    pidfds = [os.pidfd_open(host.runner(job)) for job in running]
    host.kill()
    for pidfd in pidfds:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    host.until(lambda: not any(map(lives, pidfds)))
    for pidfd in pidfds:
        os.close(pidfd)
    with ExitStack() as held:
        for name, statement in FILES.items():
            file = host.state_dir / f"{name}.sqlite"
            # While this one is open, the other's end is not the last, which would tidy up.
            reader = held.enter_context(closing(sqlite3.connect(file)))
            reader.execute("SELECT * FROM sqlite_master")
            with closing(sqlite3.connect(file)) as database, database:
                database.execute(statement, ["an earlier boot"])
        left = {path: path.read_bytes() for path in host.state_dir.glob("*.sqlite*")}
    for path, content in left.items():
        path.write_bytes(tattered(path, content) if torn else content)


def tattered(path: Path, content: bytes) -> bytes:
    """What a power cut in the middle of a write leaves of a file."""
    if path.name.endswith("-shm"):
        return secrets.token_bytes(len(content))
    if path.name.endswith("-wal"):
        assert len(content) > 32, f"{path} holds nothing: this test would prove nothing"
        return content + content[32:2000]  # the begin of a frame, as if of the next commit
    return content


def placed(host: Host) -> list[str]:
    """The names of the jobs that were given a place, in order, since the queue began."""
    uri = f"file:{host.state_dir / 'queue.sqlite'}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as queue:
        rows = queue.execute(
            "SELECT name FROM happenings JOIN entries ON entries.id = happenings.job_id"
            " WHERE kind = 'Placed' ORDER BY happenings.seq"
        )
        return [name for (name,) in rows]


def began(host: Host, count: int) -> bool:
    """Whether so many workers have begun."""
    return len(host.ran()) == count


def causes(host: Host, job: str) -> list[str]:
    """Why each attempt ended."""
    return [one["cause"] for one in host.show(job)["attempts"]]


def training(host: Host) -> str:
    """A job file of a training with checkpoints."""
    (host.folder / "steps.py").write_text(STEPS)
    return host.job(
        "steps",
        command=["python", "steps.py", "--steps", "150"],
        checkpoint={"dir": "out", "glob": "ckpt-*.pt"},
        resume={"argv": ["--resume", "{path}"]},
        done={"file": "out/DONE"},
    )


def test_jobs_go_on_in_the_old_order_also_with_fewer_places(host: Host) -> None:
    """Five ran, three waited, and there is one place less: who ran is before who waited."""
    host.start("--cpus", "5")
    ran = {"a": 1, "b": 3, "c": 3, "d": 0, "e": 2}
    jobs = {name: host.submit(name, "--priority", str(ran[name])) for name in ran}
    host.until(lambda: sorted(host.ran()) == sorted(ran))
    jobs |= {name: host.submit(name) for name in "xyz"}
    before = len(placed(host))
    cut_power(host, [jobs[name] for name in ran])
    host.start("--cpus", "4")
    host.until(lambda: len(host.ran()) == 9)
    assert placed(host)[before:] == ["b", "c", "e", "a"]
    assert sorted(host.ran()[5:]) == ["a", "b", "c", "e"]
    for name in jobs:
        host.go_on(name)
    assert host.code("wait", *jobs.values()) == 0
    assert placed(host)[before + 4 :] == ["d", "x", "y", "z"]
    assert {name: causes(host, job) for name, job in jobs.items()} == {
        name: [*(["host_rebooted"] if name in ran else []), "completed"] for name in jobs
    }


def test_what_its_owner_had_stopped_or_cancelled_stays_so(host: Host) -> None:
    """Also what was only being stopped, or cancelled, when the power went."""
    (host.folder / "deaf.py").write_text(DEAF)
    host.start("--cpus", "4")
    stopped, ended = host.submit("stopped"), host.submit("ended")
    stops, ends = (
        host.submit(name, command=["python", "deaf.py", name], timeouts={"stop": "1h"})
        for name in ("stops", "ends")
    )
    ran = ["ended", "ends", "stopped", "stops"]
    host.until(lambda: sorted(host.ran()) == ran)
    host.ok("stop", stopped)
    host.ok("cancel", ended)
    host.until_state(stopped, "stopped")
    host.until_state(ended, "cancelled")
    host.ok("stop", stops)
    host.ok("cancel", ends)
    for job in (stops, ends):
        host.until_state(job, "stopping")
    cut_power(host, [stops, ends])
    host.start("--cpus", "4")
    host.until_state(stops, "stopped")
    host.until_state(ends, "cancelled")
    assert (host.state(stopped), host.state(ended)) == ("stopped", "cancelled")
    assert sorted(host.ran()) == ran
    assert host.code("resume", ends) == 2
    host.ok("resume", stopped)
    host.go_on("stopped")
    assert host.code("wait", stopped) == 0


def test_torn_files_are_read_as_far_as_they_were_promised(host: Host) -> None:
    """Nothing that was answered for is missing: jobs, wishes, keys, the place of each."""
    host.start("--cpus", "1")
    job = host.ok("submit", training(host)).strip()
    host.until(lambda: int(host.show(job)["step"] or 0) > 5)
    waiting = host.submit("waiting", "--key", "once")
    gone = host.submit("gone")
    host.ok("cancel", gone)
    cut_power(host, [job], torn=True)
    host.start("--cpus", "1")
    assert host.submit("waiting", "--key", "once") == waiting
    host.go_on("waiting")
    assert host.code("wait", job, waiting) == 0
    assert causes(host, job) == ["host_rebooted", "completed"]
    assert host.show(job)["attempts"][1]["resumed_step"] > 5
    assert host.ran() == ["waiting"]
    assert host.state(gone) == "cancelled"


def test_our_copy_of_a_checkpoint_outlives_the_files_of_the_script(host: Host) -> None:
    """Scripts seldom sync what they save: a power cut leaves their last files empty."""
    host.start()
    job = host.ok("submit", training(host)).strip()
    pins = Pins(host.state_dir / "jobs" / job / "pins")
    host.until(lambda: step_of(pins.newest()) > 5)
    cut_power(host, [job])
    copied = step_of(pins.newest())
    for path in host.folder.glob("out/ckpt-*.pt"):
        if int(path.stem.partition("-")[2]) > 3:
            path.write_bytes(b"")
    host.start()
    assert host.code("wait", job) == 0
    assert host.show(job)["attempts"][1]["resumed_step"] == copied


def step_of(pin: Pin | None) -> int:
    """The step of a copy; 0 for none."""
    return 0 if pin is None else pin.step


def test_power_that_goes_again_and_again(host: Host) -> None:
    """A job that is cut short each time resumes each time, and costs nobody a restart."""
    host.start()
    job = host.submit("hello", restart={"budget": 0})
    for count in range(1, 4):
        host.until(partial(began, host, count))
        cut_power(host, [job])
        host.start()
    host.until(lambda: len(host.ran()) == 4)
    host.go_on("hello")
    assert host.code("wait", job) == 0
    assert causes(host, job) == ["host_rebooted"] * 3 + ["completed"]


def test_two_power_cuts_without_a_daemon_between_them(host: Host) -> None:
    """The daemon that came after the first was itself cut short before it placed anybody."""
    host.start()
    job = host.submit("hello")
    host.until(lambda: host.ran() == ["hello"])
    cut_power(host, [job])
    with closing(sqlite3.connect(host.state_dir / "queue.sqlite")) as queue, queue:
        queue.execute("UPDATE entries SET phase = 'waiting', placed_s = NULL")  # it was parked
    host.start()
    host.until(lambda: len(host.ran()) == 2)
    host.go_on("hello")
    assert host.code("wait", job) == 0
    assert causes(host, job) == ["host_rebooted", "completed"]
    assert json.loads(host.read("ps"))[0]["state"] == "succeeded"
