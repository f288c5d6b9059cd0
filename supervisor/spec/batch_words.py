"""What a batch job will do, in the words of `supervise check`.

Owns the sentences; reads no item.
"""

from collections.abc import Iterator

from supervisor.core.causes import Cause
from supervisor.spec.batch import BatchPlan
from supervisor.spec.batch_sections import Chunks
from supervisor.spec.job import JobSpec
from supervisor.spec.problems import printable
from supervisor.spec.units import write_duration, write_size

_FRESH = {"chunk": "a fresh one for each chunk", "item": "a fresh one for each item"}


def batch_in_words(spec: JobSpec, plan: BatchPlan) -> Iterator[str]:
    """Yield the lines that tell what runs, in which workers, and what comes of it."""
    chunks = spec.chunks or Chunks.model_construct()
    yield f"# runs:          {printable(_calls(spec, plan))}"
    yield f"# workers:       {_workers(spec, chunks)}"
    yield from _lives(chunks)
    yield f"# an item:       {_item(spec, chunks)}"
    if spec.restart.on.get(Cause.CUDA_OOM, _SHRINK) == _SHRINK:
        yield "# CUDA OOM:      the chunk is halved, in a fresh worker"
    yield f"# results:       {printable(str(plan.results))}"
    yield f"# once more:     {_AGAIN}"


_SHRINK = "shrink_chunk"
_AGAIN = "items that are done never run again; new ones, and those of a stopped run, do"


def _calls(spec: JobSpec, plan: BatchPlan) -> str:
    if spec.gradcam is not None:
        return f"{spec.gradcam.method} of {spec.gradcam.model} for each image of {plan.items}"
    if plan.batch is None:
        return f"{plan.entry} for each item of {plan.items}"
    return f"{plan.entry} for lists of up to {plan.batch} items of {plan.items}"


def _workers(spec: JobSpec, chunks: Chunks) -> str:
    several = "" if chunks.parallel == 1 else " at once"
    size = "" if chunks.isolation == "item" else f", in chunks of {_counted(chunks.size, 'item')}"
    gpus = _counted(spec.resources.gpus, "GPU") if spec.resources.gpus else ""
    own = "" if not gpus else f", {'with' if chunks.parallel == 1 else 'each with'} {gpus}"
    return f"{chunks.parallel}{several}{size}{own}, {_warm(spec)}"


def _warm(spec: JobSpec) -> str:
    if isinstance(spec.warm, tuple):
        return f"with {', '.join(spec.warm)} imported ahead" if spec.warm else _COLD
    return "with its modules imported ahead" if spec.warm else _COLD


_COLD = "each started from nothing"


def _lives(chunks: Chunks) -> Iterator[str]:
    if chunks.isolation != "recycle":
        yield f"#                {_FRESH[chunks.isolation]}"
        return
    given = chunks.recycle
    ends = []
    if given.items is not None:
        ends.append(f"after {_counted(given.items, 'item')}")
    if given.age_s is not None:
        ends.append(f"after {write_duration(given.age_s)}")
    if given.host_growth_bytes is not None:
        ends.append(f"when its memory has grown by {write_size(given.host_growth_bytes)}")
    if given.gpu_growth_bytes is not None:
        ends.append(f"when its GPU memory has grown by {write_size(given.gpu_growth_bytes)}")
    told = ", or ".join(ends)
    what = f"a worker is replaced {told}" if told else "a worker is kept to the end"
    yield f"#                {what}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _item(spec: JobSpec, chunks: Chunks) -> str:
    item_s, chunk_s = spec.timeouts.item_s, spec.timeouts.chunk_s
    limits = [] if item_s is None else [f"takes at most {write_duration(item_s)}"]
    limits += [] if chunk_s is None else [f"its whole chunk at most {write_duration(chunk_s)}"]
    then = "set aside for a person" if chunks.poison == "quarantine" else "the end of the job"
    failed = f"one that fails is tried once more, alone; failing again, it is {then}"
    return "; ".join([*limits, failed])
