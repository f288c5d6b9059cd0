"""Jobs with a history, written into a real journal through the real state machine."""

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from supervisor.cli import text
from supervisor.cli.main import cli
from supervisor.core.causes import Action, Cause, State
from supervisor.core.events import (
    AttemptEnded,
    AttemptSpawned,
    BackoffElapsed,
    CheckpointChosen,
    CheckpointVerified,
    DeadlinePassed,
    Event,
    ProgressBegan,
    RejectedCheckpoint,
    RunnerStarted,
    StopRequested,
    WorkerExited,
)
from supervisor.core.evidence import DeadlineName, Evidence
from supervisor.core.machine import step
from supervisor.core.signatures import RootError
from supervisor.core.state import JobState
from supervisor.host import identity
from supervisor.journal import JobRecord, Journal
from supervisor.journal import journal as journal_module
from supervisor.runner.home import AttemptFolder, JobFolder
from supervisor.views import times

GOLDEN = Path(__file__).parents[2] / "golden" / "cli"
BEGAN_S = 1_772_366_400.0  # 2026-03-01 12:00:00 UTC


class Clock:
    """Stands in for the `time` module where the journal reads the wall clock."""

    def __init__(self) -> None:
        self.now_s = BEGAN_S

    def time(self) -> float:
        """The instant at which the story is."""
        return self.now_s

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)  # the monotonic clock goes on as it does


@dataclass
class Story:
    """One job as it happens. `at` moves the clock to so many seconds after its beginning."""

    state_dir: Path
    journal: Journal
    clock: Clock
    id: str
    folder: Path
    state: JobState = field(default_factory=JobState)

    def at(self, offset_s: float) -> "Story":
        """Go to this moment."""
        self.clock.now_s = BEGAN_S + offset_s
        return self

    def saw(self, *events: Event) -> "Story":
        """Step and journal, as the runner does."""
        for event in events:
            self.state, _ = step(self.state, event, 0.0)
            if event.durable:
                self.journal.append(self.id, event, self.state)
        return self

    def attempt(self, number: int) -> AttemptFolder:
        """The folder of an attempt, made."""
        folder = JobFolder.of(self.state_dir, self.id).attempt(number)
        folder.path.mkdir(parents=True, exist_ok=True)
        return folder

    def runner(self, pid: int | None = None) -> "Story":
        """A runner took over: this very process, or one that is long gone."""
        mine = os.getpid()
        ticks = identity.start_ticks(mine) or 0
        return self.saw(RunnerStarted(pid or mine, ticks if pid is None else 1, identity.boot_id()))

    def begins(self, pid: int, resumed: tuple[int, float] | None = None, **more: object) -> "Story":
        """The next attempt starts; `resumed` is the step and when its checkpoint was written."""
        path, at_step, written = None, None, None
        if resumed is not None:
            at_step, written = resumed[0], BEGAN_S + resumed[1]
            path = self.checkpoint(at_step)
        chosen = CheckpointChosen(path, at_step, written_at_s=written, **more)
        self.saw(chosen)
        return self.saw(AttemptSpawned(self.state.attempt, pid, 77))

    def checkpoint(self, at_step: int) -> str:
        """Where the checkpoint of a step lies."""
        return str(self.folder / "out" / f"ckpt-{at_step:06d}.pt")

    def verified(self, at_step: int, *, pinned: bool = True) -> "Story":
        """A checkpoint was written just now, and verified."""
        path, size = self.checkpoint(at_step), 421_888
        written = self.clock.now_s
        event = CheckpointVerified(at_step, path, "torch_zip", "verified", size, written, pinned)
        return self.saw(event)

    def progressed(self) -> "Story":
        """The first sign of progress."""
        return self.saw(ProgressBegan(self.state.attempt))

    def exits(self, code: int | None = None, signal: int | None = None) -> "Story":
        """The worker is gone."""
        return self.saw(WorkerExited(self.state.attempt, code, signal))

    def ends(self, cause: Cause, reason: str, **given: object) -> "Story":
        """The attempt is concluded; `given` are `action`, `words`, `ran_s` and evidence fields."""
        action = Action(str(given.pop("action", Action.RESUME)))
        words = str(given.pop("words", "restart 1 of 5 without progress"))
        ran_s = float(given.pop("ran_s", 12.0))
        evidence = Evidence(**given)
        ended = AttemptEnded(
            number=self.state.attempt,
            cause=cause,
            reason=reason,
            action=action,
            decision_reason=words,
            delay_s=1.0,
            counted=action is Action.RESUME,
            ran_s=ran_s,
            at_s=self.clock.now_s,
            evidence=evidence,
        )
        return self.saw(ended)


