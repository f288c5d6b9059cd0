"""Counting in pieces: what metrics add up is what reports say of each job."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.core.causes import Action, Cause, State
from supervisor.core.events import (
    AttemptEnded,
    AttemptSpawned,
    CheckpointChosen,
    CheckpointVerified,
    Event,
    ProgressBegan,
    RunnerStarted,
    WorkerExited,
)
from supervisor.core.evidence import Evidence
from supervisor.core.state import JobState
from supervisor.host import identity
from supervisor.journal import JobRecord, Journal
from supervisor.journal import journal as journal_module
from supervisor.views.losses import NO_FAULT, losses
from supervisor.views.losses import totals as totals_of_job
from supervisor.views.totals import totals

BEGAN_S = 1_000_000.0
CAUSES = (Cause.SIGNAL, Cause.HANG, Cause.CUDA_OOM, Cause.STOPPED)


class Clock:
    """Stands in for `time` where the journal reads the wall clock."""

    def __init__(self) -> None:
        self.now_s = BEGAN_S

    def time(self) -> float:
        """The instant of the story."""
        return self.now_s

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)  # the monotonic clock goes on as it does


@dataclass(frozen=True)
class Life:
    """One attempt: how long it waits, starts up and works; without `startup_s` it shows nothing."""

    cause: Cause
    wait_s: int
    startup_s: int | None
    work_s: int
    resumed_at_s: int | None  # so long before its choice was its checkpoint written
    spawned: bool = True


LIVES = st.lists(
    st.builds(
        Life,
        cause=st.sampled_from(CAUSES),
        wait_s=st.integers(0, 100),
        startup_s=st.none() | st.integers(0, 20),
        work_s=st.integers(0, 500),
        resumed_at_s=st.none() | st.integers(0, 400),
        spawned=st.booleans(),
    ),
    max_size=6,
)


class Scribe:
    """Writes lives of jobs into a journal."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.journal = Journal.open(folder)
        self.journal._connection.execute("PRAGMA synchronous = OFF")  # no power cut here
        self.clock = clock
        self.attempts: Counter[str] = Counter()

    def job(self, job_id: str, *, state: State = State.QUEUED) -> None:
        """Accept a job."""
        record = JobRecord(
            job_id, "digits", "/data", "{}", BEGAN_S, BEGAN_S, state, *("", None, None), *[None] * 3
        )
        self.journal.create_job(record)

    def say(self, job_id: str, event: Event, after_s: float = 0.0, **state: Any) -> None:
        """Store an event; the job runs unless `phase` says otherwise."""
        self.clock.now_s += after_s
        now = JobState(attempt=self.attempts[job_id], phase=State.RUNNING)
        self.journal.append(job_id, event, replace(now, **state))

    def live(self, job_id: str, life: Life, *, ends: bool = True) -> None:
        """One attempt from its choice to its end."""
        self.attempts[job_id] += 1
        number = self.attempts[job_id]
        step, written = None, None
        if life.resumed_at_s is not None:
            step, written = 10, self.clock.now_s + life.wait_s - life.resumed_at_s
        chosen = CheckpointChosen("a.pt" if step else None, step, written_at_s=written)
        self.say(job_id, chosen, life.wait_s)
        if life.spawned:
            self.say(job_id, AttemptSpawned(number, 77, 1))
            if life.startup_s is not None:
                self.say(job_id, ProgressBegan(number), life.startup_s)
        if ends:
            self.say(job_id, WorkerExited(number, 1, None), life.work_s)
            ended = AttemptEnded(
                *(number, life.cause, "as told", Action.RESUME, "again", 0.0, True),
                *(float(life.work_s), self.clock.now_s, Evidence(step=20)),
            )
            self.say(job_id, ended, 0.1)


@pytest.fixture(name="clock")
def _clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(journal_module, "time", clock)
    return clock


@pytest.fixture(name="scribe")
def _scribe(tmp_path: Path, clock: Clock) -> Iterator[Scribe]:
    scribe = Scribe(tmp_path / "state", clock)
    yield scribe
    scribe.journal.close()


def in_pieces(journal: Journal, size: int) -> dict[str, Any]:
    """All that is to be counted, `size` events at a time."""
    at, restarts, wall = 0, 0, 0.0
    attempts, lost = Counter[str](), dict[str, float]()
    while True:
        found = totals(journal, at, size)
        at = found["seq"]
        attempts.update(found["attempts"])
        for cause, cost in found["lost_s"].items():
            lost[cause] = lost.get(cause, 0.0) + cost
        restarts += found["restarts"]
        wall += found["wall_s"]
        if at == found["newest"]:
            return {"attempts": attempts, "lost_s": lost, "restarts": restarts, "wall_s": wall}


