"""A training script on a real GPU: steps, checkpoints, --resume, and one way to go wrong.

Runs beside a copy of benchmarks/cuda.py, as a job's worker. It goes wrong at step `--at` of its
first life only; resumed, it goes on to the end. Fails when it is not the only one of its job.
"""

import argparse
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import cuda  # the copy beside this script

NEVER = threading.Event()


def main() -> int:
    """Train."""
    given = arguments()
    alone = Path("alone.lock").open("w")  # noqa: SIM115 -- held as long as the process lives
    fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    gpu = cuda.Cuda()
    step = 0 if given.resume is None else restored(given.resume)
    note("began.jsonl", pid=os.getpid(), step=step, **seen(gpu))
    if given.hold:
        gpu.allocate(given.hold)
    while step < given.steps:
        NEVER.wait(given.pause)
        step += 1
        say(f"step {step}/{given.steps} loss {1 / step:.4f}")
        save(step)
        if asked.is_set():
            say("asked to leave, and saved")
            return 0
        if step == given.at and given.resume is None:
            note("wrong.jsonl", at_s=time.time())
            WRONG[given.wrong](gpu, given.bytes)
    Path("out/DONE").touch()
    return 0


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--pause", type=float, default=0.1)
    parser.add_argument("--hold", type=int, default=0)
    parser.add_argument("--wrong", choices=WRONG)
    parser.add_argument("--at", type=int)
    parser.add_argument("--bytes", type=int, default=0)
    parser.add_argument("--resume")
    return parser.parse_args()


def seen(gpu: cuda.Cuda) -> dict[str, Any]:
    """The GPU as the worker has it, before it took anything but a context."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {
        "uuid": gpu.uuid,
        "count": gpu.count,
        "free_bytes": gpu.free_bytes(),
        "visible": visible,
    }


def grow(gpu: cuda.Cuda, count_bytes: int) -> None:
    """Take more memory, and go on."""
    gpu.allocate(count_bytes)


def leak(_gpu: cuda.Cuda, count_bytes: int) -> None:
    """Leave a process behind that has its own session and keeps memory; then die."""
    command = [sys.executable, "cuda.py", str(count_bytes), "--for", "300"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
    ) as left:
        assert left.stdout is not None
        left.stdout.readline()
        note("left.jsonl", pid=left.pid)
        os._exit(1)


def idle(_gpu: cuda.Cuda, _bytes: int) -> None:
    """Keep a context, and do nothing any more."""
    NEVER.wait()


def spin(gpu: cuda.Cuda, _bytes: int) -> None:
    """Wait for a kernel that waits for ever: a collective that nobody else joins."""
    gpu.spin()
    gpu.wait()


WRONG = {"grow": grow, "leak": leak, "idle": idle, "spin": spin}


def restored(path: str) -> int:
    """The step of a checkpoint."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None, "resumed from a torn checkpoint"
        return int(archive.read("archive/data.pkl"))


def save(step: int) -> None:
    """Write a checkpoint as torch does: an archive with checksums, under its name when whole."""
    path = Path(f"out/ckpt-{step}.pt")
    path.parent.mkdir(exist_ok=True)
    new = path.with_suffix(".tmp")
    with zipfile.ZipFile(new, "w") as archive:
        archive.writestr("archive/data.pkl", str(step))
        archive.writestr("archive/version", "3")
        archive.writestr("archive/data/0", b"x" * 20000)
    new.replace(path)


def note(name: str, **fields: Any) -> None:
    """Tell the test."""
    with Path(name).open("a") as file:
        file.write(json.dumps(fields) + "\n")


def say(line: str) -> None:
    """Print, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
