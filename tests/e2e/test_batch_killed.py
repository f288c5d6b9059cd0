"""The runner of a batch job is killed, and the same command is given again: promises 1, 5 and 6."""

import os
import random
import signal
import subprocess
import sys
from typing import Any

import pytest

from tests.e2e.batch_jobs import kill_runner

# `supervise`, which kills itself at the Nth passing of a place in its own code.
FATAL = """
import os, signal, sys
from supervisor.batch.results import Results
from supervisor.journal.items import Ledger
from supervisor.journal.journal import Journal
place, when, *rest = sys.argv[1:]
sys.argv[1:] = rest
passed = 0
def fatal(owner, name, *, after):
    inner = getattr(owner, name)
    def passing(self, *args):
        global passed
        passed += 1
        if passed == int(when) and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = inner(self, *args)
        if passed == int(when) and after:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer
    setattr(owner, name, passing)
def torn(self, content):
    global passed
    passed += 1
    if passed == int(when):
        os.pwrite(self._file, content[: len(content) // 2 + 1], self._length)
        os.kill(os.getpid(), signal.SIGKILL)
    whole(self, content)
whole = Results._write
if place == "torn write":
    Results._write = torn
else:
    owner, name, after = {
        "before the write": (Results, "sync", False),
        "written, not settled": (Ledger, "settle", False),
        "settled": (Ledger, "settle", True),
        "before an event": (Journal, "append", False),
        "after an event": (Journal, "append", True),
    }[place]
    fatal(owner, name, after=after)
from supervisor.cli.main import main
main()
"""


def whole_after(batch: Any, items: int, without: tuple[str, ...] = ()) -> None:
    """Give the command once more and find every item once."""
    code, output = batch.run()
    assert code == (3 if without else 0), output
    batch.is_whole(items, without)
    assert batch.processes() == []
    shown = batch.show()["items"]
    assert (shown["done"], shown["left"]) == (items - len(without), 0)


@pytest.mark.parametrize(
    ("place", "whens"),
    [
        ("before the write", [1, 3]),
        ("torn write", [1, 2, 3]),
        ("written, not settled", [1, 2, 4]),
        ("settled", [1, 3]),
    ],
)
def test_killed_around_an_acknowledgement(
    batch: Any, monkeypatch: pytest.MonkeyPatch, place: str, whens: list[int]
) -> None:
    """Killed between results and ledger: what is acknowledged stays, all else is done again."""
    script = batch.folder.parent / "fatal.py"
    script.write_text(FATAL)
    batch.items(range(1, 25))
    batch.write("slow", chunks={"size": 2, "parallel": 2})
    plain = batch.job.command()
    for when in whens:
        argv = [sys.executable, str(script), place, str(when), *plain[1:]]
        with monkeypatch.context() as patch:
            patch.setattr(batch.job, "command", lambda argv=argv: argv)
            run = batch.start()
            output, _ = run.communicate(timeout=30)
        assert run.returncode == -signal.SIGKILL, output
    whole_after(batch, 24)
    assert not list(batch.out.glob("results.before-*")), "its own lines were taken for another's"


@pytest.mark.parametrize("place", ["before an event", "after an event"])
def test_killed_around_every_event_of_a_job_with_poison(
    batch: Any, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Killed at one commit after the other: nine results, one quarantined, none twice."""
    script = batch.folder.parent / "fatal.py"
    script.write_text(FATAL)
    batch.write("leaves", chunks={"size": 4})
    plain = batch.job.command()
    for when in (3, 4, 5, 7):
        argv = [sys.executable, str(script), place, str(when), *plain[1:]]
        with monkeypatch.context() as patch:
            patch.setattr(batch.job, "command", lambda argv=argv: argv)
            run = batch.start()
            output, _ = run.communicate(timeout=30)
        assert "Traceback" not in output, output
    whole_after(batch, 10, ("3",))
    assert batch.quarantined() == {"3": "incomplete"}


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random_moments(batch: Any, seed: int) -> None:
    """Runner and workers killed at random: every item exactly one line, none lost."""
    items, draw = 60, random.Random(seed)
    batch.items(range(1, items + 1))
    batch.write("slow", chunks={"size": 4, "parallel": 2})
    for _ in range(6):
        run = batch.start()
        try:
            run.wait(draw.uniform(0.3, draw.choice((0.7, 1.2))))
        except subprocess.TimeoutExpired:
            workers = batch.noted("called.txt")
            if workers and draw.random() < 0.5:
                _kill(workers[-1])
                _wait(run, draw.uniform(0.0, 0.3))
            kill_runner(run)
    whole_after(batch, items)


def test_the_workers_of_a_killed_runner_die_with_it(batch: Any, eventually: Any) -> None:
    """Also those in the midst of an item, and what waits to be the next worker."""
    batch.write("slow", chunks={"size": 1, "parallel": 3}, map={"entry": "fns:hang"})
    batch.add("def hang(item):\n    note('called.txt', f'{item} {os.getpid()}')\n    NEVER.wait()")
    run = batch.start()
    eventually(lambda: len(batch.noted("called.txt")) == 3, 20)
    kill_runner(run)
    eventually(lambda: not batch.processes(), 15)


def test_a_killed_worker_costs_its_item_one_more_call(batch: Any, eventually: Any) -> None:
    """SIGKILL from outside is no poison: every item is done, none is quarantined."""
    batch.items(range(1, 41))
    batch.write("slow")
    run = batch.start()
    eventually(lambda: len(batch.noted("called.txt")) > 4, 20)
    _kill(batch.noted("called.txt")[-1])
    output, _ = run.communicate(timeout=30)
    assert run.returncode == 0, output
    batch.is_whole(40)
    assert sum(batch.calls().values()) <= 41
    (replaced,) = batch.events("WorkerReplaced")
    assert replaced["cause"] == "signal"


def _kill(pid: int) -> None:
    """A worker of ours, if it still lives."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _wait(run: subprocess.Popen[str], timeout_s: float) -> None:
    try:
        run.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return
