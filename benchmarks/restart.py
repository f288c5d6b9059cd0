"""From the death of a worker to the first line of the next: ours, a shell loop's, torchrun's.

Every contestant keeps the same small Python script alive, all at once and idle; they are killed one
after the other, round after round, so that all see the same machine. Starting the script by hand is
measured in the same rounds. Each has a session of its own, because a busy kernel shares out by
session first (autogroup, sched(7)). Ends only processes that it started, or that those started.
"""

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.figures import Figure, Spread, arguments, show

SCRIPT = Path(__file__).with_name("short_lived.py")
SUPERVISE = str(Path(sys.executable).with_name("supervise"))
ROUNDS, QUICK_ROUNDS = 120, 20
SETTLE_S = 0.1  # five of them make a round: what was started ahead is ready by then
FIRST_LINE_LIMIT_S = 60.0
END_LIMIT_S = 20.0
SAID_BYTES = 4000
ALLOWED_MS = 20.0  # over a start by hand
DETECTION_MS = 2.0
NS_PER_MS = 1e6
PAGES_BYTES = 8192
BY_HAND, SHELL, TORCHRUN, OURS, WATCHED = "by hand", "sh", "torchrun", "supervise", "watched"

JOB = """\
name: {name}
command: [{python}, {script}, {pipe}, {name}]
restart: {{budget: 1000000, backoff: {{initial: 0s}}}}
timeouts: {{startup: 1h, heartbeat: 1h}}
"""


class Silent(Exception):
    """Nothing was heard of one whose script should live; its name is the argument."""


@dataclass
class Reports:
    """What scripts and stopwatch say on one pipe: (who, pid, monotonic ns)."""

    fd: int
    _rest: bytes = b""
    _lines: list[tuple[str, int, int]] = field(default_factory=list)

    def next_of(self, name: str) -> tuple[int, int]:
        """The oldest unread report of `name`: pid and instant. Others' are kept.

        Raises:
            Silent: there was none for a minute.
        """
        deadline = time.monotonic() + FIRST_LINE_LIMIT_S
        while True:
            for index, (who, pid, at_ns) in enumerate(self._lines):
                if who == name:
                    del self._lines[index]
                    return pid, at_ns
            self._read(deadline, name)

    def forget(self, name: str) -> None:
        """Drop what was reported under this name and not asked for."""
        self._lines = [line for line in self._lines if line[0] != name]

    def _read(self, deadline: float, name: str) -> None:
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not select.select([self.fd], [], [], left_s)[0]:
            raise Silent(name)
        *whole, self._rest = (self._rest + os.read(self.fd, 1 << 16)).split(b"\n")
        for line in whole:
            who, pid, at_ns = line.decode().rsplit(" ", 2)
            self._lines.append((who, int(pid), int(at_ns)))


@dataclass
class Contestant:
    """One that restarts; `pid` is its living script."""

    name: str
    process: subprocess.Popen[bytes]
    pid: int = 0
    took_ms: list[float] = field(default_factory=list)


def main() -> None:
    """Measure and tell."""
    given = arguments(__doc__)
    rounds = QUICK_ROUNDS if given.quick else ROUNDS
    with tempfile.TemporaryDirectory(prefix="restart-") as folder:
        figures = measure(Path(folder), rounds)
    show(f"restart ({rounds} rounds)", figures, as_json=given.json)


def measure(folder: Path, rounds: int) -> list[Figure]:
    """All figures of the benchmark."""
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    with ExitStack() as stack:
        fd = os.open(pipe, os.O_RDWR)  # a writer too: the pipe never ends
        stack.callback(os.close, fd)
        reports = Reports(fd)
        racing = [
            stack.enter_context(running(name, command, reports))
            for name, command in commands(folder, pipe).items()
        ]
        by_hand: list[float] = []
        detected: list[float] = []
        synced: list[float] = []
        for number in range(rounds):
            by_hand.append(start_by_hand(pipe, reports))
            synced.append(one_fsync(folder / "synced"))
            for one in racing[number % len(racing) :] + racing[: number % len(racing)]:
                killed_ns = restart(one, reports)
                if one.name == WATCHED:
                    detected.append((exit_seen_ns(reports) - killed_ns) / NS_PER_MS)
    races = [_race(one.name, one.took_ms, by_hand) for one in racing]
    return [_race(BY_HAND, by_hand, by_hand), *races, _detection(detected, synced)]


