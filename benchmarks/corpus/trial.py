"""Tries one case of the corpus: runs it under `supervise run` and tells what became of it.

Owns the job file, the meddling from outside and the measuring; all that it knows of the outcome it
asks the command line for, as a person would. What it started is gone when `tried` returns.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.corpus.cases import SLACK_S, Case
from benchmarks.corpus.fake_gpu import fake_gpu
from benchmarks.corpus.fake_gpu import why_not as no_fake_gpu
from benchmarks.corpus.meddling import Target, meddled, why_not
from benchmarks.corpus.signs import HEARTBEAT_S, PHASE, SIGNS, WORKING_S

ROOT = Path(__file__).parents[2]
SUPERVISE = str(Path(sys.executable).with_name("supervise"))
LIMIT_S = 60.0
EARLY_S = 0.2  # a decision may not come before its deadline; the note of a sign takes a moment
END_S = 15.0
STARVED_PERCENT = 70.0  # still, after it ended; a supervisor that saw more was right to wait
STARVED_HEARTBEATS = 4
HANG_CAUSES = {"hang", "startup_timeout"}


class Verdict(StrEnum):
    """What a case came to."""

    KEPT = "kept"
    SKIPPED = "skipped"
    EXCUSED = "late, on a starved host"
    FALSE_KILL = "FALSE KILL"
    MISSED = "MISSED"
    EARLY = "TOO EARLY"
    LATE = "TOO LATE"
    BROKEN = "BROKEN"


_LEFT_ALONE = {
    (False, "completed"): Verdict.KEPT,
    (True, "completed"): Verdict.MISSED,
    (True, "stopped"): Verdict.MISSED,  # by this program, when it had waited long enough
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a case ended. `silent_s`: the longest time without a sign; for a hang, until the kill.

    `starved`: whether the host was, when it ended. A hang that is busy may then be found later.
    """

    case: Case
    cause: str = ""
    silent_s: float = 0.0
    detail: str = ""
    starved: bool = False

    @property
    def verdict(self) -> Verdict:
        """Whether the promise was kept."""
        if not self.cause:
            return Verdict.SKIPPED
        if self.cause not in HANG_CAUSES:
            return _LEFT_ALONE.get((self.case.is_hang, self.cause), Verdict.BROKEN)
        if self.case.deadline_s is None:
            return Verdict.FALSE_KILL
        if self.silent_s < HEARTBEAT_S - EARLY_S:
            return Verdict.EARLY
        if self.silent_s <= self.case.deadline_s + SLACK_S:
            return Verdict.KEPT
        excused = self.starved and self.silent_s <= STARVED_HEARTBEATS * HEARTBEAT_S + SLACK_S
        return Verdict.EXCUSED if excused else Verdict.LATE


def tried(case: Case, folder: Path) -> Outcome:
    """Run it in a folder of its own, which is not there yet."""
    if reason := _unable(case):
        return Outcome(case, detail=reason)
    folder.mkdir()
    (folder / "job.yaml").write_text(json.dumps(_job(case)), encoding="utf-8")
    with (folder / "output.txt").open("wb") as output:
        runner = subprocess.Popen(
            [SUPERVISE, "--state-dir", "state", "run", "job.yaml"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=os.environ | (fake_gpu(case.gpu, folder) if case.gpu else {}),
        )
    meddler = threading.Thread(target=_meddle, args=(case, folder, runner))
    meddler.start()
    try:
        runner.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        _end(runner)
    finally:
        meddler.join()
    return _outcome(case, folder)


def _unable(case: Case) -> str:
    if case.program and shutil.which(case.program) is None:
        return f"no {case.program} here"
    return no_fake_gpu() if case.gpu else why_not(case.meddling)


def _job(case: Case) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.corpus.play", case.phase]
    job: dict[str, Any] = {
        "name": case.name,
        "command": [*command, "--first"] if case.first else command,
        "env": {"PYTHONPATH": str(ROOT)},
        "timeouts": {"startup": case.startup_s, "heartbeat": HEARTBEAT_S, "stop": 2},
        "restart": {"budget": 0},
    }
    if case.gpu:
        job["resources"] = {"gpus": 1}
    if case.saves:
        job["checkpoint"] = {"dir": "out", "glob": "ckpt-*.pt"}
        job["resume"] = {"argv": ["--resume", "{path}"]}
    return job


def _meddle(case: Case, folder: Path, runner: subprocess.Popen[bytes]) -> None:
    """Once the phase is reached, do to it what the case asks for, for a while."""
    phase = folder / PHASE
    while not phase.exists():
        if not case.meddling or runner.poll() is not None:
            return
        time.sleep(0.02)
    worker = int(phase.read_text(encoding="ascii"))
    fds = [os.pidfd_open(worker), os.pidfd_open(runner.pid)]
    try:
        with meddled(case.meddling, Target(worker, *fds)):
            time.sleep(WORKING_S)
    finally:
        for fd in fds:
            os.close(fd)


def _end(runner: subprocess.Popen[bytes]) -> None:
    """Nobody ended it in time: insist, so that the whole tree goes; then by force."""
    for _ in range(2):
        runner.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            runner.wait(END_S)
            return
    runner.kill()
    runner.wait()


def _outcome(case: Case, folder: Path) -> Outcome:
    events = _events(case, folder)
    ended = [one["fields"] for one in events if one["kind"] == "AttemptEnded"]
    if not ended:
        return Outcome(case, "unknown", detail=_last_line(folder))
    signs = _instants(events, "AttemptSpawned") + _signs(folder)
    if decided := _instants(events, "DeadlinePassed", "StopRequested"):
        silent_s = min(decided[0] - at for at in signs if at <= decided[0])
    else:
        silent_s = max(after - before for before, after in pairwise(signs))
    return Outcome(case, ended[0]["cause"], silent_s, ended[0]["reason"], _host_is_starved())


def _host_is_starved() -> bool:
    """Whether tasks have waited for a CPU most of the last ten seconds."""
    with suppress(OSError):
        some = Path("/proc/pressure/cpu").read_text(encoding="ascii").split()
        return float(some[1].removeprefix("avg10=")) >= STARVED_PERCENT
    return False


def _events(case: Case, folder: Path) -> list[dict[str, Any]]:
    asked = [SUPERVISE, "--state-dir", str(folder / "state"), "events", case.name, "--json"]
    told = subprocess.run(asked, check=False, capture_output=True, text=True).stdout
    return [json.loads(line) for line in told.splitlines()]


def _instants(events: list[dict[str, Any]], *kinds: str) -> list[float]:
    told = [one["at"] for one in events if one["kind"] in kinds]
    return [datetime.fromisoformat(at).timestamp() for at in told]


def _signs(folder: Path) -> list[float]:
    with suppress(FileNotFoundError):
        return [float(line) for line in (folder / SIGNS).read_text(encoding="ascii").split()]
    return []


def _last_line(folder: Path) -> str:
    lines = (folder / "output.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[-1] if lines else "supervise run said nothing"
