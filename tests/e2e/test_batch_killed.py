"""The runner of a batch job is killed, and the same command is given again: promises 1, 5 and 6."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.batch_jobs import kill_runner

RANDOM_ITEMS = 60

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


def side_by_side(killed: Any, batch: Any, given: Iterable[Any]) -> list[int]:
    """Do this to a twin of the job for each thing given, to two at a time; how many results."""
    twins = [(batch.twin(f"twin-{number}"), one) for number, one in enumerate(given)]
    with ThreadPoolExecutor(2) as two:
        list(two.map(lambda pair: killed(*pair), twins))
    return [len(twin.lines()) for twin, _ in twins]


def run_fatally(batch: Any, place: str, when: int) -> tuple[int, str]:
    """Run it until it kills itself there: exit code, and all that it printed."""
    script = Path(batch.folder) / "fatal.py"
    script.write_text(FATAL)
    argv = [sys.executable, str(script), place, str(when), *batch.job.command()[1:]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch.job, "command", lambda: argv)
        run = batch.start()
    output, _ = run.communicate(timeout=60)
    return run.returncode, output


ACKNOWLEDGING = [
    ("before the write", [1, 3]),
    ("torn write", [1, 2, 3]),
    ("written, not settled", [1, 2, 4]),
    ("settled", [1, 3]),
]


def test_killed_around_an_acknowledgement(batch: Any) -> None:
    """Killed between results and ledger: what is acknowledged stays, all else is done again."""
    batch.items(range(1, 25))
    batch.write("slow", chunks={"size": 2, "parallel": 2})
    assert side_by_side(killed_around_an_acknowledgement, batch, ACKNOWLEDGING) == [24] * 4


def killed_around_an_acknowledgement(batch: Any, place_whens: tuple[str, list[int]]) -> None:
    """Each time at another passing of one place."""
    place, whens = place_whens
    for when in whens:
        code, output = run_fatally(batch, place, when)
        assert code == -signal.SIGKILL, f"{place}, {when}: {output}"
    whole_after(batch, 24)
    assert not list(batch.out.glob("results.before-*")), f"{place}: taken for another's results"


def test_killed_around_every_event_of_a_job_with_poison(batch: Any) -> None:
    """Killed at one commit after the other: nine results, one quarantined, none twice."""
    batch.write("leaves", chunks={"size": 4})
    assert side_by_side(killed_around_events, batch, ["before an event", "after an event"]) == [
        9,
        9,
    ]


def killed_around_events(batch: Any, place: str) -> None:
    """At some of its commits, until it is as good as done."""
    for when in (3, 4, 5, 7):
        _, output = run_fatally(batch, place, when)
        assert "Traceback" not in output, f"{place}, {when}: {output}"
    whole_after(batch, 10, ("3",))
    assert batch.quarantined() == {"3": "incomplete"}


def test_killed_at_random_moments(batch: Any) -> None:
    """Runner and workers killed at random: every item exactly one line, none lost."""
    batch.items(range(1, RANDOM_ITEMS + 1))
    batch.write("slow", chunks={"size": 4, "parallel": 2})
    assert side_by_side(killed_at_random_moments, batch, [1, 2]) == [RANDOM_ITEMS] * 2


def killed_at_random_moments(batch: Any, seed: int) -> None:
    """Six times, the moments drawn from the seed."""
    draw = random.Random(seed)
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
    whole_after(batch, RANDOM_ITEMS)


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
