"""Small parts of the daemon: what SIGTERM means, what is removed, who is told what."""

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.causes import State
from supervisor.daemon import hosting, retention
from supervisor.daemon.contracts import Shelf, ShelfUnavailable
from supervisor.daemon.hosting import Hosting, Leaving
from supervisor.daemon.lag import EVERY_S, LoopLag
from supervisor.daemon.retention import Keep, Retention
from supervisor.daemon.roster import Roster
from supervisor.daemon.runners import Runners
from supervisor.queue.model import Entry, Needs, Phase
from supervisor.queue.store import Queue, Submitted


def entry(number: int, **more: Any) -> Entry:
    """A job of user 7."""
    base = Entry(
        id=f"job-{number}",
        seq=number,
        uid=7,
        name="job",
        folder="/jobs",
        needs=Needs(),
        submitted_s=1.0,
        queued_s=1.0,
    )
    return replace(base, **more)


@pytest.fixture
def roster(tmp_path: Path) -> Roster:
    """An empty queue."""
    return Roster(Queue.open(tmp_path))


def added(roster: Roster, *entries: Entry) -> None:
    """Put entries into the queue as they are."""
    roster.add([Submitted(one, "{}", "{}") for one in entries])


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in that says what stands in a file beside it."""
    program = tmp_path / "systemctl"
    program.write_text(f'#!/bin/sh\n[ "$1" = --user ] && shift\ncat "{tmp_path}/$1"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("INVOCATION_ID", "x")
    monkeypatch.setattr(hosting, "SYSTEMD", tmp_path)
    (tmp_path / "is-system-running").write_text("running\n")
    (tmp_path / "list-jobs").write_text("")
    return tmp_path


@pytest.mark.parametrize("user", [False, True])
@pytest.mark.parametrize(
    ("jobs", "running", "expected"),
    [
        ("", "running", Leaving.GO_ON),
        ("9 supervise.service restart running\n", "running", Leaving.GO_ON),
        ("9 supervise.service stop running\n", "degraded", Leaving.STOP),
        ("9 other.service stop running\n", "running", Leaving.GO_ON),
        ("9 supervise.service restart running\n", "stopping", Leaving.STOP),
        ("", "stopping", Leaving.STOP),
    ],
)
def test_what_sigterm_means_to_the_jobs(
    systemctl: Path, jobs: str, running: str, expected: Leaving, *, user: bool
) -> None:
    """A restart leaves them alone; a stop and the end of the host stop them."""
    (systemctl / "list-jobs").write_text(jobs)
    (systemctl / "is-system-running").write_text(running + "\n")
    assert asyncio.run(Hosting(user=user).leaving()) is expected


def test_without_systemd_the_jobs_go_on(systemctl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon in a terminal was not started by systemd, whatever runs there."""
    (systemctl / "list-jobs").write_text("9 supervise.service stop running\n")
    monkeypatch.delenv("INVOCATION_ID")
    assert asyncio.run(Hosting(user=True).leaving()) is Leaving.GO_ON


@pytest.mark.parametrize(("said", "expected"), [("running", False), ("stopping", True)])
def test_whether_the_host_goes_down(systemctl: Path, said: str, *, expected: bool) -> None:
    """Is systemd's to say."""
    (systemctl / "is-system-running").write_text(said + "\n")
    assert asyncio.run(Hosting(user=False).going_down()) is expected


