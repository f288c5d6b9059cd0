"""The views of a running batch job: one line that stays, and plain lines."""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from rich.console import Console

from supervisor.cli.lines_batch import LineBatch
from supervisor.cli.live_batch import LiveBatch
from supervisor.core.causes import Action, Cause, State
from supervisor.core.events import AttemptEnded, AttemptSpawned, CheckpointChosen
from supervisor.core.evidence import Evidence
from supervisor.core.item_events import (
    ItemQuarantined,
    ItemsPlanned,
    ItemsRequeued,
    ItemsSuspected,
    WorkerReplaced,
)
from supervisor.core.state import JobState
from supervisor.runner.listener import Audience, BatchSnapshot

MIB, GIB = 1024**2, 1024**3
RUNNING = JobState(phase=State.RUNNING, attempt=1)
BUSY = BatchSnapshot(
    1, 1000, 512, quarantined=2, workers=2, items_per_s=41.23, eta_s=11.8, gpu_bytes=3 * GIB
)
LEAKY = replace(BUSY, suspects=1, host_leak_bytes=2 * MIB, gpu_leak_bytes=MIB / 2)


def name(number: int) -> str:
    """A photo."""
    return f"{number}.jpg"


@dataclass
class Terminal:
    """A live view and what it has printed."""

    view: LiveBatch
    out: io.StringIO

    def line(self) -> str:
        """The line that stays."""
        return self.view._line().plain


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Terminal]:
    """A view on a terminal of this width, with its attempt running."""
    monkeypatch.setenv("TERM", "xterm")  # on a dumb one nothing is drawn at all

    def make(width: int) -> Terminal:
        out = io.StringIO()
        console = Console(
            file=out, width=width, force_terminal=True, color_system="standard", highlight=False
        )
        view = LiveBatch("heat", name, console)
        view.saw(AttemptSpawned(1, 7, 7), RUNNING)
        return Terminal(view, out)

    return make


FULL = "41.2/s  12 s left  2 quarantined  1 suspect  leak/item 2.0 MiB + 512.0 KiB GPU  GPU 3.0 GiB"


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (28, "heat  512/1000  12 s left"),
        (40, "heat  512/1000  41.2/s  2 quarantined"),
        (60, "heat  512/1000  41.2/s  12 s left  2 quarantined"),
        (80, f"heat  {14 * '━'}  512/1000  41.2/s  12 s left  2 quarantined  GPU 3.0 GiB"),
        (120, f"heat  {8 * '━'}  512/1000  {FULL}"),
        (150, f"heat  {13 * '━'}╸{13 * '━'}  512/1000  {FULL}  2 workers"),
    ],
)
def test_what_matters_most_stays_on_a_narrow_line(
    terminal: Callable[[int], Terminal], width: int, line: str
) -> None:
    """Items and poison come first, then time and speed; the bar comes before the details."""
    seen = terminal(width)
    seen.view.batch_progressed(LEAKY)

    assert seen.line() == line


def test_the_bar_is_the_part_that_is_done(terminal: Callable[[int], Terminal]) -> None:
    """Half of the items, half of the bar."""
    seen = terminal(100)
    seen.view.batch_progressed(BatchSnapshot(1, 1000, 500))

    bar = seen.view._bar(seen.view._fraction or 0.0, 20)

    assert [len(bar.plain[span.start : span.end]) for span in bar.spans] == [10, 10]
    assert seen.view._fraction == 0.5


def test_poison_is_red_and_no_poison_is_not_there(terminal: Callable[[int], Terminal]) -> None:
    """A glance tells."""
    seen = terminal(100)
    seen.view.batch_progressed(replace(BUSY, quarantined=0))
    assert "quarantined" not in seen.line()
    seen.view.batch_progressed(BUSY)
    (style,) = [style for _, _, text, style in seen.view._cells() if "quarantined" in text]
    assert style == "bold red"


def test_a_second_start_begins_where_it_was(terminal: Callable[[int], Terminal]) -> None:
    """What an earlier run did counts before the first item of this one is done."""
    seen = terminal(100)
    seen.view.saw(ItemsPlanned(100, 10, 0, 0, 15, 5), replace(RUNNING, phase=State.QUEUED))

    assert "80/100" in seen.line()
    assert "5 quarantined" in seen.line()


def test_a_slow_job_is_counted_by_the_minute(terminal: Callable[[int], Terminal]) -> None:
    """An image that takes twenty seconds is no `0.1/s`."""
    seen = terminal(100)
    seen.view.batch_progressed(replace(BUSY, items_per_s=0.05))

    assert "3.0/min" in seen.line()


def test_a_job_that_holds_shows_no_speed(terminal: Callable[[int], Terminal]) -> None:
    """Rate, time left, bar and memory are of one that runs."""
    seen = terminal(120)
    seen.view.batch_progressed(BUSY)
    held = replace(RUNNING, phase=State.HOLDING, why="2 of 1000 items are quarantined")
    seen.view.saw(ended(Action.HOLD), held)

    line = seen.line()
    assert line.startswith("heat  512/1000  2 quarantined  attempt 1 · holding since")
    assert "2 of 1000 items are quarantined" in line
    assert not [word for word in ("41.2", "left", "GPU", "━", "worker") if word in line]


def ended(action: Action) -> AttemptEnded:
    """The attempt is over."""
    return AttemptEnded(
        number=1,
        cause=Cause.POISON_ITEM,
        reason="2 of 1000 items are quarantined",
        action=action,
        decision_reason="a person is needed",
        delay_s=0.0,
        counted=False,
        ran_s=24.0,
        at_s=0.0,
        evidence=Evidence(),
    )


