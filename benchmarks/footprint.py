"""What a runner takes while its worker trains: memory, processor time; and how quick the verbs are.

Three runners of the same job at once (piped, on a terminal with the live view, detached with its
job already frozen) beside torchrun's agent; then one that trains the digits for real. Processor
time is the process's own clock over the whole window, all threads, nothing sampled.
"""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Figure, arguments, show
from benchmarks.verb_times import verb_figures

HERE = Path(__file__).parent
WORKER = HERE / "steady.py"
DIGITS = HERE.parent / "examples" / "digits"
SUPERVISE = str(Path(sys.executable).with_name("supervise"))
WINDOW_S, QUICK_WINDOW_S = 30.0, 6.0
WARM_UP_S = 8.0  # until the first checkpoints were found and verified
VERB_ROUNDS, QUICK_VERB_ROUNDS = 25, 5
START_LIMIT_S, END_LIMIT_S = 60.0, 20.0
FOREGROUND_MB, DETACHED_MB, CORE_PERCENT = 60.0, 45.0, 0.3
KB_PER_MB = 1000.0 / 1.024  # /proc says kB and means KiB
CPUCLOCK_SCHED = 2  # linux/posix-timers.h: what clock_getcpuclockid(3) returns ends in it

JOB = """\
name: {name}
command: [{python}, {worker}, {out}]
checkpoint: {{dir: {out}, glob: ckpt-*.pt, keep: 3}}
resume: {{mode: none}}
"""
EPOCHS = 100_000  # longer than anybody looks


@dataclass(frozen=True, slots=True)
class Usage:
    """One process: memory in MB (10^6 bytes), now and at most; processor time since its start."""

    rss_mb: float
    peak_mb: float
    cpu_s: float

    @classmethod
    def of(cls, pid: int) -> "Usage":
        """What it uses now."""
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        lines = dict(line.split(":", 1) for line in status.splitlines())
        rss_mb, peak_mb = (int(lines[key].split()[0]) / KB_PER_MB for key in ("VmRSS", "VmHWM"))
        return cls(rss_mb, peak_mb, time.clock_gettime((~pid << 3) | CPUCLOCK_SCHED))


@dataclass(frozen=True, slots=True)
class Case:
    """A supervisor under observation, and the targets it has."""

    name: str
    pid: int
    limit_mb: float | None = None
    limit_percent: float | None = None


def main() -> None:
    """Measure and tell."""
    given = arguments(__doc__)
    window_s = QUICK_WINDOW_S if given.quick else WINDOW_S
    with tempfile.TemporaryDirectory(prefix="footprint-") as name:
        folder = Path(name)
        figures = steady(folder, window_s) + digits(folder, window_s)
        rounds = QUICK_VERB_ROUNDS if given.quick else VERB_ROUNDS
        command = supervise(folder)
        figures += verb_figures(command, str(folder / "digits" / "job.yaml"), rounds)
    show(f"footprint (window {window_s:.0f} s)", figures, as_json=given.json)


def supervise(folder: Path) -> list[str]:
    """The program, with the state folder of this benchmark."""
    return [SUPERVISE, "--state-dir", str(folder / "state")]


def steady(folder: Path, window_s: float) -> list[Figure]:
    """Runners of a worker that does nothing but talk and save."""
    run = [*supervise(folder), "run"]
    detached = accepted(folder, job_file(folder, "detached"))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc-per-node=1", str(WORKER), str(folder / "torchrun")]
    with ExitStack() as stack:
        piped = stack.enter_context(started([*run, str(job_file(folder, "piped"))]))
        live = stack.enter_context(on_terminal([*run, str(job_file(folder, "live"))]))
        away = stack.enter_context(started(detached))
        peer = stack.enter_context(started(torchrun))
        for name in ("piped", "live", "detached", "torchrun"):
            wait_for_checkpoint(folder / name)
        cases = [
            Case("runner, piped", piped, FOREGROUND_MB, CORE_PERCENT),
            Case("runner, live view", live, FOREGROUND_MB, CORE_PERCENT),
            Case("runner, detached", away, DETACHED_MB, CORE_PERCENT),
            Case("torchrun", peer),
        ]
        return observed(cases, window_s)


