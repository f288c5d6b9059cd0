"""The loop calls its hooks in order, stops where it is told to, and names what does not fit."""

import os
import signal
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import IterableDataset, TensorDataset

from tests.unit.train.nets import Augmented, Cut, Net, loss, pieces, plain, trainer_of
from workers.train.errors import TrainingError
from workers.train.hooks import Hook, Outcome, overriding
from workers.train.loop import Trainer
from workers.train.pieces import Pieces, pieces_of
from workers.train.plan import Plan
from workers.train.precision import device_of
from workers.train.ranks import Ranks


def plan(**fields: Any) -> Plan:
    """Return a plan of a few steps."""
    return Plan.of({"steps": 3, **fields})


class Witness(Hook):
    """Writes down all moments, under its name."""

    def __init__(self, name: str, told: list[str]) -> None:
        self.name, self.told = name, told

    def before_train(self, trainer: Trainer) -> None:
        """Note it."""
        self.told.append(f"{self.name} before_train {trainer.step}")

    def before_step(self, trainer: Trainer) -> None:
        """Note it."""
        self.told.append(f"{self.name} before_step {trainer.step}")

    def after_backward(self, trainer: Trainer) -> None:
        """Note it."""
        self.told.append(f"{self.name} after_backward {trainer.step}")

    def after_step(self, trainer: Trainer) -> None:
        """Note it."""
        self.told.append(f"{self.name} after_step {trainer.step}")

    def after_train(self, trainer: Trainer, outcome: Outcome) -> None:
        """Note it."""
        del trainer
        self.told.append(f"{self.name} after_train {outcome.word} {outcome.step}")


class Acting(Hook):
    """Does something after a step, or at the end."""

    def __init__(self, step: int, act: Callable[[Trainer], object]) -> None:
        self.step, self.act = step, act

    def after_step(self, trainer: Trainer) -> None:
        """Do it."""
        if trainer.step == self.step:
            self.act(trainer)


class BadEnd(Hook):
    """Fails at the end."""

    def after_train(self, trainer: Trainer, outcome: Outcome) -> None:
        """Fail."""
        del trainer, outcome
        raise OSError(28, "No space left on device")


def test_hooks_are_called_in_the_order_of_the_list() -> None:
    """Every moment of every step, one hook after the other."""
    told: list[str] = []
    trainer_of(plan(steps=1), pieces, [Witness("a", told), Witness("b", told)]).train()
    moments = ["before_train 0", "before_step 0", "after_backward 0", "after_step 1"]
    moments.append("after_train finished 1")
    assert told == [f"{name} {moment}" for moment in moments for name in ("a", "b")]


def test_what_is_not_overridden_is_not_called() -> None:
    """A hook that does nothing in a moment costs nothing there."""
    assert overriding([Hook(), Acting(1, print)], "before_step") == ()
    assert len(overriding([Hook(), Acting(1, print)], "after_step")) == 1


@pytest.mark.parametrize("ask", [lambda trainer: trainer.ask("stop"), lambda _: raise_signal()])
def test_a_stop_ends_at_the_next_boundary(ask: Callable[[Trainer], object]) -> None:
    """Whether a hook asks or a signal comes, no step is cut in half, and every hook is told."""
    told: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    hooks = [Acting(2, ask), Witness("a", told)]
    outcome = trainer_of(plan(steps=9), pieces, hooks).train()
    assert (outcome.word, outcome.step, outcome.exit_code) == ("stopped", 3, 75)
    assert told[-2:] == ["a after_step 3", "a after_train stopped 3"]
    assert signal.getsignal(signal.SIGTERM) is before


def raise_signal() -> None:
    """Have this process get a SIGTERM now."""
    signal.raise_signal(signal.SIGTERM)


def test_a_stop_after_the_last_step_is_a_finish() -> None:
    """There is nothing left to stop."""
    outcome = trainer_of(plan(), pieces, [Acting(2, lambda one: one.ask("stop"))]).train()
    assert (outcome.word, outcome.exit_code) == ("finished", 0)


