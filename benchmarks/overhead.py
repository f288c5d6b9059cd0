"""What supervision costs a real training: the digits, with `supervise` and without, in turn.

Pairs of runs, the order changing from pair to pair. What counts is the median of the pairs' ratios;
the ratio of the two fastest runs stands beside it, because noise only ever adds. Three views: the
training loop's own clock, the whole command from the shell's side, and the processor time of all
its processes.
"""

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.figures import Figure, Spread, arguments, show

DIGITS = Path(__file__).parent.parent / "examples" / "digits"
SUPERVISE = str(Path(sys.executable).with_name("supervise"))
EPOCHS, QUICK_EPOCHS = 60, 6
PAIRS, QUICK_PAIRS = 12, 2
LIMIT = 1.01
LAST_LINE = re.compile(rb"step (\d+)/\1 .* ([\d.]+) it/s")


@dataclass(frozen=True, slots=True)
class Took:
    """One training, in seconds: its loop, the whole command, the processor time of the tree."""

    loop_s: float
    whole_s: float
    cpu_s: float


def main() -> None:
    """Measure and tell."""
    given = arguments(__doc__)
    epochs = QUICK_EPOCHS if given.quick else EPOCHS
    pairs = QUICK_PAIRS if given.quick else PAIRS
    plain: list[Took] = []
    supervised: list[Took] = []
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
        unsupervised_run(home(folder, "warm-up"), 1)  # page cache, bytecode
        for number in range(pairs):
            turns = [(unsupervised_run, plain), (supervised_run, supervised)]
            for run, results in turns[:: 1 if number % 2 == 0 else -1]:
                results.append(run(home(folder, f"{run.__name__}-{number}"), epochs))
    figures = figures_of(plain, supervised)
    show(f"overhead ({pairs} pairs of {epochs} epochs)", figures, as_json=given.json)


def home(folder: str, name: str) -> Path:
    """A folder of its own with the example in it."""
    path = Path(folder) / name
    path.mkdir()
    for file in ("train.py", "job.yaml"):
        shutil.copy(DIGITS / file, path)
    return path


def unsupervised_run(where: Path, epochs: int) -> Took:
    """As one would start it by hand, output in a file."""
    log = where / "log"
    command = [sys.executable, "-u", "train.py", "--epochs", str(epochs), "--out", "out"]
    whole_s, cpu_s = timed(command, log)
    return Took(loop_seconds(log), whole_s, cpu_s)


def supervised_run(where: Path, epochs: int) -> Took:
    """The same training as a job, from the command line to its farewell."""
    state = where / "state"
    command = [SUPERVISE, "--state-dir", str(state), "run", "--plain", "job.yaml"]
    whole_s, cpu_s = timed([*command, "-p", f"epochs={epochs}"], where / "farewell")
    (log,) = state.glob("jobs/*/attempts/1/output.log")
    return Took(loop_seconds(log), whole_s, cpu_s)


def timed(command: Sequence[str], output: Path) -> tuple[float, float]:
    """Run it to its end in the folder of `output`: seconds on the wall, and of processors."""
    with output.open("wb") as file:
        started = time.perf_counter()
        # A session of its own, as a supervised worker has: on a busy machine the kernel shares the
        # processors out by session first (autogroup, sched(7)).
        process = subprocess.Popen(
            command, cwd=output.parent, stdout=file, stderr=file, start_new_session=True
        )
        # With its own children, as far as it has waited for them (getrusage(2)).
        _, status, used = os.wait4(process.pid, 0)
        whole_s = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"overhead: {command} ended with {process.returncode}:\n{output.read_text()}")
    return whole_s, used.ru_utime + used.ru_stime


def loop_seconds(log: Path) -> float:
    """How long the training loop took, by its own account: steps and steps a second."""
    found = LAST_LINE.findall(log.read_bytes())
    if not found:
        sys.exit(f"overhead: the training did not say how fast it was; see {log}")
    steps, rate = found[-1]
    return int(steps) / float(rate)


def figures_of(plain: Sequence[Took], supervised: Sequence[Took]) -> list[Figure]:
    """Ratios with their targets, then the fixed price of a start and an end."""
    loop = _ratio("training loop", plain, supervised, lambda took: took.loop_s)
    whole = _ratio("whole command", plain, supervised, lambda took: took.whole_s)
    cpu = _ratio("processor time", plain, supervised, lambda took: took.cpu_s)
    fixed = [
        (ours.whole_s - ours.loop_s) - (theirs.whole_s - theirs.loop_s)
        for ours, theirs in zip(supervised, plain, strict=True)
    ]
    note = "added outside the loop: once for each run, however long"
    start = Figure("start and end", statistics.median(fixed), "s", note=note)
    return [loop, whole, replace(cpu, limit=None), start]


def _ratio(
    name: str, plain: Sequence[Took], supervised: Sequence[Took], part: Callable[[Took], float]
) -> Figure:
    ratios = [part(ours) / part(theirs) for ours, theirs in zip(supervised, plain, strict=True)]
    spread = Spread.of(ratios)
    with_s, without_s = (statistics.median(map(part, one)) for one in (supervised, plain))
    fastest = min(map(part, supervised)) / min(map(part, plain))
    pairs = f"pairs {spread.low:.3f} to {spread.high:.3f}"
    note = f"{with_s:.1f} s / {without_s:.1f} s; {pairs}; fastest {fastest:.3f}"
    return Figure(f"{name}: with / without", spread.median, "", LIMIT, note=note)


if __name__ == "__main__":
    main()
