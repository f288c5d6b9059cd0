"""A training script that costs nothing, and `supervise` as a person starts it."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.batch_jobs import Batch
from tests.e2e.reader import Reader

READER = Reader()
SUPERVISE = str(Path(sys.executable).with_name("supervise"))

# Loaded by the interpreter of `supervise`, and by none of its workers.
SHORTENED = """
import sys
from importlib import import_module
if sys.argv and sys.argv[0].endswith("supervise"):
    for place, value in {constants!r}.items():
        module, _, name = place.rpartition(".")
        assert hasattr(import_module(module), name), place
        setattr(import_module(module), name, value)
"""

# Trains nothing, but as a real script does: progress lines, checkpoints (archives with checksums,
# as torch writes them) through a temporary name, --resume. It notes what it began from, and fails
# when it is not the only one.
STEPS = """
import argparse, fcntl, json, os, threading, zipfile
alone = open("alone.lock", "w")
fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises where another worker of the job lives
parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=10)
parser.add_argument("--pause", type=float, default=0.02)
parser.add_argument("--resume")
args = parser.parse_args()
os.makedirs("out", exist_ok=True)
step = 0
if args.resume:
    with zipfile.ZipFile(args.resume) as archive:
        assert archive.testzip() is None, "resumed from a torn checkpoint"
        step = int(archive.read("archive/data.pkl"))
with open("began.jsonl", "a") as began:
    began.write(json.dumps({"pid": os.getpid(), "step": step}) + chr(10))
pause = threading.Event()
while step < args.steps:
    pause.wait(args.pause)
    step += 1
    print(f"step {step}/{args.steps} loss {1 / step:.4f}", flush=True)
    path = f"out/ckpt-{step}.pt"
    with zipfile.ZipFile(path + ".tmp", "w") as archive:
        archive.writestr("archive/data.pkl", str(step))
        archive.writestr("archive/version", "3")
        archive.writestr("archive/data/0", b"x" * 20000)
    os.replace(path + ".tmp", path)