def frozen(name: str, folder: Path, **more: object) -> str:
    """A frozen spec, as far as listings read it."""
    job = {
        "name": name,
        "command": ["python", "train.py", "--epochs", "60", "--out", "out"],
        "folder": str(folder),
        "source": str(folder / "job.yaml"),
        "params": {},
        "values": {},
    }
    return json.dumps({"format": 1, "job": job | more})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """The wall clock of the journal and of the verbs, in UTC."""
    clock = Clock()
    monkeypatch.setattr(journal_module, "time", clock)
    monkeypatch.setattr(times, "now", clock.time)
    with monkeypatch.context() as zone:
        zone.setenv("TZ", "UTC")
        time.tzset()
        yield clock
    time.tzset()


NewJob = Callable[..., Story]


@pytest.fixture
def new_job(state_dir: Path, tmp_path: Path, clock: Clock) -> Iterator[NewJob]:
    """Accepts a job: `new_job(id, name=, folder=, **fields of its frozen spec)`."""
    journals: list[Journal] = []

    def make(job_id: str = "digits-3fa2c1", **more: object) -> Story:
        journal = Journal.open(state_dir)
        journals.append(journal)
        journal._connection.execute("PRAGMA synchronous = OFF")  # no power cut in these tests
        name = str(more.pop("name", "digits"))
        folder = Path(str(more.pop("folder", tmp_path / "work")))
        record = JobRecord(
            id=job_id,
            name=name,
            folder=str(folder),
            spec=str(more.pop("spec", None) or frozen(name, folder, **more)),
            created_s=clock.time(),
            updated_s=clock.time(),
            state=State.QUEUED,
            why="",
            step=None,
            total=None,
            runner_pid=None,
            runner_ticks=None,
            boot_id=None,
        )
        journal.create_job(record)
        return Story(state_dir, journal, clock, job_id, folder)

    yield make
    for one in journals:
        one.close()


@pytest.fixture
def three_faults(new_job: NewJob) -> Story:
    """A crash, a hang, a torn checkpoint; then the job is done."""
    return tell_three_faults(new_job(folder="/data/digits"))


@pytest.fixture
def stopped(new_job: NewJob) -> Story:
    """Stopped by Ctrl-C after ten seconds."""
    return tell_stopped(new_job(folder="/data/digits"))


