"""Slow phases that read and write files."""

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benchmarks.corpus.signs import WORKING_S, note, say, turns
from benchmarks.steady import save

BLOCK = 256 << 10
OUT = Path("out")


def checkpoint() -> None:
    """Writes a checkpoint slowly, under its temporary name, where the job has its checkpoints."""
    OUT.mkdir(exist_ok=True)
    _write_slowly(OUT / "ckpt-4.pt.tmp")


def checkpoint_elsewhere() -> None:
    """Writes a checkpoint slowly, in a folder that job.yaml does not mention."""
    _write_slowly(Path("unmentioned.tmp"))


def checkpoint_by_child() -> None:
    """Has a child process write the checkpoint slowly, and waits for it."""
    child = get_context("fork").Process(target=checkpoint_elsewhere)
    child.start()
    child.join()


def _write_slowly(path: Path) -> None:
    with path.open("wb") as file:
        for _ in turns(WORKING_S, every_s=0.1):
            file.write(os.urandom(BLOCK))
            file.flush()


def quiet_saves() -> None:
    """Says nothing at all; only small checkpoints appear, and it is idle in between."""
    OUT.mkdir(exist_ok=True)
    for number in turns(WORKING_S, every_s=2.0):
        save(OUT / f"ckpt-{number}.pt")
        note()


def preprocessing() -> None:
    """Reads a data set, changes it, writes it."""
    source = _source()
    with source.open("rb") as reading, Path("prepared.bin").open("wb") as writing:
        for _ in turns(WORKING_S, every_s=0.05):
            if not (block := reading.read(BLOCK)):
                reading.seek(0)
                writing.seek(0)
            writing.write(block.swapcase())


def copy_to_disk() -> None:
    """Copies past the page cache: each block is on the disk before the next one is read."""
    reading = os.open(_source(), os.O_RDONLY)
    writing = os.open("copied.bin", os.O_WRONLY | os.O_CREAT, 0o600)
    for number in turns(WORKING_S, every_s=0.1):
        at = number * BLOCK % (16 * BLOCK)
        os.pwrite(writing, os.pread(reading, BLOCK, at), at)
        os.fsync(writing)
        for fd in (reading, writing):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def loaders() -> None:
    """Two data loaders read and decode; the main process waits, idle."""
    source = _source()
    children = [get_context("fork").Process(target=_decode, args=(source,)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()


def thread_pool() -> None:
    """The main thread waits for threads that read and decode."""
    source = _source()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(_decode, [source, source]))


def late_flush() -> None:
    """Goes through its batches, but what it prints lies in a buffer until it is full."""
    _decode(_source())
    say("".join(f"validated batch {number}\n" for number in range(90)), end="")


def slow_start() -> None:
    """Reads a data set before the very first line."""
    _decode(_source())


def _decode(source: Path) -> None:
    with source.open("rb", buffering=0) as file:
        for number in turns(WORKING_S, every_s=0.1):
            file.seek(number % 16 * BLOCK)
            hashlib.sha256(file.read(BLOCK)).digest()


def dead_mount() -> None:
    """Is stuck in the kernel, in uninterruptible sleep, until a file server answers.

    A spawning process sleeps so until its child has opened its files; here one is a FIFO.
    """
    os.mkfifo("server")
    answer = get_context("fork").Process(target=_answer)
    answer.start()
    opening = (os.POSIX_SPAWN_OPEN, 0, "server", os.O_RDONLY, 0)
    child = os.posix_spawn("/bin/true", ["true"], {}, file_actions=[opening])
    os.waitpid(child, 0)
    answer.join()


def _answer() -> None:
    time.sleep(WORKING_S)
    Path("server").write_bytes(b"")


def _source() -> Path:
    path = Path("data.bin")
    path.write_bytes(os.urandom(16 * BLOCK))
    return path
