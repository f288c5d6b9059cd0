"""A batch job in a folder of its own: ten items, of which some are not what they should be.

Owns the functions that such a job calls, and what a test reads of its results.
"""

import copy
import json
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

FUNCTIONS = """
import ctypes, json, os, signal, subprocess, sys, threading, time

NEVER = threading.Event()

def note(name, text):
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, f"{text}\\n".encode())
    os.close(fd)

def square(item):
    note("called.txt", f"{item} {os.getpid()}")
    return int(item) ** 2

def slow(item):
    time.sleep(0.05)
    return square(item)

def begun(item):
    with open("begun.tmp", "w") as file:
        file.write(str(os.getpid()))
    os.replace("begun.tmp", "begun")

def at(bad, act):
    def call(item):
        if isinstance(item, list):
            return [call(one) for one in item]
        if str(item) == bad:
            note("struck.txt", os.getpid())
            return act(item)
        return square(item)
    return call

def hang(item):
    NEVER.wait()

def spin(item):
    while True:
        pass

def child_lives_on(item):
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    note("children.txt", child.pid)
    if os.fork() == 0:
        note("children.txt", os.getpid())
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        NEVER.wait()
    os._exit(3)

def eat(item):
    kept = []
    while True:
        kept.append(bytearray(b"x") * (8 << 20))

def fail(item):
    raise ValueError(f"item {item} is no good")

segfault = at("3", lambda item: ctypes.string_at(0))
hangs = at("3", hang)
spins = at("3", spin)
leaves = at("3", lambda item: os._exit(0))
killed = at("3", lambda item: os.kill(os.getpid(), signal.SIGKILL))
hungry = at("3", eat)
forks = at("3", child_lives_on)
raises = at("3", fail)
not_a_number = at("3", lambda item: float("nan"))
"""


class Batch:
    """A batch job, as its owner sees it from outside."""

    def __init__(self, job: Any) -> None:
        self.job = job
        self.folder: Path = job.folder
        (self.folder / "steps.py").unlink()
        (self.folder / "fns.py").write_text(FUNCTIONS)
        self.items(range(1, 11))
        job.spec.clear()
        self.write("square")

    def twin(self, name: str) -> "Batch":
        """The same job once more, in a folder and with a state folder of its own."""
        one = copy.copy(self)
        one.job = self.job.twin(name)
        one.folder = one.job.folder
        return one

    def items(self, items: Any) -> None:
        """Write items.txt."""
        (self.folder / "items.txt").write_text("".join(f"{item}\n" for item in items))

    def write(self, entry: str | None = None, **changes: Any) -> None:
        """Write job.yaml; `map` changes only in what is named."""
        base = {
            "name": "batch",
            "map": {"entry": "fns:square", "items": "items.txt"},
            "chunks": {"size": 4},
            "timeouts": {"stop": 5},
            "warm": False,
        }
        for key, text in base.items():
            self.job.spec.setdefault(key, text)
        if entry is not None:
            self.job.spec["map"] = self.job.spec["map"] | {"entry": f"fns:{entry}"}
        if "map" in changes:
            changes["map"] = self.job.spec["map"] | changes["map"]
        self.job.write(**changes)

    def add(self, code: str) -> None:
        """More functions."""
        with (self.folder / "fns.py").open("a") as file:
            file.write(f"\n{code}\n")

    def start(self, *options: str) -> subprocess.Popen[str]:
        """`supervise run` in the background."""
        run: subprocess.Popen[str] = self.job.start(*options)
        return run

    def run(self, *options: str, timeout_s: float = 60) -> tuple[int, str]:
        """`supervise run` to its end: exit code, and all that it printed."""
        done: tuple[int, str] = self.job.run(*options, timeout_s=timeout_s)
        return done

    def show(self) -> dict[str, Any]:
        """`supervise show --json`."""
        shown: dict[str, Any] = self.job.show("batch")
        return shown

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The fields of the events of this kind, oldest first."""
        return [one["fields"] for one in self.job.events("batch") if one["kind"] == kind]

    def causes(self) -> list[str]:
        """Why each attempt ended."""
        return [one["cause"] for one in self.show()["attempts"]]

    def show_or_none(self) -> list[str]:
        """Why each attempt ended, as far as the journal exists and knows."""
        with suppress(subprocess.CalledProcessError):
            return [cause for cause in self.causes() if cause]
        return []

    @property
    def out(self) -> Path:
        """Where results go."""
        return self.folder / "out"

    def lines(self) -> list[dict[str, Any]]:
        """The results, each line parsed."""
        with suppress(FileNotFoundError):
            whole = (self.out / "results.jsonl").read_text()
            return [json.loads(line) for line in whole.splitlines()]
        return []

    def done(self) -> list[str]:
        """The items that have a result, sorted as numbers, with those that have more than one."""
        return sorted((one["item"] for one in self.lines()), key=int)

    def quarantined(self) -> dict[str, str]:
        """The cause of each item that was set aside."""
        with suppress(FileNotFoundError):
            lines = (self.out / "quarantine.jsonl").read_text().splitlines()
            found = [json.loads(line) for line in lines]
            return {one["item"]: one["cause"] for one in found}
        return {}

    def noted(self, name: str) -> list[int]:
        """The last number of each line that the functions noted in a file."""
        with suppress(FileNotFoundError):
            return [int(line.split()[-1]) for line in (self.folder / name).read_text().splitlines()]
        return []

    def calls(self) -> Counter[str]:
        """How often the function was called with each item."""
        with suppress(FileNotFoundError):
            return Counter(
                line.split()[0] for line in (self.folder / "called.txt").read_text().splitlines()
            )
        return Counter()

    def stack_of(self, number: int, attempt: int = 1) -> str:
        """Where the worker stood that hung at this item."""
        (file,) = self.job.state_dir.glob(f"jobs/*/attempts/{attempt}/items/{number}/stack.txt")
        return str(file.read_text())

    def processes(self) -> list[int]:
        """Every process that was started for this job and lives, wherever it fled to."""
        folder: Path = self.job.state_dir.parent
        found: list[int] = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                if stat.read_text().rpartition(")")[2].split()[0] in "ZX":
                    continue
                work = stat.with_name("cwd").readlink()
                if work.is_relative_to(folder):
                    found.append(int(stat.parent.name))
        return found

    def is_whole(self, items: int, without: tuple[str, ...] = ()) -> None:
        """Each item has exactly one result, but for these."""
        assert self.done() == [str(one) for one in range(1, items + 1) if str(one) not in without]


def kill_runner(run: subprocess.Popen[str]) -> None:
    """End a runner as nobody can prepare for."""
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=20)


Alive = Callable[[int], bool]