def digits(folder: Path, window_s: float) -> list[Figure]:
    """A runner of a real training."""
    home = folder / "digits"
    home.mkdir()
    for name in ("train.py", "job.yaml"):
        shutil.copy(DIGITS / name, home)
    file = home / "job.yaml"
    file.write_text(file.read_text().replace("max: 10000,", f"max: {EPOCHS},"))
    with on_terminal([*supervise(folder), "run", str(file), "-p", f"epochs={EPOCHS}"]) as pid:
        wait_for_checkpoint(home / "out")
        case = Case("runner, digits, live", pid, FOREGROUND_MB, CORE_PERCENT)
        return observed([case], window_s)


def job_file(folder: Path, name: str) -> Path:
    """A job of its own folder that runs the steady worker."""
    path = folder / f"{name}-job" / "job.yaml"
    path.parent.mkdir()
    facts = {"name": name, "python": sys.executable, "worker": WORKER.resolve()}
    path.write_text(JOB.format(**facts, out=folder / name))
    return path


def accepted(folder: Path, file: Path) -> list[str]:
    """The command of a detached runner, for a job that a first run has accepted and left."""
    with started([*supervise(folder), "run", str(file)]):
        wait_for_checkpoint(folder / file.parent.name.removesuffix("-job"))
    listed = subprocess.run(
        [*supervise(folder), "ps", "--json"], check=True, stdout=subprocess.PIPE
    )
    (job,) = json.loads(listed.stdout)
    module = [sys.executable, "-m", "supervisor.runner"]
    return [*module, "--state-dir", str(folder / "state"), job["id"]]


def wait_for_checkpoint(folder: Path) -> None:
    """Return when the worker has saved for the first time."""
    deadline = time.monotonic() + START_LIMIT_S
    while not any(folder.glob("ckpt-*.pt")):
        if time.monotonic() > deadline:
            sys.exit(f"footprint: no checkpoint in {folder} after {START_LIMIT_S:.0f} s")
        time.sleep(0.1)


def observed(cases: list[Case], window_s: float) -> list[Figure]:
    """Memory at the end of the window and processor time over it, of all cases at once."""
    time.sleep(WARM_UP_S)
    before = {case.pid: (time.monotonic(), Usage.of(case.pid)) for case in cases}
    time.sleep(window_s)
    figures = []
    for case in cases:
        now, after = time.monotonic(), Usage.of(case.pid)
        since, earlier = before[case.pid]
        percent = 100 * (after.cpu_s - earlier.cpu_s) / (now - since)
        peak = f"peak {after.peak_mb:.1f}"
        figures += [
            Figure(f"{case.name}: RSS", after.rss_mb, "MB", case.limit_mb, note=peak),
            Figure(f"{case.name}: one core", percent, "%", case.limit_percent),
        ]
    return figures


@contextmanager
def started(command: list[str]) -> Iterator[int]:
    """The command in the background, its output in a file; stopped gracefully at the end."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        with ended(process):
            yield process.pid


@contextmanager
def on_terminal(command: list[str]) -> Iterator[int]:
    """The command on a terminal of its own, whose screen is read and thrown away."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    )
    os.close(theirs)
    screen = threading.Thread(target=_drain, args=(ours,), daemon=True)
    screen.start()
    with ended(process):
        yield process.pid
    screen.join()
    os.close(ours)


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Nothing of it is left when the block ends."""
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _drain(fd: int) -> None:
    with suppress(OSError):  # EIO: the last one that had the terminal open is gone
        while os.read(fd, 1 << 16):
            pass


if __name__ == "__main__":
    main()
