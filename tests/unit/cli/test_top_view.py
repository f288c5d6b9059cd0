"""What `supervise top` looks like, and that the terminal is as it was when it ends."""

import json
import os
import pty
import signal
import subprocess
import sys
import termios
from dataclasses import replace

import pytest
from click.testing import CliRunner

from supervisor.cli import text, top, top_view
from supervisor.cli.keys import SUSPEND, Keys, until_left
from supervisor.cli.top_frame import Frame, GpuRow, GpuUse, HostRow, JobRow
from supervisor.gpu.model import Gpu, Reading
from supervisor.gpu.shared_folder import ENVIRONMENT
from supervisor.host.pressure import Pressure

GIB = 1 << 30
HOST = HostRow((1.0, 0.5, 0.25), 8, 3 * GIB, 64 * GIB, Pressure(4.0, 0.0, 0.0, 12.0, 1.0))
JOB = JobRow("digits-3fa2c1", "digits", "ada", "running", 3, 2, 540, 2700, 4.2, 5, 1.98, 3 * GIB,
             GpuUse(("0", "1"), 97.0, 41 * GIB))  # fmt: skip
CPU_JOB = JobRow("plain-0a0a0a", "plain", "ada", "backing_off", None, 0, None, None, None, 0, None,
                 None, GpuUse())  # fmt: skip
WHOLE = Gpu("GPU-0", 0, "NVIDIA H200", "0000:01:00", 140 * GIB)
PART = Gpu("MIG-0123456789abcdef", 1, "1g.18gb", "0000:01:00", 18 * GIB, parent="GPU-1")
BUSY = Reading("GPU-0", 41 * GIB, 97.0, 50.0, 512.0, 700.0, 61.0, ())
GPUS = (
    GpuRow(WHOLE, BUSY, (JOB.id,), ""),
    GpuRow(PART, Reading(PART.uuid), (), "set aside: Xid 79"),
)
FRAME = Frame(HOST, (JOB, CPU_JOB), 0, 0, GPUS, "", 1.0)
KEYS = {"at", "host", "jobs", "waiting_jobs", "lost_jobs"}
KEYS |= {"gpus", "gpu_problem", "daemon_problem"}
PAGE = """\
load 1.00 0.50 0.25 on 8 cores  ·  memory 3.0 GiB of 64.0 GiB  ·  waiting for cpu 4 %, \
memory 0 %, disk 12 %

JOB            STATE        #      STEP  SILENT    CPU   MEMORY  GPU  UTIL   GPU MEM  RESTARTS
digits-3fa2c1  running      3  540/2700     4 s  198 %  3.0 GiB  0,1  97 %  41.0 GiB         2
plain-0a0a0a   backing_off  -         -       -      -        -  -       -         -         0

GPU              NAME         UTIL        MEMORY      POWER   TEMP  HELD BY
0                NVIDIA H200  97 %  41.0/140 GiB  512/700 W  61 °C  digits-3fa2c1
1 MIG-01234567…  1g.18gb         -      -/18 GiB          -      -  set aside: Xid 79
"""
START = (
    "import sys; from pathlib import Path; from supervisor.cli.top import command;"
    " command(sys.argv[2:], obj=Path(sys.argv[1]))"
)


def drawn(frame, room, monkeypatch):
    """Lines of the frame on a terminal of this width, without colour."""
    monkeypatch.setattr(text, "columns", lambda: room)
    return [top_view.click.unstyle(one) for one in top_view.lines(frame, room, "no job")]


def test_everything_is_shown_where_there_is_room(monkeypatch):
    """In a pipe nothing is left out or cut."""
    assert drawn(FRAME, None, monkeypatch) == PAGE.splitlines()


@pytest.mark.parametrize("room", [24, 40, 60, 80, 100, 140, 300])
def test_no_line_is_wider_than_the_terminal(room, monkeypatch):
    """Also with a name of 64 letters and a problem that is long."""
    long = replace(JOB, id="a" * 64)
    frame = replace(FRAME, jobs=(long,), gpu_problem="the driver does not answer " * 5, lost=3)
    assert max(map(text.width, drawn(frame, room, monkeypatch))) <= room


