"""Grad-CAM over photographs, by one way to handle processes: `METHOD IMAGES CHUNK`.

Owns how each peer is asked. Runs in a folder with `photos/`, the model's module and `fields.json`,
the settings of GradCam. The work is our own GradCam, so that only the handling of processes
differs.
"""

import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pebble
import torch

from workers.gradcam import GradCam

LIMIT_S = 120.0
PRELOADED = ["torch", "workers.gradcam", "resnet", "benchmarks.peers.gradcam"]
LOADED_IN = os.getpid()

Chunks = Iterator[list[str]]


def work(images: list[str]) -> int:
    """What a fresh process does: build the model, then explain each image."""
    torch.set_num_threads(1)
    cam = GradCam(**json.loads(Path("fields.json").read_text(encoding="ascii")))
    return len([cam(image) for image in images])


def preloaded(images: list[str]) -> int:
    """The same where torch and this module were loaded before the process was forked."""
    if os.getppid() != LOADED_IN:  # an import that fails there is silently done again here
        raise RuntimeError("the forkserver did not load what it was told to load")
    return work(images)


def answer(images: list[str], into: Connection) -> None:
    """Say how many were done."""
    into.send(work(images))


def spawned(chunks: Chunks) -> int:
    """A fresh process for every chunk, and a limit for each: the method of the origin."""
    context = multiprocessing.get_context("spawn")
    done = 0
    for images in chunks:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=answer, args=(images, theirs))
        process.start()
        theirs.close()
        if ours.poll(LIMIT_S):
            done += ours.recv()
        else:
            process.kill()
        process.join()
    return done


def pool(chunks: Chunks) -> int:
    """multiprocessing.Pool, forkserver with everything loaded, one chunk a child."""
    with _forkserver().Pool(1, maxtasksperchild=1) as workers:
        return sum(workers.imap_unordered(preloaded, chunks))


def pebble_pool(chunks: Chunks) -> int:
    """Pebble, the same, and a limit for each chunk."""
    with pebble.ProcessPool(1, max_tasks=1, context=_forkserver()) as workers:
        asked = [
            workers.schedule(preloaded, args=[images], timeout=LIMIT_S) for images in list(chunks)
        ]
        return sum(one.result() for one in asked)


def loop(chunks: Chunks) -> int:
    """One long-lived process, nothing isolated."""
    return work([image for images in chunks for image in images])


METHODS: dict[str, Callable[[Chunks], int]] = {
    "spawn": spawned,
    "pool": pool,
    "pebble": pebble_pool,
    "loop": loop,
}


def _forkserver() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def main(method: str, count: str, chunk: str) -> None:
    """Explain so many photos; an error if one is left over."""
    images = sorted(map(str, Path("photos").iterdir()))[: int(count)]
    chunks = (images[at : at + int(chunk)] for at in range(0, len(images), int(chunk)))
    done = METHODS[method](chunks)
    if done != len(images):
        sys.exit(f"{method}: {done} of {len(images)} images")
