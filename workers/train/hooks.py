"""What may happen around the steps of a training: the base of every hook, and how a run ended.

Owns the moments and their order. Never calls a method that is not overridden. Invariant: the hooks
of one moment are called in the order of the list, after_train for every way of ending.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from workers.train.loop import Trainer

FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"
EXIT_CODES = {FINISHED: 0, STOPPED: 75, FAILED: 1}


class Outcome(NamedTuple):
    """How a training ended: `finished`, `stopped` (and can go on) or `failed`, after `step`."""

    word: str
    step: int
    total: int
    error: BaseException | None = None
    is_main: bool = True

    @property
    def exit_code(self) -> int:
        """What the process exits with: 0, 75 or 1.

        Only the main rank's says `stopped`: a launcher of ranks takes any other code than 0 for a
        failure, and would end the ranks that are still saving.
        """
        return EXIT_CODES[self.word] if self.is_main or self.word == FAILED else 0


class Hook:
    """Something done around the steps of a training; every method may be overridden.

    A step is one change of the weights, from one or more batches. Every rank has its own hooks, and
    all ranks call them in the same order, so a hook may use collectives.
    """

    def before_train(self, trainer: Trainer) -> None:
        """Act before the first step of this process, after a checkpoint was loaded."""

    def before_step(self, trainer: Trainer) -> None:
        """Act before the batches of a step are fetched. Called often: keep it short."""

    def after_backward(self, trainer: Trainer) -> None:
        """Act on the gradients: they are complete, averaged over ranks, and not scaled."""

    def after_step(self, trainer: Trainer) -> None:
        """Act after the weights changed; `trainer.step` counts this step already."""

    def after_train(self, trainer: Trainer, outcome: Outcome) -> None:
        """Act once, however the training ended; what is raised here is an error of the training."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold of it: plain values and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned in an earlier process."""


def overriding(hooks: Sequence[Hook], name: str) -> tuple[Callable[..., Any], ...]:
    """Return the methods of this name that do something, in order."""
    plain = getattr(Hook, name)
    return tuple(
        getattr(hook, name) for hook in hooks if getattr(type(hook), name, plain) is not plain
    )


def named(hooks: Sequence[Hook]) -> dict[str, Hook]:
    """Return each hook under a name of its own: its class, and which of that class it is."""
    found: dict[str, Hook] = {}
    seen: dict[str, int] = {}
    for hook in hooks:
        kind = f"{type(hook).__module__}.{type(hook).__qualname__}"
        count = seen.get(kind, 0)
        seen[kind] = count + 1
        found[f"{kind}#{count}"] = hook
    return found