def test_the_second_interrupt_interrupts() -> None:
    """The first Ctrl-C is a wish to stop, the second an order."""

    def twice(_: Trainer) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        trainer_of(plan(), pieces, [Acting(1, twice)]).train()
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    """Python allows handlers in the main thread only; training goes without."""
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(trainer_of(plan(), pieces).train()))
    thread.start()
    thread.join()
    assert [outcome.word for outcome in outcomes] == ["finished"]


def test_what_a_step_raises_is_told_to_every_hook() -> None:
    """Also behind a hook that fails of it; what was raised first is raised."""
    told: list[str] = []

    def fail(_: Trainer) -> None:
        raise Cut

    with pytest.raises(Cut):
        trainer_of(plan(), pieces, [Acting(2, fail), BadEnd(), Witness("a", told)]).train()
    assert told[-1] == "a after_train failed 2"


def test_a_hook_that_fails_at_the_end_fails_the_training() -> None:
    """A checkpoint that could not be written is no success; hooks behind it learn of it."""
    told: list[str] = []
    with pytest.raises(OSError, match="No space left"):
        trainer_of(plan(), pieces, [BadEnd(), Witness("a", told)]).train()
    assert told[-1] == "a after_train failed 3"
    assert sum("after_train" in line for line in told) == 1


def test_agreement_is_of_this_boundary() -> None:
    """What a hook asks for before a step is agreed after it, once."""
    seen: list[tuple[int, bool, bool]] = []

    class Asking(Hook):
        def before_step(self, trainer: Trainer) -> None:
            if trainer.step == 1:
                trainer.ask("snapshot")

        def after_step(self, trainer: Trainer) -> None:
            seen.append((trainer.step, trainer.agreed.snapshot, trainer.agreed.save))

    trainer_of(plan(), pieces, [Asking()]).train()
    assert seen == [(1, False, False), (2, True, False), (3, False, False)]


def test_metrics_are_means_over_the_accumulated_batches() -> None:
    """A step of two batches measures both, and its gradient is their mean."""
    seen: list[dict[str, float]] = []

    def note(trainer: Trainer) -> None:
        seen.append({name: value.item() for name, value in trainer.metrics.items()})

    def make(size: int) -> Callable[[], Pieces]:
        def quiet(model: nn.Module, batch: Any) -> Any:
            return model(batch[0]).square().mean(), {"first": batch[0].sum()}

        return lambda: Pieces(
            nn.Linear(6, 2),
            quiet,
            lambda parameters: torch.optim.SGD(parameters, 0.1),
            plain(),
            size,
            shuffle=False,
        )

    two = trainer_of(plan(steps=1, accumulate=2), make(8), [Acting(1, note)])
    two.train()
    one = trainer_of(plan(steps=1), make(16), [Acting(1, note)])
    one.train()
    assert two.indices == one.indices == list(range(16))
    assert seen[0]["loss"] == pytest.approx(seen[1]["loss"])
    assert seen[0]["first"] * 2 == pytest.approx(seen[1]["first"])
    torch.testing.assert_close(two.model.state_dict(), one.model.state_dict())


def test_modes_of_parts_are_kept_unless_all_is_in_eval_mode() -> None:
    """A frozen part stays frozen; a model as it was loaded for use is trained all the same."""
    frozen, loaded = pieces(), pieces()
    frozen.model.body[1].eval()
    loaded.model.eval()
    for made in (frozen, loaded):
        trainer_of(plan(), lambda made=made: made).train()
    assert [one.training for one in frozen.model.body] == [True, False, True, True]
    assert all(one.training for one in loaded.model.modules())


def test_epochs_end_where_they_should() -> None:
    """Steps of whole epochs, and the place after them."""
    trainer = trainer_of(Plan.of({"epochs": 2, "accumulate": 3}), pieces)
    assert (trainer.steps_per_epoch, trainer.total) == (3, 6)
    trainer.train()
    assert (trainer.step, trainer.epoch, trainer.samples) == (6, 2, 0)


class Stream(IterableDataset):
    """A dataset without places."""

    def __iter__(self) -> Any:
        return iter([])


class Endless:
    """A dataset that does not know its length."""

    def __getitem__(self, index: int) -> Any:
        return index


