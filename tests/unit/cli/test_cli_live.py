"""What a run looks like: one line on a terminal, plain lines elsewhere."""

import io
import re

import pytest
from rich.console import Console

from supervisor.cli import live
from supervisor.cli.lines import LineView, gpu_words, progress_words
from supervisor.cli.live import ECHO_WIDTH, LiveView
from supervisor.core.causes import Action, Cause, State
from supervisor.core.events import (
    AttemptEnded,
    AttemptSpawned,
    CheckpointChosen,
    DeadlineDeferred,
    GpusAwaited,
    GpusLeased,
    GpusSetAside,
    HoldRequired,
    SignSeen,
    SpaceReturned,
)
from supervisor.core.evidence import DeadlineName
from supervisor.core.state import JobState
from supervisor.runner.listener import Audience, GpuUsage, Snapshot
from supervisor.watch.progress import Progress

RUNNING = JobState(phase=State.RUNNING, attempt=2)
WAITING = JobState(phase=State.BACKING_OFF, attempt=2)
BAR_OF_20 = "━" * 20
ENDED = AttemptEnded(2, Cause.HANG, "silent", Action.RESUME, "restart 1 of 5", 1.0,
                     counted=True, ran_s=12, at_s=0)  # fmt: skip
GIB = 1 << 30
QUEUED = JobState(phase=State.QUEUED, attempt=2)
FULL = "/data: 0 B free of 1.0 TiB"
HOLDING = JobState(phase=State.HOLDING, attempt=2, why=FULL)
IDLE = "no sign of progress for 8 s, but working: CPU 99.8 % of a core"
BUSY = Snapshot(2, Progress(step=540, total=2700, loss=123456.789), rate=69.7, eta_s=3900.0)


class Terminal:
    """A terminal of this width, and what stands on the line at its bottom."""

    def __init__(self, width, name="net", **options):
        self.file = io.StringIO()
        console = Console(
            file=self.file, width=width, height=20, force_terminal=True, highlight=False, **options
        )
        self.view = LiveView(name, console)
        self.width = width

    def line(self):
        """The line as it would be drawn now."""
        return self.view._line().plain


@pytest.fixture
def terminal(monkeypatch):
    """Make a terminal; `TERM` must not be dumb, or nothing is drawn at all."""
    monkeypatch.setenv("TERM", "xterm")
    return Terminal


@pytest.mark.parametrize("width", [1, 5, 20, 60, 80, 120, 300])
@pytest.mark.parametrize("name", ["net", "a-name.of-64-letters_" + "x" * 43, "обучение"])
def test_the_line_never_fills_the_terminal(terminal, width, name):
    """A Ctrl-C is echoed behind it: where that wraps, a rest of the line stays for ever."""
    seen = terminal(width, name)
    seen.view.saw(ENDED, RUNNING)
    seen.view.progressed(BUSY)
    assert len(seen.line()) <= max(1, width - ECHO_WIDTH)


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (33, "net  540/2700  attempt 2"),
        (40, "net  540/2700  69.7/s  attempt 2"),
        (60, "net  540/2700  1 h 05 min left  loss 1.235e+05  attempt 2"),
        (70, "net  540/2700  69.7/s  1 h 05 min left  loss 1.235e+05  attempt 2"),
        (90, f"net  {BAR_OF_20}  540/2700  69.7/s  1 h 05 min left  loss 1.235e+05  attempt 2"),
    ],
)  # fmt: skip
def test_the_least_important_is_left_out_first(terminal, width, line):
    """Name, attempt and step stay; the bar takes what room is left."""
    seen = terminal(width)
    seen.view.saw(AttemptSpawned(2, 7, 7), RUNNING)
    seen.view.progressed(BUSY)
    assert seen.line() == line


def test_rate_and_time_left_are_not_claimed_for_a_worker_that_is_gone(terminal):
    """While it waits for the next attempt, the line says so, and what the last end was."""
    seen = terminal(100)
    seen.view.progressed(BUSY)
    seen.view.saw(ENDED, WAITING)
    assert seen.line() == "net  540/2700  loss 1.235e+05  attempt 2 · backing off  hang → resume"


def test_a_resumed_attempt_begins_where_it_resumes(terminal):
    """The step of the attempt before is not shown as its own."""
    seen = terminal(100)
    seen.view.progressed(BUSY)
    seen.view.saw(
        CheckpointChosen("/c", 500), JobState(phase=State.RUNNING, attempt=3, resumed_step=500)
    )
    assert seen.line() == "net  500  attempt 3 · from step 500"


@pytest.mark.parametrize(
    ("progress", "words"),
    [
        (Progress(), "net  attempt 2"),
        (Progress(step=7), "net  7  attempt 2"),
        (Progress(step=0, total=0), "net  0  attempt 2"),
        (Progress(total=9), "net  attempt 2"),
        (Progress(loss=float("nan")), "net  loss nan  attempt 2"),
    ],
)
def test_what_is_not_known_is_not_shown(terminal, progress, words):
    """No total, no step, no number at all: the line stays true."""
    seen = terminal(100)
    seen.view.saw(SignSeen(), RUNNING)
    seen.view.progressed(Snapshot(2, progress))
    assert seen.line() == words