def commands(folder: Path, pipe: Path) -> dict[str, list[str]]:
    """How each contestant is asked to keep the script alive."""
    files = {name: folder / name / "job.yaml" for name in (OURS, WATCHED)}
    for name, file in files.items():
        file.parent.mkdir()
        file.write_text(
            JOB.format(name=name, python=sys.executable, script=SCRIPT.resolve(), pipe=pipe)
        )
    state = str(folder / "state")
    loop = 'until "$0" "$@"; do :; done'
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return {
        SHELL: ["sh", "-c", loop, sys.executable, str(SCRIPT), str(pipe), SHELL],
        TORCHRUN: [
            *(*torchrun, "--nproc-per-node=1", "--max-restarts=1000000"),
            *(str(SCRIPT), str(pipe), TORCHRUN),
        ],
        OURS: [SUPERVISE, "--state-dir", state, "run", str(files[OURS])],
        WATCHED: [
            *(sys.executable, "-m", "benchmarks.watched_run"),
            *(state, str(files[WATCHED]), str(pipe)),
        ],
    }


@contextmanager
def running(name: str, command: list[str], reports: Reports) -> Iterator[Contestant]:
    """The contestant with its script alive; both are gone when the block ends."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        one = Contestant(name, process)
        try:
            one.pid, _ = reports.next_of(name)
            yield one
        except Silent as error:
            if error.args == (name,):
                output.seek(0)
                said = output.read()[-SAID_BYTES:].decode(errors="replace")
                sys.exit(f"restart: no script of '{name}' in {FIRST_LINE_LIMIT_S:.0f} s:\n{said}")
            raise
        finally:
            process.terminate()
            try:
                process.wait(END_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if name in (SHELL, TORCHRUN) and one.pid:  # theirs may outlive them
                with suppress(ProcessLookupError):
                    os.kill(one.pid, signal.SIGKILL)


def start_by_hand(pipe: Path, reports: Reports) -> float:
    """Milliseconds from asking for the script to its first line."""
    time.sleep(SETTLE_S)
    asked_ns = time.monotonic_ns()
    command = [sys.executable, str(SCRIPT), str(pipe), BY_HAND]
    with subprocess.Popen(command, start_new_session=True) as process:
        _, born_ns = reports.next_of(BY_HAND)
        process.kill()
    return (born_ns - asked_ns) / NS_PER_MS


def restart(one: Contestant, reports: Reports) -> int:
    """Kill its script, wait for the next one; the instant of the kill in ns."""
    time.sleep(SETTLE_S)
    reports.forget("WorkerExited")
    killed_ns = time.monotonic_ns()
    os.kill(one.pid, signal.SIGKILL)
    one.pid, born_ns = reports.next_of(one.name)
    one.took_ms.append((born_ns - killed_ns) / NS_PER_MS)
    return killed_ns


def exit_seen_ns(reports: Reports) -> int:
    """When the exit just inflicted was in the journal."""
    return reports.next_of("WorkerExited")[1]


def one_fsync(path: Path) -> float:
    """Milliseconds to make two pages durable: nobody's journal can be quicker than that."""
    with path.open("ab", buffering=0) as file:
        started_ns = time.monotonic_ns()
        file.write(bytes(PAGES_BYTES))
        os.fsync(file.fileno())
        return (time.monotonic_ns() - started_ns) / NS_PER_MS


def _race(name: str, took: list[float], by_hand: list[float]) -> Figure:
    spread, hand = Spread.of(took), Spread.of(by_hand)
    what = "start" if name == BY_HAND else "death"
    limit = hand.median + ALLOWED_MS if name in (OURS, WATCHED) else None
    ratio = spread.median / hand.median
    note = f"p95 {spread.high:.1f}, the first {took[0]:.1f}"
    return Figure(f"{name}: {what} -> first line", spread.median, "ms", limit, ratio, BY_HAND, note)


def _detection(detected: list[float], synced: list[float]) -> Figure:
    seen, sync = Spread.of(detected), Spread.of(synced)
    note = f"p95 {seen.high:.1f}; one fsync {sync.median:.2f}, p95 {sync.high:.1f}"
    ratio = seen.median / sync.median
    return Figure("death -> journaled", seen.median, "ms", DETECTION_MS, ratio, "one fsync", note)


if __name__ == "__main__":
    main()
