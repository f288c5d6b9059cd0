"""From the death of a trainer to its next training step: ours, and torchrun's, on one script.

Both train the digits' network at the same easy pace with a checkpoint on disk every so many steps,
ours also with a snapshot in memory, and are killed in turn with SIGKILL. What loading the state
takes is measured here, and taken off. The parts are what the worker itself wrote down, and of ours
the journal. Ends only what it started, or what that started.
"""

import importlib.util
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.exact.lives import ENDLESS, Life, Lives, Silent
from benchmarks.exact.training import SupervisedTraining
from benchmarks.figures import Figure, Spread, arguments, show
from benchmarks.sessions import session

TICKING = Path(__file__).parent / "exact/ticking.py"
ROUNDS, QUICK_ROUNDS = 20, 4
ALLOWED_MS = 150.0
PACE_S = 0.02
SAVE_EVERY = 50
SETTLE_S = 2.0  # a checkpoint is saved by then, and what is started ahead is ready
BIRTH_LIMIT_S = 90.0
LOADS = 9
MS = 1000.0
OURS, TORCHRUN = "supervise", "torchrun"
STATIONS = ("imported", "built", "ready", "step")


@dataclass
class Contestant:
    """One training that is killed and comes back."""

    name: str
    lives: Lives
    killed_s: list[float] = field(default_factory=list)  # monotonic; of life 0, 1, ...

    def kill(self) -> None:
        """Wait for the newest life to be under way, and end it."""
        born = self.lives.trains(len(self.killed_s), BIRTH_LIMIT_S)
        time.sleep(SETTLE_S)
        self.killed_s.append(time.monotonic())
        with suppress(ProcessLookupError):
            os.kill(born.pid, signal.SIGKILL)

    def reborn(self) -> list[Life]:
        """The life after each kill, the last one too."""
        number = len(self.killed_s)
        self.lives.trains(number, BIRTH_LIMIT_S)
        return self.lives.all[1 : number + 1]

    def took_ms(self, station: str) -> list[float]:
        """From each death until the next life was there."""
        pairs = zip(self.killed_s, self.reborn(), strict=True)
        return [(reached(life, station) - killed_s) * MS for killed_s, life in pairs]


def main() -> None:
    """Measure and tell."""
    given = arguments(__doc__)
    rounds = QUICK_ROUNDS if given.quick else ROUNDS
    with tempfile.TemporaryDirectory(prefix="train-restart-") as folder:
        figures = measured(Path(folder), rounds)
    show(f"train_restart ({rounds} rounds, medians)", figures, as_json=given.json)


def measured(folder: Path, rounds: int) -> list[Figure]:
    """All figures."""
    with ExitStack() as stack:
        job = SupervisedTraining(folder / OURS, [TICKING], job_of())
        stack.enter_context(job)
        stack.enter_context(by_torchrun(folder / TORCHRUN))
        job.start()
        racing = [Contestant(name, Lives(folder / name / "ticks")) for name in (OURS, TORCHRUN)]
        try:
            for _ in range(rounds):
                for one in racing:
                    one.kill()
            ours, torchrun = (one.took_ms("step") for one in racing)
        except Silent as error:
            sys.exit(f"train_restart: {error}\n{said(folder, job)}")
        parts = list(parts_of(racing[0], job.events()))
    load_ms = loading_ms(folder / OURS)  # now that nobody saves there any more
    theirs = racing[1].took_ms("imported"), torchrun
    return told(Spread.of(ours), load_ms, parts, theirs)


def job_of() -> dict[str, object]:
    """job.yaml of ours."""
    return {
        "train": {
            "entry": "ticking:build",
            "args": {"pace_s": PACE_S},
            "steps": ENDLESS,
            "device": "cpu",
            "snapshot": "1s",
            "save": {"every": None, "steps": SAVE_EVERY, "keep": 2},
        },
        "warm": True,
        "env": {"OMP_NUM_THREADS": "1"},
        "timeouts": {"startup": "2m", "heartbeat": "1m", "stop": "20s"},
        "restart": {"budget": 1000, "backoff": {"initial": 0}},
    }