@pytest.mark.parametrize(("fraction", "bar"), [(0.0, " " * 28), (0.5, "━" * 14 + " " * 14)])
def test_without_colour_the_bar_is_told_by_its_length(terminal, fraction, bar):
    """Only its colour would tell the rest from what is done."""
    seen = terminal(120, no_color=True)
    assert seen.view._bar(fraction, 28).plain == bar


def test_an_end_scrolls_by_and_the_line_follows_at_once(terminal):
    """Both lines of the sentence carry the time; below them stands the new state."""
    seen = terminal(100)
    with seen.view:
        seen.view.saw(AttemptSpawned(2, 7, 7), RUNNING)
        seen.view.saw(ENDED, WAITING)
        seen.view.warned("the journal cannot be used")
        drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.file.getvalue())
    assert "attempt 2 ended after 12 s: hang, silent" in drawn
    assert re.search(r"\d\d:\d\d:\d\d decision: resume", drawn)
    assert "warning: the journal cannot be used" in drawn
    assert drawn.rstrip().endswith("attempt 2 · backing off  hang → resume")


def test_the_cursor_is_never_hidden(terminal):
    """A runner that is killed, or stopped with Ctrl-Z, could not show it again."""
    seen = terminal(100)
    with seen.view:
        hidden, shown = (seen.file.getvalue().rfind(f"\x1b[?25{word}") for word in "lh")
    assert shown >= hidden


def test_a_terminal_that_is_gone_ends_nothing(terminal):
    """The connection broke: leaving the view raises nothing, so the run's end decides the exit."""
    seen, refused = terminal(100), []

    def broken(text):
        refused.append(text)
        raise OSError(5, "Input/output error")

    with seen.view:
        seen.file.write = broken
    assert refused


@pytest.mark.parametrize(
    ("progress", "words"),
    [
        (Progress(), ""),
        (Progress(step=540), "step 540"),
        (Progress(step=540, total=2700, loss=0.12345), "step 540/2700, loss 0.1235"),
        (Progress(epoch=12, epochs=60), "epoch 12/60"),
        (Progress(epoch=1.5), "epoch 1.5"),
    ],
)
def test_progress_in_words_is_as_much_as_is_known(progress, words):
    """Step, epoch and loss, each with its whole where there is one."""
    assert progress_words(progress) == words


@pytest.mark.parametrize(
    ("usage", "words"),
    [
        (GpuUsage(), ""),
        (GpuUsage(12 * GIB, 96.6), "GPU 12.0 GiB 97 %"),
        (GpuUsage(0, None), "GPU 0 B"),
        (GpuUsage(None, 0.0), "GPU 0 %"),
    ],
)
def test_gpus_in_words_are_as_much_as_is_known(usage, words):
    """No figure is not nought."""
    assert gpu_words(usage) == words


@pytest.fixture
def drawn(monkeypatch):
    """Draw as often as there is something new, and count."""
    monkeypatch.setattr(live, "DRAW_EVERY_S", 0)
    count = []
    draw = LiveView._draw
    monkeypatch.setattr(
        LiveView, "_draw", lambda view: (count.append(view._line().plain), draw(view))
    )
    return count


def test_the_line_shows_the_memory_and_load_of_its_gpus(terminal, drawn):
    """Beside the progress, drawn anew only when the words change, and not after the worker."""
    seen = terminal(100)
    seen.view.saw(AttemptSpawned(2, 7, 7), RUNNING)
    seen.view.progressed(Snapshot(2, Progress(step=540)))
    before = len(drawn)
    seen.view.gpus_used(GpuUsage(12 * GIB, 97.0))
    seen.view.gpus_used(GpuUsage(12 * GIB + 1, 97.1))
    assert drawn[before:] == ["net  540  GPU 12.0 GiB 97 %  attempt 2"]
    seen.view.saw(ENDED, WAITING)
    assert "GPU" not in seen.line()
    seen.view.saw(AttemptSpawned(3, 8, 8), RUNNING)
    assert "GPU" not in seen.line()


def test_gpus_are_drawn_at_most_once_a_second(terminal):
    """Watching must cost the training nothing."""
    seen = terminal(100)
    seen.view.saw(AttemptSpawned(2, 7, 7), RUNNING)
    with seen.view:
        before = seen.file.tell()
        for used in range(50):
            seen.view.gpus_used(GpuUsage(used, 1.0))
        assert seen.file.tell() == before


def test_while_it_waits_for_gpus_the_line_says_so(terminal, monkeypatch):
    """Since when, and the reason of now; something else that happens meanwhile ends no wait."""
    times = iter(["10:00:00", "10:00:09", "10:00:30"])
    seen = terminal(100)
    monkeypatch.setattr(live.LiveView, "_scroll", lambda *_: None)
    monkeypatch.setattr(live.time, "strftime", lambda _: next(times))
    seen.view.saw(GpusAwaited("none of 2 GPUs\nis free"), QUEUED)
    assert seen.line() == "net  attempt 2 · waiting for GPUs since 10:00:00  none of 2 GPUs is free"
    seen.view.saw(GpusSetAside(("GPU-a",)), QUEUED)
    seen.view.saw(GpusAwaited("GPU 0 is set aside"), QUEUED)
    assert seen.line() == "net  attempt 2 · waiting for GPUs since 10:00:00  GPU 0 is set aside"
    seen.view.saw(GpusLeased(("GPU-b",)), QUEUED)
    assert seen.line() == "net  attempt 2 · queued"


