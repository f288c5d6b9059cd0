"""What a job takes while it runs: the folders it writes to, and its share of the host.

Owns both answers; looks at no file and leases nothing. The queue decides by them who may start.
Invariant: two jobs that write to one folder have a claim in common.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from supervisor.spec.batch import batch_of
from supervisor.spec.job import JobSpec
from supervisor.spec.paths import resolve
from supervisor.spec.places import Where
from supervisor.spec.train import train_of

_CPUS = 1  # of a job that does not say how many; it may use all, and needs one


def claims(spec: JobSpec) -> tuple[str, ...]:
    """Return the absolute folders the job writes to: checkpoints, train.out, a batch job's out.

    As the job file names them: links are not followed.
    """
    return tuple(dict.fromkeys(str(folder) for _, folder in claimed(spec)))


def claimed(spec: JobSpec) -> Iterator[tuple[Where, Path]]:
    """Yield each folder the job writes to, after the field that names it."""
    if (train := train_of(spec)) is not None:
        yield ("train", "out"), train.out
    if (checkpoints := resolve(spec).checkpoints) is not None:
        # Of a training job they follow from `out`, and nobody can name them apart.
        yield ("train", "out") if train else ("checkpoint", "dir"), checkpoints
    if (batch := batch_of(spec)) is not None:
        yield ("map" if spec.map else "gradcam", "out"), batch.out


def needs(spec: JobSpec) -> Mapping[str, int | bool | None]:
    """Return gpus, gpu_memory_bytes (of each GPU), share_gpu, cpus and memory_bytes of a job.

    Of a batch job for all its workers together, as each of them holds `gpus` and may use `memory`.
    None: it did not say.
    """
    wanted = spec.resources
    is_batch = batch_of(spec) is not None
    workers = spec.chunks.parallel if is_batch and spec.chunks else 1
    memory = wanted.memory_bytes
    return {
        "gpus": wanted.gpus * workers,
        "gpu_memory_bytes": wanted.gpu_memory_bytes,
        "share_gpu": wanted.share_gpu,
        "cpus": wanted.cpus or _CPUS,
        "memory_bytes": None if memory is None else memory * workers,
    }
