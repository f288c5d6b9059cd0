"""Slow phases that compute, or have others compute for them."""

import gzip
import hashlib
import mmap
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.corpus.signs import BUSY_S, WORKING_S, turns

MIB = 1 << 20
SOURCE_FUNCTIONS = 250
LITTLE_S = 0.5
SAMPLE_S = 0.3


def key_stretching() -> None:
    """One call into C that computes and returns late, as a solver or a sort does."""
    _in_one_call(lambda rounds: hashlib.pbkdf2_hmac("sha256", b"key", b"salt", rounds), 20_000)


def compression() -> None:
    """One call that compresses a buffer of many megabytes."""
    text = random.Random(1).randbytes(MIB // 2).hex().encode()  # noqa: S311 - no secret
    _in_one_call(lambda copies: gzip.compress(text * copies, 9), 1)


def _in_one_call(work: Callable[[int], object], amount: int) -> None:
    """As much of it as takes `BUSY_S`, in a single call, or in a second where that was quicker.

    How much that is, beside busy neighbours too, is told from small pieces of it; those may have
    been slowed down more than the rest.
    """
    began, done = time.monotonic(), 0
    while (took_s := time.monotonic() - began) < SAMPLE_S:
        work(amount)
        done += amount
    while (left_s := began + BUSY_S - time.monotonic()) > 0:
        work(max(1, round(done * left_s / took_s)))


def evaluation() -> None:
    """Computes without a word, each batch in memory that is fresh from the kernel."""
    ones = b"\1" * MIB
    for _ in turns(WORKING_S):
        with mmap.mmap(-1, MIB) as batch:  # below 2 MiB, so no huge page hides the faults
            batch.write(ones)
            hashlib.sha256(batch).digest()


def gpu_kernels() -> None:
    """Looks again and again, at full speed, whether the GPU is done, as CUDA does by default."""
    for _ in turns(WORKING_S):
        pass


def memory_filling() -> None:
    """Fills memory at 64 MiB/s, as the loading of a model does."""
    block = b"\1" * (8 * MIB)
    memory = mmap.mmap(-1, 128 * MIB)
    for _ in turns(WORKING_S, every_s=0.125):
        if memory.tell() == len(memory):
            memory.close()
            memory = mmap.mmap(-1, 128 * MIB)
        memory.write(block)
    memory.close()


def short_processes() -> None:
    """A build by hundreds of processes that hardly live, none of which says a word."""
    script = "i=0; while [ $i -lt 10 ]; do /bin/true; i=$((i+1)); done"
    for _ in turns(WORKING_S, every_s=0.05):
        subprocess.run(["sh", "-c", script], check=True)


def compiler() -> None:
    """Compiles an extension, file after file, while the main thread waits."""
    body = "double f{0}(double x) {{ for (int i = 0; i < {0}; i++) x = x * i + {0}; return x; }}\n"
    source = Path("extension.c")
    source.write_text("".join(body.format(number) for number in range(SOURCE_FUNCTIONS)))
    for _ in turns(WORKING_S):
        subprocess.run(["cc", "-O2", "-c", str(source), "-o", "extension.o"], check=True)


def little_work() -> None:
    """Computes for half a second; whoever lets it run only now and then makes that long."""
    began = time.process_time()
    while time.process_time() - began < LITTLE_S:
        hashlib.sha256(b"\1" * 4096).digest()