def tell_three_faults(story: Story) -> Story:
    """Attempt 1 is killed, 2 hangs, 3 meets a torn checkpoint and a full GPU, 4 brings it home."""
    story.at(0).runner().begins(4101).at(2).progressed().at(9).verified(90)
    story.at(14).verified(180).at(18).exits(signal=9)
    story.attempt(1).log.write_bytes(b"step 15/2700 epoch 1/60 loss 1.9\nstep 240/2700 loss 0.4\n")
    story.at(18.1).ends(
        Cause.SIGNAL,
        "killed by SIGKILL, sent from outside (not by supervise)",
        signal=9,
        step=240,
        error_line="step 240/2700 loss 0.4",
        ran_s=18.0,
        checkpoint_step=180,
        progressed=True,
    )
    story.at(19).saw(BackoffElapsed()).begins(4188, (180, 14)).at(21).progressed()
    story.at(25).verified(270).at(40).saw(DeadlinePassed(DeadlineName.HEARTBEAT, 10.0))
    story.at(41).exits(signal=9)
    story.attempt(2).log.write_bytes(
        b"resumed from out/ckpt-000180.pt at step 180\nstep 300/2700\n"
    )
    story.attempt(2).stack.write_text(
        'Thread 4188 (idle): "MainThread"\n    wait (threading.py:320)\n    main (train.py:41)\n'
    )
    story.at(41.2).ends(
        Cause.HANG,
        "no sign of progress for 10 s",
        signal=9,
        deadline=DeadlineName.HEARTBEAT,
        deadline_s=10.0,
        step=300,
        resumed_step=180,
        error_line="step 300/2700",
        ran_s=22.0,
        progressed=True,
    )
    torn = RejectedCheckpoint(
        story.checkpoint(270),
        270,
        "the archive has no central directory: it is cut short",
        str(story.folder / "out/.set-aside/ckpt-000270.pt.set-aside-1"),
    )
    story.at(42.2).saw(BackoffElapsed()).begins(
        4240, (180, 14), candidates=2, rejected=(torn,), restored=True
    )
    story.at(44).progressed().at(50).exits(code=1)
    story.attempt(3).log.write_bytes(b"torch.OutOfMemoryError: CUDA out of memory\n")
    oom = RootError(
        "cuda_oom",
        Cause.CUDA_OOM,
        "torch.OutOfMemoryError: CUDA out of memory",
        "a smaller batch, or a GPU with more free memory",
    )
    story.at(50.1).ends(
        Cause.CUDA_OOM,
        "torch.OutOfMemoryError: CUDA out of memory (exit code 1); a smaller batch, or a GPU with"
        " more free memory",
        exit_code=1,
        root_error=oom,
        error_line=oom.line,
        step=None,
        resumed_step=180,
        ran_s=7.5,
    )
    story.at(51).saw(BackoffElapsed()).begins(4302, (180, 14)).at(53).progressed()
    story.at(80).verified(2700).at(81).exits(code=0)
    story.attempt(4).log.write_bytes(b"step 2700/2700\nTraining finished: test accuracy 98.1 %\n")
    story.journal.show_progress(story.id, 2700, 2700)
    story.at(81.3).ends(
        Cause.COMPLETED,
        "exit code 0, and done: step 2700 of 2700",
        action=Action.FINISH,
        words="nothing more to do",
        exit_code=0,
        done=True,
        done_detail="step 2700 of 2700",
        step=2700,
        resumed_step=180,
        ran_s=29.9,
        progressed=True,
    )
    return story


def tell_stopped(story: Story) -> Story:
    """Ctrl-C after ten seconds."""
    story.at(0).runner().begins(5101).at(2).progressed().at(9).verified(90)
    story.at(10).saw(StopRequested("Ctrl-C")).at(11).exits(code=0)
    return story.at(11.1).ends(
        Cause.STOPPED,
        "stopped on request: exit code 0",
        action=Action.FINISH,
        words="nothing more to do",
        exit_code=0,
        stop_requested=True,
        step=100,
        ran_s=11.0,
    )


Supervise = Callable[..., Result]


@pytest.fixture
def supervise(state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Supervise:
    """Runs a verb in a folder in which no job was started."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    def call(*words: str, columns: int | None = None, **extra: object) -> Result:
        monkeypatch.setattr(text, "columns", lambda: columns)
        return CliRunner().invoke(cli, ["--state-dir", str(state_dir), *words], **extra)

    return call


Golden = Callable[[str, str], None]


@pytest.fixture
def assert_golden(tmp_path: Path) -> Golden:
    """Compares with a file of tests/golden/cli; `UPDATE_GOLDEN=1 pytest` writes it."""

    def compare(name: str, actual: str) -> None:
        path = GOLDEN / f"{name}.txt"
        mine = {str(tmp_path): "/TMP", f"process {os.getpid()}": "process PID"}
        for volatile, fixed in (mine | {f"pid={os.getpid()}": "pid=PID"}).items():
            actual = actual.replace(volatile, fixed)
        if os.environ.get("UPDATE_GOLDEN"):
            path.write_text(actual)
        assert path.read_text() == actual

    return compare