def test_while_a_disk_is_full_the_line_says_so(terminal, monkeypatch):
    """It goes on by itself, so nobody must think that it hangs."""
    seen = terminal(100)
    seen.view.progressed(BUSY)
    monkeypatch.setattr(live.LiveView, "_scroll", lambda *_: None)
    monkeypatch.setattr(live.time, "strftime", lambda _: "10:00:00")
    seen.view.saw(HoldRequired(Cause.DISK_FULL, FULL), HOLDING)
    said = f"net  540/2700  loss 1.235e+05  attempt 2 · holding since 10:00:00  {FULL}"
    assert seen.line() == said
    seen.view.saw(SpaceReturned(), QUEUED)
    assert FULL not in seen.line()


def test_a_silent_worker_that_is_left_alone_is_not_shown_as_if_it_worked(terminal, drawn):
    """The line says what is seen of it, as it is now, until the next sign."""
    seen = terminal(100)
    seen.view.saw(AttemptSpawned(2, 7, 7), RUNNING)
    seen.view.progressed(BUSY)
    before = len(drawn)
    seen.view.saw(DeadlineDeferred(DeadlineName.HEARTBEAT, 5.0, IDLE), RUNNING)
    seen.view.saw(DeadlineDeferred(DeadlineName.HEARTBEAT, 5.0), RUNNING)
    assert drawn[before:] == [f"net  540/2700  attempt 2  {IDLE}"]
    seen.view.saw(DeadlineDeferred(DeadlineName.HEARTBEAT, 5.0, IDLE.replace("8", "9")), RUNNING)
    assert "for 9 s" in drawn[-1]
    seen.view.saw(SignSeen(), RUNNING)
    assert "1 h 05 min left" in drawn[-1]
    assert "no sign" not in drawn[-1]
    assert len(drawn) == before + 3


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (36, "net  540/2700  attempt 2"),
        (60, "net  540/2700  attempt 2  no sign of progress for 8 s, b…"),
        (80, "net  540/2700  attempt 2  no sign of progress for 8 s, but working: CPU 99.8…"),
        (120, f"net  540/2700  loss 1.235e+05  attempt 2  {IDLE}"),
    ],
)
def test_a_reason_is_shortened_to_the_room_there_is(terminal, width, line):
    """It takes precedence over what is history, and is left out where no word of it fits."""
    seen = terminal(width)
    seen.view.saw(AttemptSpawned(2, 7, 7), RUNNING)
    seen.view.progressed(BUSY)
    seen.view.saw(DeadlineDeferred(DeadlineName.HEARTBEAT, 5.0, IDLE), RUNNING)
    assert seen.line() == line


def test_all_listeners_are_told_of_gpus_though_one_is_gone():
    """A terminal that broke away keeps the others from nothing."""

    class Gone:
        def gpus_used(self, _usage):
            raise OSError

    told = []

    class Ear:
        def gpus_used(self, usage):
            told.append(usage)

    Audience(Gone(), Ear()).gpus_used(GpuUsage(1))
    assert told == [GpuUsage(1)]


def test_plain_lines_tell_of_gpus_where_they_tell_of_progress(capsys, monkeypatch):
    """No line of their own; what another worker used is not told of the next one."""
    monkeypatch.setattr("supervisor.cli.lines.PROGRESS_EVERY_S", 0)
    view = LineView("net")
    view.gpus_used(GpuUsage(12 * GIB, 97.0))
    view.progressed(BUSY)
    view.saw(AttemptSpawned(3, 8, 8), RUNNING)
    view.progressed(BUSY)
    said = [line.split("net: ")[1] for line in capsys.readouterr().out.splitlines()]
    assert said == [
        "step 540/2700, loss 1.235e+05, GPU 12.0 GiB 97 %, 1 h 05 min left",
        "attempt 3 is running (process 8)",
        "step 540/2700, loss 1.235e+05, 1 h 05 min left",
    ]


def test_plain_lines_carry_time_and_name_and_are_not_a_flood(capsys):
    """One event, one line; of the progress, one line now and then."""
    view = LineView("net")
    view.saw(AttemptSpawned(2, 7, 7), RUNNING)
    view.saw(SignSeen(5), RUNNING)
    view.progressed(Snapshot(2, Progress()))
    view.progressed(BUSY)
    view.progressed(BUSY)
    view.warned("no room")
    said = [line.split(" ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert said == [
        "net: attempt 2 is running (process 7)",
        "net: step 540/2700, loss 1.235e+05, 1 h 05 min left",
        "net: warning: no room",
    ]
