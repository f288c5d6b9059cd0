"""The view of a run where there is no terminal: plain lines, one event each.

Owns their form: time, job, sentence. Flushed at once, for whoever reads the pipe.
"""

import time

import click

from supervisor.core.amounts import seconds, size
from supervisor.core.events import AttemptSpawned, Event
from supervisor.core.state import JobState
from supervisor.runner.listener import BatchSnapshot, GpuUsage, Snapshot
from supervisor.runner.words import sentence
from supervisor.watch.progress import Progress

PROGRESS_EVERY_S = 30.0


def progress_words(progress: Progress) -> str:
    """`step 540/2700, epoch 12/60, loss 0.1234`, as far as it is known."""
    parts = []
    if progress.step is not None:
        parts.append(f"step {progress.step}" + (f"/{progress.total}" if progress.total else ""))
    if progress.epoch is not None:
        whole = f"/{progress.epochs:g}" if progress.epochs else ""
        parts.append(f"epoch {progress.epoch:g}{whole}")
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.4g}")
    return ", ".join(parts)


def gpu_words(usage: GpuUsage) -> str:
    """`GPU 12.3 GiB 97 %`, as far as it is known."""
    used = "" if usage.used_bytes is None else size(usage.used_bytes)
    load = "" if usage.utilization is None else f"{usage.utilization:.0f} %"
    return " ".join(["GPU", *filter(None, (used, load))]) if used or load else ""


class LineView:
    """A listener that prints."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._next_progress_at = 0.0
        self._gpus = GpuUsage()

    def saw(self, event: Event, state: JobState) -> None:
        """Print the event's sentence, if it has one."""
        if isinstance(event, AttemptSpawned):
            self._gpus = GpuUsage()  # what another worker used is history
        words = self._sentence(event, state)
        if words:
            self._print(words)

    def progressed(self, snapshot: Snapshot) -> None:
        """Print how far it is, now and then."""
        now = time.monotonic()
        words = progress_words(snapshot.progress)
        if words and now >= self._next_progress_at:
            self._next_progress_at = now + PROGRESS_EVERY_S
            eta = "" if snapshot.eta_s is None else f"{seconds(snapshot.eta_s)} left"
            self._print(", ".join(filter(None, (words, gpu_words(self._gpus), eta))))

    def batch_progressed(self, snapshot: BatchSnapshot) -> None:
        """Nothing: a batch job has a view of its own."""

    def gpus_used(self, usage: GpuUsage) -> None:
        """Keep it for the next line of progress."""
        self._gpus = usage

    def warned(self, text: str) -> None:
        """Print the warning."""
        self._print(f"warning: {text}")

    def _sentence(self, event: Event, state: JobState) -> str | None:
        return sentence(event, state)

    def _print(self, words: str) -> None:
        at = time.strftime("%H:%M:%S")
        for line in words.splitlines():
            click.echo(f"{at} {self._name}: {line}")
