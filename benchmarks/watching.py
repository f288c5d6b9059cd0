"""What watching one job costs: the processor time of its runner and all helpers of that.

Workers that do next to nothing, watched all at once: one that talks and saves, one that is silent,
one that is so for longer than its heartbeat and therefore looked at closely, alone and as a tree of
64, and one on eight GPUs with 64 processes on them (of a fake driver: what NVML itself takes on a
real one is not in the figure). What was used by helpers that have ended counts too.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.figures import Figure, arguments, show
from benchmarks.footprint import START_LIMIT_S, Usage, started, supervise
from tests.fake_nvml.driver import GIB, VARIABLE, NvmlDriver, build, compiler

HERE = Path(__file__).parent
WINDOW_S, QUICK_WINDOW_S = 30.0, 8.0
HEARTBEAT_S = 30.0
WARM_UP_S = HEARTBEAT_S / 2 + 2  # from half of its deadline on a silent worker is looked at closely
JOB_PERCENT, GPU_PERCENT = 0.5, 1.0
GPUS, PROCESSES = 8, 64


@dataclass(frozen=True, slots=True)
class Case:
    """A job whose watching is measured: the words behind `python`, and what its job.yaml adds."""

    name: str
    worker: tuple[str, ...]
    limit_percent: float | None = JOB_PERCENT
    heartbeat_s: float | None = None
    gpus: int = 0


STEADY, QUIET = str(HERE / "steady.py"), str(HERE / "quiet.py")
CASES = (
    Case("talks and saves", (STEADY, "out")),
    Case("silent", (QUIET, "0", "silent")),
    Case("looked at closely", (QUIET, "0", "reads"), heartbeat_s=HEARTBEAT_S),
    Case(
        f"looked at closely, {PROCESSES} processes",
        (QUIET, f"{PROCESSES - 1}", "reads"),
        limit_percent=None,
        heartbeat_s=HEARTBEAT_S,
    ),
)
GPU_CASE = Case(
    f"{GPUS} GPUs, {PROCESSES} processes on them",
    (QUIET, f"{PROCESSES - 1}", "talks"),
    limit_percent=GPU_PERCENT,
    gpus=GPUS,
)


@dataclass(frozen=True, slots=True)
class Watched:
    """A case under way."""

    case: Case
    runner: int
    worker: int

    def processor_s(self) -> float:
        """What the runner and its helpers have used so far, the ended ones included.

        A helper that is reaped moves into its parent's account of children; the worker lives on.
        """
        try:
            runner, worker = psutil.Process(self.runner), psutil.Process(self.worker)
        except psutil.NoSuchProcess as error:
            sys.exit(f"watching: {self.case.name}: process {error.pid} is gone")
        excluded = {worker.pid, *(one.pid for one in worker.children(recursive=True))}
        helpers = [one for one in runner.children(recursive=True) if one.pid not in excluded]
        return sum(map(_account_s, [runner, *helpers]))


def _account_s(process: psutil.Process) -> float:
    try:
        reaped = process.cpu_times()
        own_s = Usage.of(process.pid).cpu_s
    except (psutil.NoSuchProcess, OSError):
        return 0.0  # it ended just now: its parent has it
    return own_s + float(reaped.children_user + reaped.children_system)


def main() -> None:
    """Measure and tell."""
    given = arguments(__doc__)
    window_s = QUICK_WINDOW_S if given.quick else WINDOW_S
    with tempfile.TemporaryDirectory(prefix="watching-") as name, ExitStack() as stack:
        folder = Path(name)
        watched = [begun(case, folder, stack) for case in CASES]
        if compiler() is None:
            print("watching: no C compiler, so no fake driver: no GPUs watched", file=sys.stderr)
        else:
            watched.append(begun_on_gpus(folder, stack))
        figures = observed(watched, window_s)
    show(f"watching one job (window {window_s:.0f} s)", figures, as_json=given.json)


def begun(case: Case, folder: Path, stack: ExitStack, *environment: str) -> Watched:
    """The job under way until the stack is unwound; `environment` is NAME=VALUE each."""
    name = f"job-{len(list(folder.glob('job-*')))}"
    home = folder / name
    home.mkdir()
    job: dict[str, object] = {"name": name, "command": [sys.executable, *case.worker]}
    if STEADY in case.worker:
        job["checkpoint"] = {"dir": "out", "glob": "ckpt-*.pt"}
        job["resume"] = {"argv": ["{path}"]}
    if case.heartbeat_s is not None:
        job["timeouts"] = {"heartbeat": case.heartbeat_s}
    if case.gpus:
        job["resources"] = {"gpus": case.gpus}
    (home / "job.yaml").write_text(json.dumps(job), encoding="utf-8")
    leases = f"SUPERVISE_LEASE_DIR={folder / 'leases'}"
    command = ["env", leases, *environment, *supervise(folder), "run", str(home / "job.yaml")]
    runner = stack.enter_context(started(command))
    return Watched(case, runner, _worker(folder, name))


def begun_on_gpus(folder: Path, stack: ExitStack) -> Watched:
    """The same on GPUs of a fake driver, on which the worker's processes then appear."""
    library = folder / "library"
    library.mkdir()
    path = os.pathsep.join(filter(None, [str(build(library)), os.environ.get("LD_LIBRARY_PATH")]))
    driver = NvmlDriver(folder / "driver")
    uuids = [driver.add_gpu() for _ in range(GPUS)]
    settings = (f"LD_LIBRARY_PATH={path}", f"{VARIABLE}={driver.path}")
    watched = begun(GPU_CASE, folder, stack, *settings)
    (pids,) = folder.glob(f"job-{len(CASES)}/pids.txt")
    for number, pid in enumerate(map(int, pids.read_text(encoding="ascii").split())):
        driver.add_process(uuids[number % GPUS], pid, GIB)
    return watched


def _worker(folder: Path, name: str) -> int:
    """The worker's main process, once it is at work."""
    ready = (folder / name / "pids.txt", folder / name / "out")
    deadline = time.monotonic() + START_LIMIT_S
    while not any(path.exists() for path in ready):
        if time.monotonic() > deadline:
            sys.exit(f"watching: the worker of {name} did not start within {START_LIMIT_S:.0f} s")
        time.sleep(0.1)
    asked = [*supervise(folder), "show", name, "--json"]
    told = subprocess.run(asked, check=True, stdout=subprocess.PIPE)
    return int(json.loads(told.stdout)["attempts"][-1]["pid"])


def observed(watched: list[Watched], window_s: float) -> list[Figure]:
    """Share of one core over the window, of all of them at once."""
    time.sleep(WARM_UP_S)
    before = [(time.monotonic(), one.processor_s()) for one in watched]
    time.sleep(window_s)
    figures = []
    for one, (since, earlier_s) in zip(watched, before, strict=True):
        used_s = one.processor_s() - earlier_s
        percent = 100 * used_s / (time.monotonic() - since)
        limit = one.case.limit_percent
        figures.append(Figure(f"{one.case.name}: one core", percent, "%", limit))
    return figures


if __name__ == "__main__":
    main()
