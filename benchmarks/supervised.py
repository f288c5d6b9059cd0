"""A batch job run as a person runs it: `supervise run job.yaml` in a folder of its own.

Owns that folder, the command and its end; looks at the runner from outside only, through /proc and
through the files that it writes. Ends only what it started. Invariant: when a `Job` is left, its
runner has ended.
"""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

ITEMS_MODULE = Path(__file__).with_name("batch_items.py")
SAID_BYTES = 4000
LOOK_EVERY_S = 0.02
END_LIMIT_S = 20.0
KIB = 1024
ENDS = (0, 3)  # all done; some items need a person


class Failed(Exception):
    """The job did not end as it should; says what it said."""


@dataclass(frozen=True, slots=True)
class Ended:
    """One end of a runner: exit code (negative: the signal), seconds on the wall, its own use."""

    code: int
    wall_s: float
    cpu_s: float
    peak_rss_bytes: int


class Job:
    """A job named `bench` in `folder`, with the functions of batch_items.py beside it."""

    def __init__(self, folder: Path, fields: Mapping[str, object]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.out = folder / "out"
        self.state_dir = folder / "state"
        self.process: subprocess.Popen[bytes] | None = None
        self.started_s = 0.0  # monotonic
        self._peak_bytes, self._cpu_s = 0, 0.0
        shutil.copy(ITEMS_MODULE, folder)
        text = json.dumps({"name": "bench", "python": sys.executable, **fields}, indent=2)
        (folder / "job.yaml").write_text(text, encoding="utf-8")  # JSON is YAML

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def start(self) -> subprocess.Popen[bytes]:
        """The runner, just started. Its own session: the kernel shares out by session first."""
        with (self.folder / "said").open("ab") as said:
            self.started_s = time.monotonic()
            self.process = subprocess.Popen(
                [*self._supervise("run"), "--plain", "job.yaml"],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        self._peak_bytes, self._cpu_s = 0, 0.0
        return self.process

    def poll(self) -> Ended | None:
        """The end of the runner, if it has come; looks at its memory on the way."""
        assert self.process is not None
        self._peak_bytes = max(self._peak_bytes, peak_rss_bytes(self.process.pid))
        self._cpu_s = max(self._cpu_s, cpu_seconds(self.process.pid))
        code = self.process.poll()
        if code is None:
            return None
        return Ended(code, time.monotonic() - self.started_s, self._cpu_s, self._peak_bytes)

    def wait(self, limit_s: float) -> Ended:
        """The end of the runner.

        Raises:
            Failed: it had not come after `limit_s`.
        """
        deadline = time.monotonic() + limit_s
        while (ended := self.poll()) is None:
            if time.monotonic() > deadline:
                self.end()
                raise Failed(f"the job did not end in {limit_s:.0f} s:\n{self.said()}")
            time.sleep(LOOK_EVERY_S)
        return ended

    def run(self, limit_s: float) -> Ended:
        """From the command to its end.

        Raises:
            Failed: it took longer than `limit_s`, or ended neither done nor with items set aside.
        """
        self.start()
        ended = self.wait(limit_s)
        if ended.code not in ENDS:
            raise Failed(f"the job ended with {ended.code}:\n{self.said()}")
        return ended

    def end(self) -> None:
        """Stop the runner if it lives: its workers die with it."""
        if self.process is None or self.process.poll() is not None:
            return
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGKILL):
            with suppress(ProcessLookupError):
                self.process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(END_LIMIT_S / 2)
                return

    def said(self) -> str:
        """The end of what it printed."""
        data = (self.folder / "said").read_bytes()
        return data[-SAID_BYTES:].decode(errors="replace")

    def ask(self, *verb: str) -> list[dict[str, Any]]:
        """What a reading verb answers with --json: one document, or one a line."""
        command = [*self._supervise(*verb), "--json"]
        done = subprocess.run(command, cwd=self.folder, stdout=subprocess.PIPE, check=True)
        try:
            return [json.loads(done.stdout)]
        except json.JSONDecodeError:
            return [json.loads(line) for line in done.stdout.splitlines()]

    def results(self) -> Iterator[dict[str, Any]]:
        """The lines of results.jsonl, as they stand there."""
        return _lines(self.out / "results.jsonl")

    def quarantined(self) -> list[dict[str, Any]]:
        """The lines of quarantine.jsonl."""
        return list(_lines(self.out / "quarantine.jsonl"))

    def _supervise(self, *arguments: str) -> list[str]:
        state = ["--state-dir", str(self.state_dir)]
        return [sys.executable, "-m", "supervisor", *state, *arguments]


def peak_rss_bytes(pid: int) -> int:
    """Most memory that this process ever had resident; 0 when it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * KIB
    return 0


def cpu_seconds(pid: int) -> float:
    """Processor time of this process alone so far; 0 when it has ended."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