@settings(deadline=None, max_examples=60)
@given(stories=st.lists(LIVES, max_size=3), size=st.integers(1, 30))
def test_pieces_add_up_to_the_reports(
    stories: Sequence[Sequence[Life]], size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever the attempts and the pieces: causes, losses and wall time are those of `report`."""
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal_module, "time", clock)
        scribe = Scribe(tmp_path_factory.mktemp("state"), clock)
        for number, lives in enumerate(stories):
            scribe.job(f"j-{number}")
            for life in lives:
                scribe.live(f"j-{number}", life)
    counted = in_pieces(scribe.journal, size)

    causes, wall, restarts = Counter[str](), 0.0, 0
    lost: dict[str, float] = {}
    for number in range(len(stories)):
        attempts = scribe.journal.attempts(f"j-{number}")
        causes.update(str(one.cause) for one in attempts)
        wall += totals_of_job(attempts, 0.0).wall_s
        for row, after in zip(losses(attempts), attempts[1:], strict=False):
            cost = lost.get(str(row.cause), 0.0) + (row.seconds_lost or 0.0)
            lost[str(row.cause)] = cost
            restarts += row.cause not in NO_FAULT and after.spawned_s is not None
    scribe.journal.close()
    assert counted["attempts"] == causes
    assert counted["lost_s"] == pytest.approx(lost)
    assert counted["wall_s"] == pytest.approx(wall)
    assert counted["restarts"] == restarts


def test_a_loss_counts_when_it_is_over(scribe: Scribe) -> None:
    """Not while the next attempt is still starting, and only once."""
    scribe.job("j")
    scribe.live("j", Life(Cause.HANG, 0, 5, 100, None))
    scribe.live("j", Life(Cause.HANG, 10, None, 0, None), ends=False)
    before = totals(scribe.journal, 0)
    scribe.say("j", ProgressBegan(2), 7)
    after = totals(scribe.journal, before["seq"])

    assert before["lost_s"] == {}
    assert before["restarts"] == 1
    assert after["lost_s"] == pytest.approx({"hang": 5 + 100 + 0.1 + 10 + 7})
    assert totals(scribe.journal, after["seq"])["lost_s"] == {}


def test_from_now_on(scribe: Scribe) -> None:
    """Who asks without a number is told where to begin, and is told nothing of the past."""
    scribe.job("j")
    scribe.live("j", Life(Cause.HANG, 0, 5, 100, None))
    began = totals(scribe.journal, None)
    scribe.live("j", Life(Cause.SIGNAL, 0, 5, 100, None))

    assert began["attempts"] == {}
    assert began["seq"] == began["newest"] > 0
    assert totals(scribe.journal, began["seq"])["attempts"] == {"signal": 1}


@pytest.mark.parametrize("strange", [-1, 1_000_000])
def test_a_number_of_another_journal(scribe: Scribe, strange: int) -> None:
    """It is counted from the beginning, and said so."""
    scribe.job("j")
    scribe.live("j", Life(Cause.HANG, 0, 5, 100, None))
    found = totals(scribe.journal, strange)

    assert found["from"] == 0
    assert found["attempts"] == {"hang": 1}


def test_states_and_running_jobs(scribe: Scribe) -> None:
    """Jobs by state; of those that run the step, the attempt and the newest checkpoint."""
    scribe.job("waits")
    scribe.job("runs")
    ticks = identity.start_ticks(1) or 0
    scribe.say("runs", RunnerStarted(1, ticks, identity.boot_id()))
    scribe.live("runs", Life(Cause.HANG, 0, 5, 100, None))
    scribe.live("runs", Life(Cause.HANG, 10, 5, 100, None), ends=False)
    written = BEGAN_S + 50
    scribe.say(
        "runs", CheckpointVerified(40, "a.pt", "torch_zip", "verified", 9, written, pinned=True)
    )
    scribe.journal.show_progress("runs", 44, 100)
    found = totals(scribe.journal, 0)

    assert found["states"] == {"queued": 1, "running": 1}
    (job,) = found["running"]
    assert (job["id"], job["step"], job["attempt"]) == ("runs", 44, 2)
    assert job["checkpoint_s"] == written
    assert job["wall_s"] > 0


def test_a_batch_job_keeps_its_work(scribe: Scribe) -> None:
    """Finished items are never lost: what a fault costs is the time between attempts."""
    scribe.job("b")
    for _ in scribe.journal.ledger("b").plan(['"a"']):
        pass
    scribe.live("b", Life(Cause.SIGNAL, 0, 5, 100, None))
    scribe.live("b", Life(Cause.SIGNAL, 10, 7, 100, None))

    assert totals(scribe.journal, 0)["lost_s"] == pytest.approx({"signal": 10 + 0.1 + 7})


def test_a_damaged_event_is_passed_by(scribe: Scribe) -> None:
    """One body that is no JSON does not hide the others."""
    scribe.job("j")
    scribe.live("j", Life(Cause.HANG, 0, 5, 100, None))
    scribe.journal._connection.execute("UPDATE events SET body = '{' WHERE kind = 'AttemptSpawned'")

    assert totals(scribe.journal, 0)["attempts"] == {"hang": 1}


def test_an_empty_journal(scribe: Scribe) -> None:
    """Nothing is nothing."""
    found = totals(scribe.journal, 0)

    assert found["newest"] == 0
    assert found["states"] == {}
    assert found["running"] == []
