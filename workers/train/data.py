"""Fetches the batches of a training, in this process or in others.

Owns the loader and the seeds of its samples. Never decides which samples come: order.py does.
Invariant: what a sample looks like follows from (seed, epoch, index) alone: not from the number of
loader processes, not from the samples before it, and fetching it moves no generator of the
training.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset, default_collate

from workers.train.errors import TrainingError
from workers.train.randomness import COLLATE, SAMPLE, Aside, mixed, seed_for_sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from workers.train.order import Draw, Order
    from workers.train.pieces import Pieces
    from workers.train.plan import Loader

PR_SET_PDEATHSIG = 1  # prctl(2)
FORK = "fork"
DYING_S = 0.1  # from the end of a process's line to its own


class Samples(Dataset[Any]):
    """A dataset whose index is a Draw and whose sample is the whole batch, collated."""

    def __init__(self, pieces: Pieces, seed: int) -> None:
        self._data: Any = pieces.data
        self._tensors = _tensors(pieces.data)
        self._collate: Callable[[list[Any]], Any] = pieces.collate or default_collate
        self._seed = seed
        self._draws = not (
            self._tensors is not None or getattr(pieces.data, "deterministic", False) is True
        )
        self._collate_draws = pieces.collate is not None
        self._aside = Aside()

    def __getitem__(self, draw: Draw) -> Any:  # noqa: ANN401 - whatever the user's collate makes
        if not (self._draws or self._collate_draws):
            return self._plain(draw)
        with self._aside:
            return self._seeded(draw)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_aside": None}  # for loader processes that are not forked

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._aside = Aside()

    def _plain(self, draw: Draw) -> Any:  # noqa: ANN401 - as above
        if self._tensors is not None:
            # What collating would make of the samples, at a tenth of the price.
            index = _mapped(self._data, draw)
            return [tensor[index] for tensor in self._tensors]
        return self._collate(self._fetched(draw.indices))

    def _fetched(self, indices: list[int]) -> list[Any]:
        if callable(getattr(self._data, "__getitems__", None)):
            return list(self._data.__getitems__(indices))
        return [self._data[index] for index in indices]

    def _seeded(self, draw: Draw) -> Any:  # noqa: ANN401 - as above
        if self._draws:
            base = mixed(self._seed, SAMPLE, draw.epoch)
            samples = []
            for index in draw.indices:
                seed_for_sample(mixed(base, index))
                samples.append(self._data[index])
        else:
            samples = self._fetched(draw.indices)
        if self._collate_draws:
            seed_for_sample(mixed(self._seed, COLLATE, draw.epoch, *draw.indices[:1]))
        return self._collate(samples)


class Batches:
    """The batches from a position on, without end; `close` ends the loader's processes."""

    def __init__(self, samples: Samples, settings: Loader, *, pin: bool) -> None:
        self._samples = samples
        self._settings = settings
        self._pin = pin
        self._draws: deque[Draw] = deque()  # handed to the loader, not yet come back
        self._loaded: Iterator[Any] = iter(())

    def start(self, order: Order, epoch: int, samples: int) -> None:
        """Begin to fetch. The loader's processes are forked here."""
        draws = self._noted(order.draws(epoch, samples))
        if not self._settings.workers and not self._pin:
            self._loaded = map(self._samples.__getitem__, draws)
            return
        workers, method = self._settings.workers, _start_method()
        parent = os.getpid() if method == FORK else None  # another has a server for a parent
        self._loaded = iter(
            DataLoader(
                self._samples,
                sampler=_Endless(draws),
                batch_size=None,
                collate_fn=_as_it_is,
                num_workers=workers,
                pin_memory=self._pin,
                prefetch_factor=self._settings.prefetch if workers else None,
                worker_init_fn=partial(_live_and_die, parent) if workers else None,
                multiprocessing_context=method if workers else None,
                # Making an iterator draws a number: not from the training's generator.
                generator=torch.Generator(),
            )
        )

    def next(self) -> tuple[Draw, Any]:
        """Return the next batch and where it came from. Raises what the dataset raises.

        Raises TrainingError, kind dataloader, where a loader's process is gone.
        """
        try:
            batch = next(self._loaded)
        except (OSError, EOFError) as error:
            for process in _processes(self._loaded):
                process.join(DYING_S)
                if not process.is_alive():
                    raise TrainingError(
                        f"the loader's process {process.pid} ended (exit code {process.exitcode}) "
                        f"while a batch was fetched from it",
                        kind="dataloader",
                    ) from error
            raise
        return self._draws.popleft(), batch

    def close(self) -> None:
        """End the loader's processes, also those that do not listen."""
        loaded: Any = self._loaded
        self._loaded = iter(())
        self._draws.clear()
        # What its __del__ would do; but an error that is being told may hold it until the exit,
        # which waits for the processes.
        shut_down = getattr(loaded, "_shutdown_workers", None)
        if shut_down is not None:
            processes = _processes(loaded)
            with suppress(RuntimeError):  # one of them is dead; that was said already
                shut_down()
            for process in processes:
                if process.is_alive():
                    process.kill()
                process.join()

    def _noted(self, draws: Iterator[Draw]) -> Iterator[Draw]:
        sent = self._settings.workers > 0
        for draw in draws:
            self._draws.append(draw)
            # A tensor would travel through a file of shared memory; a list does not.
            yield draw._replace(places=None) if sent else draw


def _processes(loaded: Any) -> list[Any]:  # noqa: ANN401 - torch's iterator, or another
    return list(getattr(loaded, "_workers", ()))  # there is no public name


class _Endless:
    """An iterator as the loader wants to have it: something to iterate over."""

    def __init__(self, draws: Iterator[Draw]) -> None:
        self._draws = draws

    def __iter__(self) -> Iterator[Draw]:
        return self._draws


def _as_it_is(batch: Any) -> Any:  # noqa: ANN401 - whatever the user's collate made
    return batch


def _live_and_die(parent: int | None, _worker: int) -> None:
    """Outlive one SIGTERM and every SIGINT, and never the training.

    A stop that is asked for by a signal to all needs more batches; the second SIGTERM ends the
    process as usual. A dead training's sockets stay open for as long as a copy of it lives, and the
    other ranks would wait for it; torch looks for its parent every few seconds only.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    with suppress(OSError, AttributeError):  # no Linux
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(1)  # it died before that call


def _start_method() -> str:
    """Return how processes begin: as the user chose, else by fork, whatever Python's default is.

    Anything else would have to pickle the dataset and import torch anew.
    """
    return multiprocessing.get_start_method(allow_none=True) or FORK


def _tensors(data: object) -> tuple[Any, ...] | None:
    """Return the tensors of a dataset that is nothing but tensors, or a part of one."""
    while type(data) is Subset:
        data = data.dataset
    return data.tensors if type(data) is TensorDataset else None


def _mapped(data: Any, draw: Draw) -> torch.Tensor:  # noqa: ANN401 - a dataset
    """Return the samples' places in the tensors."""
    if type(data) is not Subset and draw.places is not None:
        return draw.places
    indices = draw.indices
    while type(data) is Subset:
        indices = [int(data.indices[index]) for index in indices]
        data = data.dataset
    return torch.tensor(indices)