@pytest.mark.parametrize(
    ("room", "heads"),
    [
        (100, "JOB STATE # STEP SILENT CPU MEMORY GPU UTIL GPU MEM RESTARTS"),
        (80, "JOB STATE # STEP SILENT CPU MEMORY GPU GPU MEM"),
        (60, "JOB STATE STEP SILENT CPU GPU"),
        (44, "JOB STATE STEP GPU"),
    ],
)
def test_the_least_important_column_goes_first(room, heads, monkeypatch):
    """Job, state and step stay; restarts and utilization, which is told below, go first."""
    shown = next(one for one in drawn(FRAME, room, monkeypatch) if one.startswith("JOB"))
    assert shown.split() == heads.split()


def test_without_gpus_there_are_no_columns_for_them(monkeypatch):
    """A host without GPUs shows neither table nor problem."""
    frame = Frame(HOST, (CPU_JOB,), 0, 0, (), "libnvidia-ml.so.1 was not found", 0.0)
    assert "GPU" not in "\n".join(drawn(frame, 120, monkeypatch))


def test_no_job_and_lost_jobs(monkeypatch):
    """What there is to say is said."""
    lines = drawn(replace(FRAME, jobs=(), waiting=2, lost=1), None, monkeypatch)
    assert lines[2:5] == [
        "no job",
        "2 jobs waiting for a turn: supervise ps",
        "1 more job has lost the runner: supervise ps",
    ]


def test_whose_jobs_they_are_is_told_where_they_are_not_all_of_one(monkeypatch):
    """A column more, also for one whose owner has a strange name; and why others are missing."""
    other = replace(CPU_JOB, user="\x07bob", restarts=None)
    frame = replace(FRAME, jobs=(JOB, other), daemon_problem="the daemon\x07hangs")
    head, first, second, *more = drawn(frame, None, monkeypatch)[2:]
    assert head.split()[:3] == ["JOB", "USER", "STATE"]
    assert first.split()[:3] == ["digits-3fa2c1", "ada", "running"]
    assert second.split()[1] == "bob"
    assert second.split()[-1] == "-"
    assert more[0] == "other users' jobs are not known: the daemon hangs"


@pytest.mark.parametrize(
    ("problem", "age_s", "words"),
    [
        ("the driver hangs", 42.0, "GPUs: the driver hangs; figures of 42 s ago"),
        ("", 42.0, "GPUs: the driver does not answer; figures of 42 s ago"),
        ("GPU 1 is left out", 1.0, "GPUs: GPU 1 is left out"),
    ],
)
def test_old_figures_say_their_age(problem, age_s, words, monkeypatch):
    """While the driver does not answer, its last figures are shown as what they are."""
    frame = replace(FRAME, gpu_problem=problem, gpus_age_s=age_s)
    assert drawn(frame, None, monkeypatch)[-1] == words


def test_a_worker_s_name_cannot_steer_the_terminal(monkeypatch):
    """Escape sequences of a process's name or a reason are taken out."""
    row = replace(GPUS[1], note="\x1b[2Jgone")
    shown = "\n".join(top_view.lines(replace(FRAME, gpus=(row,)), None, "no job"))
    assert "\x1b[2J" not in shown