def test_a_silent_systemd_is_asked_again(systemctl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be too busy for a moment."""
    monkeypatch.setattr(hosting, "ASK_AGAIN_S", 0.0)
    asked = systemctl / "asked"
    silent = f'#!/bin/sh\necho >>"{asked}"\n[ $(wc -l <"{asked}") -lt 3 ] || echo running\n'
    (systemctl / "systemctl").write_text(silent)
    assert not asyncio.run(Hosting(user=False).going_down())
    assert len(asked.read_text()) == 3


@pytest.mark.parametrize("is_unit", [False, True])
def test_a_service_takes_silence_for_the_end_of_the_host(
    systemctl: Path, monkeypatch: pytest.MonkeyPatch, *, is_unit: bool
) -> None:
    """Its jobs are to go on after the reboot; a daemon in a terminal is none of systemd's."""
    monkeypatch.setattr(hosting, "ASK_AGAIN_S", 0.0)
    (systemctl / "is-system-running").write_text("")
    if not is_unit:
        monkeypatch.delenv("INVOCATION_ID")
    assert asyncio.run(Hosting(user=False).going_down()) is is_unit


def test_a_systemctl_that_does_not_answer_leaves_the_jobs_alone(
    systemctl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it hold up the end of the daemon."""
    (systemctl / "systemctl").write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(hosting, "ANSWER_S", 0.2)
    assert asyncio.run(Hosting(user=False).leaving()) is Leaving.GO_ON


class FakeShelf:
    """Says which jobs are old, and notes which are removed."""

    path = Path("/shelf")

    def __init__(self, old: Sequence[str]) -> None:
        self.old = old
        self.removed: list[str] = []
        self.asked: dict[str, Any] = {}

    async def ask(self, question: str, arguments: Mapping[str, Any]) -> Any:
        """Answer."""
        if question == "old":
            self.asked = dict(arguments)
            return {"ids": list(self.old)}
        if arguments["id"] == "stubborn":
            raise ShelfUnavailable("no")
        self.removed.append(arguments["id"])
        return {}

    async def close(self) -> None:
        """Nothing."""


class OneShelf:
    """Every user's."""

    def __init__(self, shelf: FakeShelf) -> None:
        self._shelf = shelf

    def of(self, uid: int) -> Shelf:
        """The one."""
        assert uid == 7
        return self._shelf

    def known(self) -> Sequence[int]:
        """Its user."""
        return [7]

    async def close(self) -> None:
        """Nothing."""


def tidied(roster: Roster, shelf: FakeShelf, keep: Keep) -> None:
    """One round of retention."""

    async def once() -> None:
        task = asyncio.create_task(Retention(roster, OneShelf(shelf), keep).run())
        for _ in range(50):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(once())


def test_only_ended_jobs_that_nobody_waits_for_are_removed(roster: Roster) -> None:
    """Whatever the shelf thinks is old; jobs of `run` are in no queue."""
    ended = {"phase": Phase.ENDED, "state": State.SUCCEEDED}
    waits = entry(4, after=("job-3",))
    added(roster, entry(1, **ended), entry(2, phase=Phase.STARTED), entry(3, **ended), waits)
    shelf = FakeShelf(["job-1", "job-2", "job-3", "job-4", "of-run"])
    tidied(roster, shelf, Keep(age_s=60.0))
    assert shelf.removed == ["job-1", "of-run"]
    assert [one.id for one in roster.all()] == ["job-2", "job-3", "job-4"]
    assert shelf.asked == {"older_than_s": 60.0, "keep_bytes": None}


def test_a_job_that_cannot_be_removed_stays_in_the_queue(roster: Roster) -> None:
    """And is tried again the next time."""
    added(roster, entry(1, id="stubborn", phase=Phase.ENDED))
    shelf = FakeShelf(["stubborn"])
    tidied(roster, shelf, Keep(size_bytes=0))
    assert roster.get("stubborn") is not None


def test_nothing_is_removed_unless_told_so(roster: Roster) -> None:
    """Not even asked for."""
    shelf = FakeShelf(["job-1"])
    tidied(roster, shelf, retention.FOR_EVER)
    assert (shelf.removed, shelf.asked) == ([], {})


def test_the_mirror_is_what_the_file_says(tmp_path: Path) -> None:
    """After any change, another daemon reads the same."""
    first = Roster(Queue.open(tmp_path))
    added(first, entry(1, claims=("/out",), key="k"), entry(2), entry(3))
    first.change(replace(entry(2), phase=Phase.STARTED), "Placed")
    first.forget(["job-3"])
    second = Roster(Queue.open(tmp_path))
    for roster in (first, second):
        assert [one.id for one in roster.of(Phase.WAITING)] == ["job-1"]
        assert [one.id for one in roster.of(Phase.STARTED)] == ["job-2"]
        assert [one.id for one in roster.claiming(7, "/out")] == ["job-1"]
        assert roster.with_key(7, "k") == first.get("job-1")
        assert roster.with_key(8, "k") is None
        assert roster.get("job-3") is None


def test_a_listener_misses_nothing(roster: Roster) -> None:
    """What happened while it was not looking comes with the next."""

    async def heard() -> list[str]:
        seen: list[str] = []
        stream = roster.happenings(0)
        added(roster, entry(1))
        seen.append((await anext(stream)).kind)
        roster.change(replace(entry(1), phase=Phase.STARTED), "Placed")
        roster.change(replace(entry(1), phase=Phase.ENDED), "Ended")
        seen += [(await anext(stream)).kind, (await anext(stream)).kind]
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        assert not waiting.done()
        added(roster, entry(2))
        seen.append((await waiting).kind)
        await stream.aclose()
        return seen

    assert asyncio.run(heard()) == ["Submitted", "Placed", "Ended", "Submitted"]


def test_the_end_of_a_runner_is_told_once() -> None:
    """Of one that we started, of one that is gone already; our child is reaped."""

    async def watched() -> tuple[list[str], int]:
        told: list[str] = []
        ended = asyncio.Event()

        def gone(job: str, _lived_s: float) -> None:
            told.append(job)
            if len(told) == 2:
                ended.set()

        runners = Runners(gone)
        pid = os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {})  # noqa: ASYNC221 - at once
        runners.watch("ours", pid)
        assert runners.pid("ours") == pid
        runners.watch("never", 2**22 - 1)
        async with asyncio.timeout(30):
            await ended.wait()
        assert len(runners) == 0
        return sorted(told), pid

    told, pid = asyncio.run(watched())
    assert told == ["never", "ours"]
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_a_loop_that_stands_still_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lateness is that of the timer."""
    now = 100.0

    async def looked() -> LoopLag:
        loop = asyncio.get_running_loop()
        lag = LoopLag()
        monkeypatch.setattr(loop, "time", lambda: now)
        lag.start()
        lag.stop()
        monkeypatch.setattr(loop, "time", lambda: now + EVERY_S + 0.75)
        lag._look()
        lag.stop()
        monkeypatch.undo()
        return lag

    lag = asyncio.run(looked())
    assert lag.last_s == pytest.approx(0.75)
    assert lag.worst_s == pytest.approx(0.75)
