"""The training loop: batches in, changed weights out, hooks around.

Owns the step, the place in the data and the order in which things happen. Never waits for the
device, and decides nothing that a hook could. Invariant: between two steps, `state()` is all that
the rest of the training depends on.
"""

from __future__ import annotations

import traceback
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn

from workers import session
from workers.train import ready
from workers.train.data import Batches, Samples
from workers.train.errors import TrainingError
from workers.train.hooks import FAILED, FINISHED, STOPPED, Hook, Outcome, overriding
from workers.train.order import Draw, Order
from workers.train.parallel import without_sync, wrapped_of
from workers.train.pieces import Pieces, optimizer_of
from workers.train.precision import autocast_of, device_of, scaler_of
from workers.train.randomness import RANK, mixed, seed_all, untouched
from workers.train.ranks import Ranks
from workers.train.resume import load_into, state_of
from workers.train.signals import Signals
from workers.train.tensors import check_loss, moved, scalar, unpacked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from workers.train.plan import Plan


class Agreed(NamedTuple):
    """What every rank does at this boundary."""

    snapshot: bool = False
    save: bool = False
    stop: bool = False


BITS = {"snapshot": 1, "save": 2, "stop": 4}
AGREED = tuple(Agreed(bool(bits & 1), bool(bits & 2), bool(bits & 4)) for bits in range(8))