OTHER = nn.Linear(2, 2)
BAD_PIECES: dict[str, dict[str, Any]] = {
    "model is of type function; it must be a torch.nn.Module": {"model": lambda: None},
    "loss is of type int (3); it must be a function": {"loss": 3},
    "loss is of type NoneType (None)": {"loss": None},
    "evaluate is of type str ('x'); it must be a function": {"evaluate": "x"},
    "optimizer is of type str ('adam')": {"optimizer": "adam"},
    "optimizer(parameters) is of type list": {"optimizer": list},
    "the optimizer holds no parameter of the model": {
        "optimizer": torch.optim.SGD(OTHER.parameters(), 0.1)
    },
    "batch_size is of type float (8.0)": {"batch_size": 8.0},
    "hooks is of type type; it must be made of instances": {"hooks": [Hook]},
    "data is of type Stream; it must be a dataset with __len__ and __getitem__": {"data": Stream()},
    "data is of type Endless; it must be a dataset that has a length": {"data": Endless()},
    "data is empty": {"data": TensorDataset(torch.empty(0, 6))},
    "53 samples, fewer than the 64 of one batch": {"batch_size": 64, "drop_last": True},
    "returned a tensor of shape (8,)": {"loss": lambda model, batch: model(batch[0]).sum(1)},
    "depends on no parameter": {"loss": lambda _, batch: batch[0].sum()},
    "returned a float": {"loss": lambda *_: 1.0},
    "returned a tuple of 3": {"loss": lambda *_: (1, 2, 3)},
    "returned a list": {"loss": lambda model, batch: (model(batch[0]).sum(), [1])},
    "returned 3 numbers as the metric 'x'": {
        "loss": lambda model, batch: (model(batch[0]).sum(), {"x": torch.ones(3)})
    },
}


@pytest.mark.parametrize("message", BAD_PIECES)
def test_wrong_pieces_are_named(message: str) -> None:
    """Which part it is, what it is, and what it must be."""

    def build() -> Pieces:
        made = {"model": Net(), "loss": loss, "data": Augmented(), "batch_size": 8}
        made["optimizer"] = lambda parameters: torch.optim.AdamW(parameters, 0.01)
        return Pieces(**{**made, **BAD_PIECES[message]})

    with pytest.raises(TrainingError) as raised:
        trainer_of(plan(entry="net:build"), lambda: pieces_of(build, {}, "net:build")).train()
    assert message in str(raised.value)
    assert "net:build" in str(raised.value)
    assert raised.value.kind == "bad_config"


BAD_ENTRIES: dict[str, tuple[Any, dict[str, Any]]] = {
    "returned a dict: it must return workers.train.Pieces": (dict, {}),
    "is of type int, which cannot be called": (3, {}),
    "cannot be called with args {'widht': 3}: got an unexpected keyword": (
        lambda *, width=1: width,
        {"widht": 3},
    ),
}


@pytest.mark.parametrize("message", BAD_ENTRIES)
def test_an_entry_that_builds_nothing_is_named(message: str) -> None:
    """What it returned, or why it cannot be called."""
    build, args = BAD_ENTRIES[message]
    with pytest.raises(TrainingError) as raised:
        pieces_of(build, args, "net:build")
    assert f"net:build {message}" in str(raised.value)


def test_a_gpu_that_is_not_there_is_missed_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is built."""
    gpus = SimpleNamespace(is_available=lambda: False, device_count=lambda: 0)
    monkeypatch.setattr(torch, "cuda", gpus)
    assert device_of("auto", Ranks()).type == "cpu"
    with pytest.raises(TrainingError, match="torch sees no GPU here"):
        device_of("cuda", Ranks())
    gpus.is_available, gpus.device_count = (lambda: True), (lambda: 1)
    assert device_of("auto", Ranks()).index == 0
    with pytest.raises(TrainingError, match="has no GPU of its own: torch sees 1"):
        device_of("cuda", Ranks(1, 2, 1))


@pytest.mark.parametrize("size", ["two", "0"])
def test_a_launcher_that_makes_no_sense_is_refused(
    monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    """The variables are shown."""
    monkeypatch.setitem(os.environ, "RANK", "0")
    monkeypatch.setitem(os.environ, "WORLD_SIZE", size)
    with pytest.raises(TrainingError, match=f"WORLD_SIZE={size}"):
        Ranks.of_environment()
