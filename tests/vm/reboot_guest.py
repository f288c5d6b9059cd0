"""In the machine whose power is cut: a daemon and a training on a disk that outlives the machine.

Owns what a person would do there: before the cut, submit; after it, only start the daemon. What
became of the job is left in /run/vm for the test outside. Never judges.
"""

import json
import os
import select
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from supervisor.checkpoint.pins import Pins
from supervisor.client.errors import ClientError
from supervisor.client.find import find_daemon
from supervisor.host.identity import boot_id
from supervisor.journal import Journal
from supervisor.runner.home import JobFolder
from tests.e2e.conftest import STEPS

DEVICE = "/dev/vda"
DISK = Path("/run/disk")
STATE, JOBS = DISK / "state", DISK / "jobs"
REPORTS = Path("/run/vm")
SUPERVISE = [str(Path(sys.executable).with_name("supervise")), "--state-dir", str(STATE)]
LIMIT_S = 240.0
LOOK_S = 0.2
JOB = {
    "name": "steps",
    "command": [sys.executable, "steps.py", "--steps", "120", "--pause", "0.2"],
    "checkpoint": {"dir": "out", "glob": "ckpt-*.pt"},
    "resume": {"argv": ["--resume", "{path}"]},
    "done": {"file": "out/DONE"},
}


def main(phase: str) -> int:
    """Do a phase. The first one never ends by itself."""
    DISK.mkdir()
    subprocess.run(["mount", "-t", "ext4", DEVICE, DISK], check=True)
    known = json.loads((REPORTS / "before.json").read_text()) if phase == "after" else {}
    left = whole(known["job"]) if known else 0
    with (REPORTS / f"{phase}.log").open("wb") as log:
        command = [*SUPERVISE, "daemon", "run", "--launcher", "session"]
        subprocess.Popen(command, cwd=DISK, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    until(answers)
    if known:
        after(known["job"], left)
    else:
        before()
    return 0


def before() -> None:
    """Submit a training, and tell how far it is until the power is cut."""
    JOBS.mkdir()
    (JOBS / "steps.py").write_text(STEPS)
    (JOBS / "job.yaml").write_text(json.dumps(JOB))
    job = told("submit", "job.yaml").strip()
    while True:
        copied = pinned(job)  # first: what is counted afterwards may only be more
        found = {"job": job, "pinned": copied, "verified": verified(job), "boot": boot_id()}
        tell("before.json", found)
        select.select([], [], [], LOOK_S)


def after(job: str, left: int) -> None:
    """See the job to its end, without a word to anybody about it."""
    code = subprocess.run([*SUPERVISE, "wait", job], timeout=LIMIT_S, check=False).returncode
    shown = json.loads(told("show", job, "--json"))
    began = [json.loads(line) for line in (JOBS / "began.jsonl").read_text().splitlines()]
    found = {"code": code, "shown": shown, "began": began, "left": left, "boot": boot_id()}
    tell("after.json", found)


def verified(job: str) -> int:
    """The newest step of which the journal says that its checkpoint verified; 0 for none."""
    journal = Journal.open_existing(STATE)
    if journal is None:
        return 0
    with closing(journal):
        return max((one.step or 0 for one in journal.checkpoints(job) if one.verified), default=0)


def pinned(job: str) -> int:
    """The step of the newest copy of ours; 0 where there is none yet."""
    newest = Pins(JobFolder.of(STATE, job).pins).newest()
    return 0 if newest is None else newest.step


def whole(job: str) -> int:
    """The newest step of which a checkpoint lies there unharmed, the script's own or our copy."""
    steps = [pinned(job)]
    for path in JOBS.glob("out/ckpt-*.pt"):
        try:
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is None:
                    steps.append(int(path.stem.partition("-")[2]))
        except zipfile.BadZipFile:
            continue
    return max(steps)


def told(*words: str) -> str:
    """What a verb prints."""
    done = subprocess.run(
        [*SUPERVISE, *words], cwd=JOBS, check=True, capture_output=True, text=True, timeout=LIMIT_S
    )
    return done.stdout


def tell(name: str, content: object) -> None:
    """Leave something for the test outside, all of it at once."""
    new = REPORTS / f"{name}.new"
    with new.open("w") as file:
        file.write(json.dumps(content))
        file.flush()
        os.fsync(file.fileno())  # else the name is there before what it holds
    new.rename(REPORTS / name)


def answers() -> bool:
    """Whether the daemon does."""
    try:
        with find_daemon(STATE).connection as api:
            api.request("GET", "/v1/daemon")
    except ClientError:
        return False
    return True


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that will come."""
    give_up_at = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > give_up_at:
            sys.exit("waited in vain")
        select.select([], [], [], LOOK_S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
