"""A daemon that is killed while it adds: what it promised is there, and nothing by halves."""

import random
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from supervisor.queue.store import Queue
from tests.unit.queue_entries import entry

KILLS = 15
TOGETHER = 4  # entries of one submission
ROOT = Path(__file__).parents[2]

# Says the number of each submission after `add` has returned.
DAEMON = f"""
import sys
from pathlib import Path
from supervisor.queue.store import Queue
from tests.unit.queue_entries import submitted
queue = Queue.open(Path(sys.argv[1]))
while True:
    first = queue.next_seq()
    queue.add([submitted(first + place) for place in range({TOGETHER})])
    print(first, flush=True)
    queue.shelved([f"job-{{first}}"])
    queue.change(submitted(first + 1).entry, "Looked at")
"""


def killed(state_dir: Path, after: int) -> int:
    """Let a daemon add, kill it some time behind so many submissions; the last that it told of."""
    command = [sys.executable, "-c", DAEMON, str(state_dir)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        told = "".join(daemon.stdout.readline() for _ in range(after))
        daemon.kill()
        told += daemon.stdout.read()
    assert daemon.returncode == -signal.SIGKILL
    return int(told.split("\n")[-2])  # behind it is a line that was not said whole


def test_what_was_acknowledged_is_there_and_whole(state_dir: Path) -> None:
    """Each daemon is killed at another moment; each finds all that those before it promised."""
    chance = random.Random(6)
    told = 0
    for _ in range(KILLS):
        told = max(told, killed(state_dir, chance.randrange(1, 12)))
        with closing(Queue.open(state_dir)) as queue:
            entries = queue.entries()
            assert entries == [entry(seq) for seq in range(1, len(entries) + 1)]
            assert len(entries) % TOGETHER == 0
            assert len(entries) >= told + TOGETHER - 1
            assert queue.next_seq() == len(entries) + 1
            said = [one for one in queue.happenings(limit=10**6) if one.kind == "Submitted"]
            assert [one.job_id for one in said] == [one.id for one in entries]
            kept = {one.entry.id for one in queue.unshelved()}
            assert kept >= {one.id for one in entries if one.seq % TOGETHER != 1}
    assert told > KILLS


def test_killed_while_the_file_is_made(tmp_path: Path) -> None:
    """Whatever of the first start is there, the next one begins with a queue."""
    started = 0
    for number in range(8):
        folder = tmp_path / str(number)
        program = DAEMON.replace("while True", "print(0, flush=True)\nwhile True")
        program = program.replace("queue = ", "print('in', flush=True)\nqueue = ")
        command = [sys.executable, "-c", program, str(folder)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as daemon:
            assert daemon.stdout is not None
            assert daemon.stdout.readline() == "in\n"
            for _ in range(number * 150):  # a little later each time
                daemon.poll()
            daemon.kill()
            started += daemon.stdout.read().startswith("0")
        with closing(Queue.open(folder)) as queue:
            assert len(queue.entries()) % TOGETHER == 0
    assert started < 8