@contextmanager
def by_torchrun(folder: Path) -> Iterator[None]:
    """The same script under torchrun, which restarts what dies; gone with all of it at the end."""
    folder.mkdir()
    script = folder / TICKING.name
    script.write_bytes(TICKING.read_bytes())
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [
        *(*torchrun, "--nproc-per-node", "1", "--max-restarts", "1000"),
        *(str(script), str(PACE_S), str(SAVE_EVERY), str(ENDLESS)),
    ]
    env = os.environ | {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    with ExitStack() as stack:
        output = stack.enter_context((folder / "said").open("wb"))
        stack.enter_context(workers_of(folder))
        stack.enter_context(session(command, output.fileno(), cwd=folder, env=env))
        yield


@contextmanager
def workers_of(folder: Path) -> Iterator[None]:
    """End the last worker too: torchrun gives each a session of its own, and may leave it."""
    yield
    lives = Lives(folder / "ticks").look()
    with suppress(ProcessLookupError, IndexError):
        os.kill(lives[-1].pid, signal.SIGKILL)


def reached(life: Life, station: str) -> float:
    """When a life was there, monotonic."""
    return life.steps[0] if station == "step" else life.stations[station]


def parts_of(one: Contestant, events: list[dict[str, Any]]) -> Iterator[tuple[str, float]]:
    """Median milliseconds of each stretch between death and first step of our lives."""
    wall_minus_monotonic_s = time.time() - time.monotonic()
    journal = {
        kind: [
            datetime.fromisoformat(event["at"]).timestamp() - wall_minus_monotonic_s
            for event in events
            if event["kind"] == kind
        ]
        for kind in ("WorkerExited", "AttemptSpawned")
    }
    lives = one.reborn()
    marks: list[tuple[str, list[float]]] = [
        ("death", one.killed_s),
        ("its exit is in the journal", journal["WorkerExited"][: len(lives)]),
        ("the next worker is forked", journal["AttemptSpawned"][1 : len(lives) + 1]),
        *((station, [reached(life, station) for life in lives]) for station in STATIONS),
    ]
    for (before, earlier), (after, later) in pairwise(marks):
        taken = [(b - a) * MS for a, b in zip(earlier, later, strict=True)]
        yield f"{before} -> {after}", statistics.median(taken)


def loading_ms(folder: Path) -> float:
    """Milliseconds to load the newest checkpoint into the same network and optimizer, warm."""
    import torch  # noqa: PLC0415 - not before the others have ended

    newest = max((folder / "out/checkpoints").glob("step-*")) / "state.pt"
    pieces = built(folder)
    taken = [one_load(newest, pieces, torch.load) for _ in range(LOADS)]
    return statistics.median(taken)


def built(folder: Path) -> Any:  # noqa: ANN401 - of workers.train
    """The pieces of ticking.py, as a module of its own."""
    here = Path.cwd()
    os.chdir(folder)  # it opens its notes where it is
    try:
        spec = importlib.util.spec_from_file_location("ticking", folder / TICKING.name)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.build()
    finally:
        os.chdir(here)


def one_load(file: Path, pieces: Any, load: Callable[..., Any]) -> float:  # noqa: ANN401 - as above
    """Milliseconds for one."""
    began_s = time.monotonic()
    state = load(file, map_location="cpu", weights_only=True)
    pieces.model.load_state_dict(state["model"])
    pieces.optimizer.load_state_dict(state["optimizer"])
    return (time.monotonic() - began_s) * MS


def told(
    ours: Spread, load_ms: float, parts: list[tuple[str, float]], theirs: tuple[list[float], ...]
) -> list[Figure]:
    """As figures."""
    imported, stepped = (Spread.of(times) for times in theirs)
    return [
        Figure("torchrun: death -> next step", stepped.median, "ms", note=_range(stepped)),
        Figure("  of it, death -> script imported", imported.median, "ms", note=_range(imported)),
        Figure(
            "supervise: death -> next step",
            ours.median,
            "ms",
            ratio=ours.median / stepped.median,
            beside=TORCHRUN,
            note=_range(ours),
        ),
        *(Figure(f"  {name}", taken, "ms") for name, taken in parts),
        Figure("loading the state, by itself", load_ms, "ms"),
        Figure("supervise: beyond loading", ours.median - load_ms, "ms", limit=ALLOWED_MS),
    ]


def _range(spread: Spread) -> str:
    return f"p5 {spread.low:.0f}, p95 {spread.high:.0f}"


def said(folder: Path, job: SupervisedTraining) -> str:
    """What both said."""
    theirs = (folder / TORCHRUN / "said").read_text(errors="replace")[-3000:]
    return f"{job.explained()}\n--- torchrun\n{theirs}"


if __name__ == "__main__":
    main()