class Trainer:
    """One training in this process, which is one of `ranks`. Hooks read and change what is public.

    With several ranks all of them construct it together. Raises TrainingError for pieces that do
    not fit.
    """

    def __init__(
        self,
        plan: Plan,
        pieces: Pieces,
        ranks: Ranks | None = None,
        hooks: Sequence[Hook] | None = None,
    ) -> None:
        self.plan = plan
        self.pieces = pieces
        self.ranks = ranks or Ranks()
        self.device = device_of(plan.device, self.ranks)
        self.model: nn.Module = pieces.model.to(self.device)
        self.optimizer = optimizer_of(pieces, plan.entry)
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.wrapped = wrapped_of(self.model, plan, self.ranks, self.device)
        self.scaler = scaler_of(plan.precision, self.device)
        self.order = _order_of(plan, pieces, self.ranks)
        self.steps_per_epoch = self.order.steps()
        self.step, self.epoch, self.samples = 0, 0, 0
        self.total = self.planned_total()
        self.indices: list[int] = []
        self.metrics: dict[str, Tensor] = {}
        self.latest: dict[str, float] = {}
        self.evaluation: dict[str, float] | None = None
        self.evaluation_step: int | None = None
        self.agreed = Agreed()
        self._asked = 0
        self._autocast = autocast_of(plan.precision, self.device)
        self._sizes: set[int] = set()  # of batches that a step was taken with
        self._signals = Signals()
        self._ended = False
        pin = self.device.type == "cuda" if plan.loader.pin is None else plan.loader.pin
        self._batches = Batches(Samples(pieces, plan.seed), plan.loader, pin=pin)
        # Ranks that drew the same numbers would drop out the same units.
        seed_all(mixed(plan.seed, RANK, self.ranks.rank))
        self.hooks = list(ready.hooks_of(self) if hooks is None else hooks)
        self._before_step = overriding(self.hooks, "before_step")
        self._after_backward = overriding(self.hooks, "after_backward")
        self._after_step = overriding(self.hooks, "after_step")

    def ask(self, word: str) -> None:
        """Have all ranks do it, `snapshot`, `save` or `stop`, at this or the next boundary.

        What the main rank asks counts.
        """
        self._asked |= BITS[word]

    def state(self) -> dict[str, Any] | None:
        """Return all that the rest of the training depends on: live tensors and plain values.

        All ranks must come here; all but the main one get None.
        """
        return state_of(self)

    def load(self, saved: Mapping[str, Any], where: str = "the checkpoint") -> None:
        """Go on from what `state` returned. Raises Mismatch where it is of another training."""
        load_into(self, saved, where)

    def planned_total(self) -> int:
        """Return at how many steps the training ends, counted from where it is now."""
        if self.plan.steps is not None:
            return self.plan.steps
        epochs_left = (self.plan.epochs or 0) - self.epoch
        if epochs_left <= 0:
            return self.step
        here = self.order.steps(self.samples)
        return self.step + here + (epochs_left - 1) * self.steps_per_epoch

    def train(self) -> Outcome:
        """Take the steps that are left, or fewer if asked to stop. Raises what a step raises."""
        ranks = self.ranks
        with self._signals:
            try:
                if not self.model.training:
                    self.wrapped.train()  # else every module keeps the mode it was built with
                # What a beginning draws, and how often a run begins, must not matter.
                with untouched(self.device):
                    # Before any hook starts a thread: the loader forks here.
                    self._batches.start(self.order, self.epoch, self.samples)
                    for act in overriding(self.hooks, "before_train"):
                        act(self)
                self._steps()
                word = FINISHED if self.step >= self.total else STOPPED
                outcome = Outcome(word, self.step, self.total, None, ranks.is_main)
                self._end(outcome)
            except BaseException as error:
                self._end(Outcome(FAILED, self.step, self.total, error, ranks.is_main))
                raise
            finally:
                self._batches.close()
        return outcome

    def _steps(self) -> None:
        while self.step < self.total:
            self._take_step()
            self.step += 1
            asked, self._asked = self._asked, 0
            if self.ranks.is_main and (self._signals.asked or session.stopping):
                asked |= BITS["stop"]
            self.agreed = AGREED[self.ranks.agree(asked)]
            for act in self._after_step:
                act(self)
            if self.agreed.stop:
                return

    def _take_step(self) -> None:
        for act in self._before_step:
            act(self)
        self.optimizer.zero_grad()
        count = min(self.plan.accumulate, self.order.batches(self.samples))
        if count == 1:
            draw, self.metrics = self._gradients(1)
            self.indices = draw.indices
        else:
            draw = self._accumulated(count)
        if self.scaler is None:
            for act in self._after_backward:
                act(self)
            self.optimizer.step()
        else:
            self.scaler.unscale_(self.optimizer)
            for act in self._after_backward:
                act(self)
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.samples = draw.samples
        if not self.order.batches(self.samples):
            self.epoch, self.samples = self.epoch + 1, 0

    def _accumulated(self, count: int) -> Draw:
        """Add up the gradients of several batches; the metrics are their means."""
        self.indices = []
        totals: dict[str, Tensor] = {}
        for number in range(1, count + 1):
            with without_sync(self.wrapped) if number < count else nullcontext():
                draw, metrics = self._gradients(count)
            self.indices += draw.indices
            for name, value in metrics.items():
                share = value / count
                totals[name] = totals[name] + share if name in totals else share
        self.metrics = totals
        return draw

    def _gradients(self, count: int) -> tuple[Draw, dict[str, Tensor]]:
        """Compute the gradients of the next batch, one of `count` in this step."""
        draw, batch = self._batches.next()
        if self.device.type != "cpu":
            batch = moved(batch, self.device)
        size = len(draw.indices)
        if size in self._sizes:
            loss, more = self._loss(batch)
        else:
            # A shape that is new: the first of all is checked, and each may have to be compiled.
            self._sizes.add(size)
            with session.phase("compile") if self.plan.compile else nullcontext():
                loss, more = self._loss(batch)
            check_loss(loss, more, self.plan.entry)
        try:
            part = loss if count == 1 else loss / count
            (part if self.scaler is None else self.scaler.scale(part)).backward()
            metrics = {name: scalar(value, self.device) for name, value in more.items()}
            metrics["loss"] = loss.detach()
        except Exception:
            check_loss(loss, more, self.plan.entry)  # it was of the right form before
            raise
        return draw, metrics

    def _loss(self, batch: Any) -> tuple[Tensor, Mapping[str, Any]]:  # noqa: ANN401 - the user's
        with self._autocast:
            result: Any = self.pieces.loss(self.wrapped, batch)
        return unpacked(result, self.plan.entry) if isinstance(result, tuple) else (result, {})

    def _end(self, outcome: Outcome) -> None:
        """Tell every hook once how it ended. Raises the first error of one, after all were told."""
        if self._ended:
            return
        self._ended = True
        first: BaseException | None = None
        for act in overriding(self.hooks, "after_train"):
            try:
                act(self, outcome)
            except BaseException as error:  # noqa: BLE001 - raised below, or told beside a worse one
                if outcome.error is not None:
                    traceback.print_exception(type(error), error, error.__traceback__)
                first = first or error
                outcome = outcome._replace(word=FAILED, error=outcome.error or error)
        if first is not None and outcome.error is first:
            raise first


def _order_of(plan: Plan, pieces: Pieces, ranks: Ranks) -> Order:
    """Return this rank's. Raises TrainingError where an epoch would have no batch."""
    order = Order(
        length=len(pieces.data),
        batch_size=pieces.batch_size,
        seed=plan.seed,
        rank=ranks.rank,
        ranks=ranks.size,
        shuffle=pieces.shuffle,
        drop_last=pieces.drop_last,
        accumulate=plan.accumulate,
    )
    if not order.batches():
        raise TrainingError(
            f"{plan.entry}: data has {order.length} samples, fewer than the {order.together} of "
            f"one batch, and drop_last leaves such a batch out",
            kind="bad_config",
        )
    return order