open("out/DONE", "w").close()
"""


@dataclass
class Job:
    """A job in a folder of its own, and the commands a person would give."""

    folder: Path
    state_dir: Path
    spec: dict[str, Any] = field(default_factory=dict)
    runs: list[subprocess.Popen[str]] = field(default_factory=list)
    twins: list["Job"] = field(default_factory=list)

    def write(self, **changes: Any) -> None:
        """Write job.yaml; JSON is YAML."""
        self.spec |= changes
        kept = {key: value for key, value in self.spec.items() if value is not None}
        (self.folder / "job.yaml").write_text(json.dumps(kept, indent=1))

    def twin(self, name: str) -> "Job":
        """The same job once more, in a folder and with a state folder of its own."""
        folder = self.folder.with_name(name)
        shutil.copytree(self.folder, folder)
        one = Job(folder, folder / "state", dict(self.spec))
        self.twins.append(one)
        return one

    def command(self) -> list[str]:
        """`supervise` with this job's state folder."""
        return [SUPERVISE, "--state-dir", str(self.state_dir)]

    def start(self, *options: str) -> subprocess.Popen[str]:
        """`supervise run` in the background."""
        run = subprocess.Popen(
            [*self.command(), "run", "job.yaml", *options],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.runs.append(run)
        return run

    def run(self, *options: str, timeout_s: float = 60) -> tuple[int, str]:
        """`supervise run` to its end: exit code, and all that it printed."""
        run = self.start(*options)
        output, _ = run.communicate(timeout=timeout_s)
        assert "Traceback" not in output, output
        return run.returncode, output

    def ask(self, *words: str) -> str:
        """Another verb's output."""
        asked = [*self.command(), *words]
        return subprocess.run(
            asked, cwd=self.folder, check=True, capture_output=True, text=True
        ).stdout

    def read(self, *words: str) -> Any:
        """What a reading verb says to a program, without the time that its start takes."""
        return json.loads(READER.ask(["--state-dir", str(self.state_dir), *words, "--json"]))

    def show(self, name: str = "steps") -> dict[str, Any]:
        """`supervise show --json`."""
        shown: dict[str, Any] = self.read("show", name)
        return shown

    def listed(self) -> list[dict[str, Any]]:
        """`supervise ps --json`, also before there is a journal."""
        there = (self.state_dir / "journal.sqlite").exists()
        jobs: list[dict[str, Any]] = self.read("ps") if there else []
        return jobs

    def events(self, name: str = "steps") -> list[dict[str, Any]]:
        """The journal of a job, oldest first."""
        said = READER.ask(["--state-dir", str(self.state_dir), "events", name, "--json"])
        return [json.loads(line) for line in said.splitlines()]

    def leased(self, name: str = "steps") -> list[list[str]]:
        """The GPUs of each attempt, as the journal has them."""
        return [one["fields"]["gpus"] for one in self.events(name) if one["kind"] == "GpusLeased"]

    def why(self, name: str = "steps") -> str:
        """Why a job is where it is, as `ps` says it."""
        return next((one["why"] or "" for one in self.listed() if one["name"] == name), "")

    def stop(self, run: subprocess.Popen[str]) -> str:
        """Stop a run as Ctrl-C does, and what it printed."""
        run.send_signal(signal.SIGINT)
        output, _ = run.communicate(timeout=30)
        assert "Traceback" not in output, output
        return output

    def attempts(self) -> list[dict[str, Any]]:
        """The attempts of the job so far."""
        return self.show()["attempts"] if self.listed() else []

    def causes(self) -> list[str]:
        """Why each attempt ended."""
        return [one["cause"] for one in self.attempts()]

    def began(self) -> list[int]:
        """The step that each worker began from, as the workers themselves noted it."""
        lines = (self.folder / "began.jsonl").read_text().splitlines()
        return [json.loads(line)["step"] for line in lines]

    def worker(self) -> int | None:
        """The pid of the running worker."""
        attempts = self.attempts()
        return attempts[-1]["pid"] if attempts and not attempts[-1]["ended_at"] else None

    def saved(self, step: int) -> bool:
        """Whether the script has saved this step."""
        return (self.folder / f"out/ckpt-{step}.pt").exists()

    def clean_up(self) -> None:
        """End what a failed test left running, by pid."""
        for twin in self.twins:
            twin.clean_up()
        for run in self.runs:
            if run.poll() is None:
                run.send_signal(signal.SIGKILL)
                run.wait()
            if run.stdout is not None:
                run.stdout.close()


@pytest.fixture(scope="module", autouse=True)
def _reader_ends() -> Iterator[None]:
    """Leave no interpreter behind for tests that count processes."""
    yield
    READER.close()


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    """Ten quick steps with checkpoints, restarted at once when they fail."""
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "steps.py").write_text(STEPS)
    made = Job(folder, tmp_path / "state")
    made.write(
        name="steps",
        command=["python", "steps.py"],
        checkpoint={"dir": "out", "glob": "ckpt-*.pt"},
        resume={"argv": ["--resume", "{path}"]},
        restart={"backoff": {"initial": 0}},
        done={"file": "out/DONE"},
        timeouts={"stop": 5},
    )
    yield made
    made.clean_up()


@pytest.fixture
def shortened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give a way to shorten waits that are constants of the supervisor, by their full names.

    For what ends only when the wait is over, and would end the same way later.
    """

    def shorten(constants: dict[str, float]) -> None:
        folder = tmp_path / "shortened"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(SHORTENED.format(constants=constants))
        monkeypatch.setenv("PYTHONPATH", str(folder))

    return shorten


@pytest.fixture
def looks_often(shortened: Callable[..., None]) -> None:
    """Let runners look at their GPUs, or for a free one, more often than every two seconds."""
    places = ("gpu_watch.LOOK_S", "gpus.LOOK_AGAIN_S")
    shortened({f"supervisor.runner.{place}": 0.5 for place in places})


@pytest.fixture
def alive() -> Callable[[int], bool]:
    """Tell whether a process exists and is more than a zombie."""

    def is_alive(pid: int) -> bool:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return False
        return stat.rpartition(")")[2].split()[0] not in "ZX"

    return is_alive


@pytest.fixture
def batch(job: Job) -> Batch:
    """Ten numbers to square, four at a time."""
    return Batch(job)
