"""Whoever publishes may die at any instant: what is visible is whole, and nothing is lost."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process.session_server import DEADLINE_S, ROOT
from workers.publishing import Publisher, newest, read_manifest, verify

# Forks a publisher for each of its steps towards the disk, and has it die before that step.
EACH_STEP = """
import builtins, io, json, os, shutil, sys
from pathlib import Path
from workers import leftovers
from workers.publishing import Best, Publisher, newest, verify

os.fsync = lambda fd: None  # who is killed loses nothing of what the kernel has
CALLS = ("mkdir", "open", "fsync", "rename", "replace", "symlink", "unlink", "rmdir")
root, again, exchange = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
exchanged = leftovers._exchange if exchange else lambda *_: False

def publisher(folder, durable=False):
    return Publisher(folder, keep=1, best=Best("loss"), durable=durable)

def write(content):
    def fill(folder):
        (folder / "a").mkdir()
        (folder / "a" / "x").write_bytes(content)
        (folder / "y").write_bytes(content * 1000)
    return fill

def mortal(last):
    left = [last]
    def counted(call):
        def one(*args, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)
            return call(*args, **kwargs)
        return one
    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    io.open = counted(io.open)
    leftovers._exchange = counted(exchanged)

leftovers._exchange = exchanged
deaths = 0
while True:
    folder = root / str(deaths)
    publisher(folder).publish(write(b"old"), 1, {"loss": 1})
    child = os.fork()
    if child == 0:
        mortal(deaths)
        publisher(folder, True).publish(write(b"new"), 1 if again else 2, {"loss": 1})
        os._exit(0)
    _, status = os.waitpid(child, 0)
    for path in folder.glob("step-*"):
        verify(path)
    found = newest(folder)
    content = (found / "a" / "x").read_bytes()
    assert content in (b"old", b"new"), content
    assert len((found / "y").read_bytes()) == 3000
    shutil.rmtree(root / str(deaths - 1), ignore_errors=True)
    made = publisher(folder).publish(write(b"then"), 3, {"loss": 0})
    assert sorted(path.name for path in folder.iterdir()) == ["best", "last", "step-000000003"]
    verify(made.path)
    if status == 0:
        assert content == b"new"
        break
    assert os.waitstatus_to_exitcode(status) == 9, status
    deaths += 1
print(json.dumps(deaths))
"""

# Publishes for ever, and says of each that it is done.
FOREVER = """
import itertools, os, sys
os.fsync = lambda fd: None
from workers.publishing import Publisher
publisher = Publisher(sys.argv[1], keep=2)
for step in itertools.count(int(sys.argv[2])):
    publisher.publish(lambda folder: (folder / "x").write_bytes(b"%d" % step * 200_000), step // 2)
    print(step // 2, flush=True)
"""

# Three writers at once, each of which takes away what the others have just put there.
RACE = """
import os, random, sys
from workers import leftovers
from workers.publishing import Best, Publisher
os.fsync = lambda fd: None
if sys.argv[2] == "0":
    leftovers._exchange = lambda *_: False
children = []
for writer in range(3):
    children.append(os.fork())
    if children[-1] == 0:
        chance = random.Random(writer)
        publisher = Publisher(sys.argv[1], keep=1, best=Best("loss"))
        try:
            for _ in range(60):
                publisher.publish(
                    lambda folder: (folder / "x").write_bytes(b"x" * 100),
                    chance.randrange(3),
                    {"loss": chance.random()},
                )
        except BaseException as error:
            print(repr(error), flush=True)
        os._exit(0)
for child in children:
    os.waitpid(child, 0)
"""


def run(code: str, *words: object) -> "subprocess.Popen[bytes]":
    """Start a program of this project's."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )


@pytest.mark.parametrize("exchange", [1, 0])
@pytest.mark.parametrize("again", [0, 1])
def test_dying_before_any_step_leaves_the_older_or_the_newer(
    again: int, exchange: int, tmp_path
) -> None:
    """Also where a step replaces itself, with or without the kernel's exchange."""
    child = run(EACH_STEP, tmp_path, again, exchange)
    out, _ = child.communicate(timeout=DEADLINE_S)
    assert child.returncode == 0
    assert json.loads(out) > 30


def test_being_killed_at_any_moment_loses_nothing_that_was_said(tmp_path) -> None:
    """Two writers at once, killed again and again: what one has said to be done is there."""
    said = 0
    for number in range(5):
        children = [run(FOREVER, tmp_path, 2 * said + 2), run(FOREVER, tmp_path, 2 * said + 2)]
        try:
            for child in children:
                assert child.stdout is not None
                for _ in range(1 + number):
                    said = max(said, int(child.stdout.readline()))
        finally:
            for child in children:
                child.send_signal(signal.SIGKILL)
                child.communicate(timeout=DEADLINE_S)
        for path in tmp_path.glob("step-*"):
            verify(path)
        found = newest(tmp_path)
        assert found is not None
        assert read_manifest(found)["step"] >= said
    Publisher(tmp_path, keep=1).publish(lambda folder: (folder / "x").write_bytes(b"y"), 10**6)
    assert {path.name for path in tmp_path.iterdir()} == {"last", "step-001000000"}


@pytest.mark.parametrize("exchange", [1, 0])
def test_writers_that_meet_do_not_disturb_each_other(exchange: int, tmp_path) -> None:
    """On few steps, so that they replace and remove what the others write."""
    out, _ = run(RACE, tmp_path, exchange).communicate(timeout=DEADLINE_S)
    assert out == b""
    left = {path.name for path in tmp_path.iterdir()}
    assert {"last", "best"} <= left <= {"last", "best", *(f"step-{one:09d}" for one in range(3))}
    for path in tmp_path.glob("step-*"):
        verify(path)


def test_a_folder_that_may_only_be_read_is_the_scripts_to_know(tmp_path) -> None:
    """The reason is raised as the system gives it; a tier in memory that is full is told once."""
    code = (
        "import os, sys\n"
        "from workers import session\n"
        "def full(folder):\n"
        "    raise RuntimeError('PytorchStreamWriter failed writing file data/0')\n"
        "for step in (1, 2):\n"
        "    assert session.publish(full, step, tier='memory', folder=sys.argv[1]) is None\n"
        "try:\n"
        "    session.publish(full, 1, folder='/proc/no')\n"
        "except FileNotFoundError as error:\n"
        "    print(error.filename)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.stdout == "/proc/no\n"
    assert done.stderr == (
        "supervise: no checkpoints are kept in memory: PytorchStreamWriter failed writing file "
        "data/0\n"
    )
    assert list(Path(tmp_path).iterdir()) == []
