"""Grad-CAM over a folder of photographs: what isolation costs, ours beside everybody's.

A ResNet-18 by hand, 224 x 224 pixels, one thread, the processor alone. Every contestant runs the
same GradCam over the same photographs and writes a picture and an array for each; only the handling
of processes differs. `whole` is the command from the shell's side, its start included; `steady` is
from the first chunk on, by the times of the pictures written. Medians of the rounds; in each round
the contestants run one after the other.
"""

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import arguments
from benchmarks.photographs import write_photographs
from benchmarks.sessions import session, wait_for
from benchmarks.supervised import Failed, Job
from benchmarks.table import Promise, Table, ratio, show

ROOT = Path(__file__).parent.parent
RESNET = ROOT / "examples" / "gradcam" / "resnet.py"
FIELDS = {"model": "resnet:build", "device": "cpu"}
CHUNK = 2
IMAGES, QUICK_IMAGES = 200, 40
SPAWNED_IMAGES, QUICK_SPAWNED_IMAGES = 30, 6  # two seconds each
ROUNDS, QUICK_ROUNDS = 3, 1
LIMIT_S = 600.0
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
NS_PER_S = 1e9
# Not by -m: what a forkserver has loaded must be the same module, not one called __main__.
PEER_CODE = "import sys; from benchmarks.peers import gradcam; gradcam.main(*sys.argv[1:])"

SPAWN, POOL, PEBBLE, LOOP = "spawn", "pool", "pebble", "loop"
CHUNKED, RECYCLED = "chunk", "recycle"
WORDS = {
    SPAWN: "the origin's: a process by spawn for every 2",
    POOL: "mp.Pool, 1 task a child, forkserver, preloaded",
    PEBBLE: "pebble, 1 task a child, forkserver, preloaded",
    LOOP: "one long-lived process, not isolated",
    CHUNKED: "supervise, a fresh child for every 2",
    RECYCLED: "supervise, recycled on growth (default)",
}


@dataclass(frozen=True, slots=True)
class Rate:
    """Images a second: over the whole command, and after the first chunk."""

    whole: float
    steady: float


def main() -> int:
    """Measure and tell; 1 if an image was left out."""
    given = arguments(__doc__)
    images = QUICK_IMAGES if given.quick else IMAGES
    spawned = QUICK_SPAWNED_IMAGES if given.quick else SPAWNED_IMAGES
    rounds = QUICK_ROUNDS if given.quick else ROUNDS
    measured: dict[str, list[Rate]] = {name: [] for name in WORDS}
    broken = []
    with tempfile.TemporaryDirectory(prefix="gradcam-batch-") as folder:
        photos = Path(folder) / "photos"
        write_photographs(photos, images)
        for number in range(rounds):
            for name, words in WORDS.items():
                where = home(Path(folder) / f"{name}-{number}", photos)
                count = spawned if name == SPAWN else images
                try:
                    measured[name].append(CONTESTANTS[name](name, where, count))
                except Failed as error:
                    broken.append(name)
                    print(f"gradcam_batch: {words}: {error}", file=sys.stderr)
    rates = {name: middle(of) for name, of in measured.items() if of}
    title = f"gradcam_batch ({images} images, {rounds} rounds, {SPAWN}: {spawned} images)"
    show(title, [table(rates)], promises(rates), as_json=given.json)
    return int(bool(broken))


def home(folder: Path, photos: Path) -> Path:
    """A folder of its own with the model and the photographs in it."""
    folder.mkdir()
    shutil.copy(RESNET, folder)
    (folder / "photos").symlink_to(photos)
    (folder / "fields.json").write_text(json.dumps(FIELDS), encoding="ascii")
    return folder


def beside(name: str, folder: Path, count: int) -> Rate:
    """What a peer makes of it.

    Raises:
        Failed: it did not explain all of them.
    """
    command = [sys.executable, "-c", PEER_CODE, name, str(count), str(CHUNK)]
    path = os.pathsep.join([str(folder), str(ROOT)])  # a forkserver finds modules by this alone
    env = os.environ | ONE_THREAD | {"PYTHONPATH": path}
    began_s = time.monotonic()
    with (folder / "said").open("w+b") as said:
        with session(command, said, cwd=folder, env=env) as leader:
            wait_for(leader, LIMIT_S)
            whole_s = time.monotonic() - began_s
        said.seek(0)
        return rate(folder, count, whole_s, said.read().decode(errors="replace"))


def supervise(name: str, folder: Path, count: int) -> Rate:
    """What a job makes of it, with this isolation.

    Raises:
        Failed: it did not explain all of them.
    """
    fields = {
        "gradcam": {**FIELDS, "images": "photos/*.jpg", "out": "out"},
        "chunks": {"isolation": name, **({"size": CHUNK} if name == CHUNKED else {})},
        "env": ONE_THREAD,
    }
    with Job(folder, fields) as job:
        ended = job.run(LIMIT_S)
        return rate(folder, count, ended.wall_s, job.said())


CONTESTANTS: dict[str, Callable[[str, Path, int], Rate]] = {
    **dict.fromkeys((SPAWN, POOL, PEBBLE, LOOP), beside),
    **dict.fromkeys((CHUNKED, RECYCLED), supervise),
}


def rate(folder: Path, count: int, whole_s: float, said: str) -> Rate:
    """Images a second, by the clock and by the files."""
    written_ns = sorted(file.stat().st_mtime_ns for file in folder.glob("out/**/*.npy"))
    if len(written_ns) != count:
        raise Failed(f"{len(written_ns)} of {count} images:\n{said}")
    steady_s = (written_ns[-1] - written_ns[CHUNK - 1]) / NS_PER_S
    return Rate(count / whole_s, (count - CHUNK) / steady_s)


def middle(rates: list[Rate]) -> Rate:
    """The medians of the rounds."""
    return Rate(
        statistics.median(one.whole for one in rates),
        statistics.median(one.steady for one in rates),
    )


def table(rates: dict[str, Rate]) -> Table:
    """All who finished, against the origin's method."""
    first = rates.get(SPAWN, Rate(0.0, 0.0))
    rows = [
        (WORDS[name], one.whole, ratio(one.whole, first.whole), one.steady)
        for name, one in rates.items()
    ]
    return Table("", ("images/s", "whole", "x the origin's", "steady"), rows)


def promises(rates: dict[str, Rate]) -> list[Promise]:
    """The three ratios, of whole commands and of the steady state."""
    asked = ((CHUNKED, SPAWN, 10.0), (CHUNKED, POOL, 2.0), (RECYCLED, LOOP, 0.9))
    judged = []
    for ours, theirs, least in asked:
        pair = (rates.get(ours), rates.get(theirs))
        whole, steady = (
            ratio(*(None if one is None else getattr(one, kind) for one in pair))
            for kind in ("whole", "steady")
        )
        note = "" if steady is None else f"steady {steady:.2f}"
        judged.append(Promise(f"supervise {ours} / {theirs}", whole, "x", least=least, note=note))
    return judged


if __name__ == "__main__":
    sys.exit(main())