def test_the_json():
    """Keys and values that other programs rely on."""
    shown = json.loads(json.dumps(top_view.fields(FRAME)))
    assert set(shown) == KEYS
    assert shown["jobs"][0] == {
        "id": "digits-3fa2c1",
        "name": "digits",
        "user": "ada",
        "state": "running",
        "attempt": 3,
        "restarts": 2,
        "step": 540,
        "total": 2700,
        "silent_s": 4.2,
        "processes": 5,
        "cpu_share": 1.98,
        "memory_bytes": 3 * GIB,
        "gpus": ["0", "1"],
        "gpu_utilization": 97.0,
        "gpu_memory_bytes": 41 * GIB,
    }
    assert shown["gpus"][0]["jobs"] == ["digits-3fa2c1"]
    assert (shown["gpus"][1]["parent"], shown["gpus"][1]["used_bytes"]) == ("GPU-1", None)
    assert shown["host"]["pressure"]["io_some"] == 12.0


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """Keep leases of this host out."""
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "leases"))


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("words", [["--once"], []])
def test_one_frame_in_a_pipe(state_dir, words):
    """Without a terminal one frame is printed, and that is all."""
    shown = CliRunner().invoke(top.command, words, obj=state_dir)
    assert shown.exit_code == 0
    assert shown.stdout.splitlines()[-1] == f"no job is running in {state_dir}"


@pytest.mark.usefixtures("alone")
def test_one_frame_as_json(state_dir):
    """`--json` is one document."""
    shown = CliRunner().invoke(top.command, ["--json"], obj=state_dir)
    assert json.loads(shown.stdout)["jobs"] == []


@pytest.fixture
def screen():
    """Give both ends of a terminal of 24 lines: ours, and a program's."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    yield ours, theirs
    for fd in (ours, theirs):
        os.close(fd)


def until(fd, *markers):
    """What came out of the terminal, up to the last of the markers."""
    seen = b""
    while not all(one in seen for one in markers):
        seen += os.read(fd, 65_536)
    return seen


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("how", [b"q", signal.SIGINT, signal.SIGTERM])
def test_the_terminal_is_as_it_was(state_dir, screen, how, monkeypatch):
    """However the view is left, it leaves the other screen, the cursor and the modes as before."""
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = screen
    before = termios.tcgetattr(theirs)
    command = [sys.executable, "-c", START, str(state_dir)]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, start_new_session=True) as view:
        until(ours, b"\x1b[?1049h", b"q leaves")
        assert not termios.tcgetattr(theirs)[3] & termios.ICANON
        if isinstance(how, bytes):
            os.write(ours, how)
        else:
            view.send_signal(how)
        until(ours, b"\x1b[?1049l", b"\x1b[?25h")
        assert view.wait(20) == 0
    assert termios.tcgetattr(theirs) == before


@pytest.mark.parametrize(
    ("typed", "key"),
    [(b"q", b"q"), (b"xq", b"q"), (b"\x1a", SUSPEND), (b"\x1b[A", b"\x1b[A"), (b"", None)],
)
def test_keys(screen, monkeypatch, typed, key):
    """Ctrl-Z is a key, an arrow is one that is not Escape, and without any the wait ends."""
    ours, theirs = screen
    with os.fdopen(theirs, closefd=False) as stdin, monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", stdin)
        with Keys() as keys:
            os.write(ours, typed)
            assert keys.wait(5.0 if typed else 0.01) == key


@pytest.mark.parametrize(("every_s", "rounds"), [(0.0, 4), (60.0, 1)])
def test_drawing_goes_on_until_a_key_that_means_something(every_s, rounds):
    """Other keys neither end the view nor draw it before it is time."""

    class Typed:
        keys = iter([None, b"x", b"\x1b[A", b"Q"])

        def wait(self, _timeout_s):
            return next(self.keys)

    draws = []
    assert until_left(lambda: draws.append(1), Typed(), every_s) == b"Q"
    assert len(draws) == rounds


def test_a_terminal_that_is_gone(monkeypatch):
    """The view ends with the terminal."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs) as stdin, monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", stdin)
        with Keys() as keys:
            os.close(ours)
            assert keys.wait(5.0) == b"q"


def test_without_a_terminal_no_key_comes(tmp_path, monkeypatch):
    """With stdin from a file the view only waits."""
    with (tmp_path / "empty").open("w+") as stdin, monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", stdin)
        with Keys() as keys:
            assert keys.wait(0.01) is None