EVENTS = {
    ItemsPlanned(10, 10, 0, 0, 10): "10 items, 10 to do",
    ItemsPlanned(1, 1, 0, 0, 1): "1 item, 1 to do",
    ItemsPlanned(12, 2, 1, 3, 2, 4): (
        "12 items, 2 of them new, 1 no longer there, 3 named more than once, 4 quarantined, 2 to do"
    ),
    ItemsPlanned(12, 0, 0, 0, 0): "12 items, nothing is left to do",
    ItemsSuspected(1, 3, (4,), Cause.SIGNAL, "killed by SIGSEGV"): (
        "4.jpg failed: signal, killed by SIGSEGV; it is tried once more, alone"
    ),
    ItemsSuspected(1, 3, (4, 5, 6, 7), Cause.HANG, "silent for 9 s"): (
        "one of 4 items failed (4.jpg, 5.jpg, 6.jpg and 1 more): hang, silent for 9 s; "
        "they are tried apart"
    ),
    ItemQuarantined(1, 3, 4, Cause.SIGNAL, "killed by SIGSEGV", "a\nb"): (
        "quarantined 4.jpg: signal, killed by SIGSEGV"
    ),
    ItemsRequeued((4, 5), "retry"): "to be tried again: 4.jpg, 5.jpg",
    WorkerReplaced(1, 3, Cause.COMPLETED, "it is old", 8, 2.0, 16 * MIB, 8 * MIB): (
        "worker 3 replaced after 8 items in 2.0 s: it is old; "
        "it leaked 2.0 MiB of memory and 1.0 MiB of GPU memory an item"
    ),
    WorkerReplaced(1, 3, Cause.SIGNAL, "killed", 1, 2.0): (
        "worker 3 ended after 1 item in 2.0 s: signal, killed"
    ),
    AttemptSpawned(2, 7, 7): "attempt 2 is running",
}


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_each_event_has_its_sentence(event, capsys, terminal):
    """The same words on a terminal and in a pipe, with items called by their names."""
    LineBatch("heat", name).saw(event, RUNNING)
    assert capsys.readouterr().out.split(" ", 1)[1] == f"heat: {EVENTS[event]}\n"

    seen = terminal(400)
    seen.view.saw(event, RUNNING)
    assert EVENTS[event] in seen.view._sentence(event, RUNNING)
    assert EVENTS[event].split()[0] in seen.out.getvalue()


@pytest.mark.parametrize(
    "event",
    [WorkerReplaced(1, 3, Cause.COMPLETED, "a fresh one", 2, 0.1), CheckpointChosen(None, None)],
)
def test_what_happens_all_the_time_is_no_news(event, capsys):
    """A fresh worker for each chunk is not told, nor that nothing is resumed."""
    LineBatch("heat", name).saw(event, RUNNING)

    assert capsys.readouterr().out == ""


def test_other_events_are_told_as_ever(capsys):
    """What all jobs have in common has the same words."""
    LineBatch("heat", name).saw(ended(Action.HOLD), replace(RUNNING, phase=State.HOLDING))

    assert "decision: hold (a person is needed); the job is held" in capsys.readouterr().out


def test_plain_progress_is_no_flood(capsys):
    """A line for each tenth part; between them one in ten seconds."""
    view = LineBatch("heat", name)
    for done in range(0, 1001, 5):
        view.batch_progressed(BatchSnapshot(1, 1000, done))

    said = [line.split("heat: ")[1] for line in capsys.readouterr().out.splitlines()]
    assert said == [f"{done}/1000 items done" for done in range(0, 1001, 100)]


def test_plain_progress_comes_every_ten_seconds(capsys, monkeypatch):
    """A job of a million items says that it lives."""
    now = [100.0]
    monkeypatch.setattr("supervisor.cli.lines_batch.time.monotonic", lambda: now[0])
    view = LineBatch("heat", name)
    for done in range(40):
        view.batch_progressed(BatchSnapshot(1, 10**6, done))
        now[0] += 1.0

    said = [line.split("heat: ")[1] for line in capsys.readouterr().out.splitlines()]
    assert said == [f"{done}/1000000 items done" for done in (0, 10, 20, 30)]


def test_plain_progress_tells_all_that_is_known(capsys):
    """Nothing has to give way where there is no edge of a terminal."""
    LineBatch("heat", name).batch_progressed(LEAKY)

    assert capsys.readouterr().out.split("heat: ")[1] == (
        "512/1000 items done, 41.2 items/s, 12 s left, 2 quarantined, 1 suspect, 2 workers, "
        "leak/item 2.0 MiB + 512.0 KiB GPU, GPU 3.0 GiB\n"
    )


def test_a_job_without_items_has_no_progress(capsys):
    """Before the source was read nothing is divided by nought."""
    LineBatch("heat", name).batch_progressed(BatchSnapshot(1, 0, 0))

    assert capsys.readouterr().out.endswith("heat: 0/0 items done\n")


def test_all_listeners_are_told_of_items_though_one_is_gone():
    """A terminal that broke away keeps the others from nothing."""

    class Gone:
        def batch_progressed(self, _snapshot):
            raise OSError

    told = []

    class Ear:
        def batch_progressed(self, snapshot):
            told.append(snapshot)

    Audience(Gone(), Ear()).batch_progressed(BUSY)
    assert told == [BUSY]
