import pytest
import torch

from tests.unit.train.hook_trainer import FakeTrainer
from workers.train.guard import Guard
from workers.train.snapshot import NonFinite
from workers.train.writer import Writer

NAN, INF = float("nan"), float("inf")


@pytest.fixture
def trainer(tmp_path):
    """Nothing trains."""
    return FakeTrainer(tmp_path)


def run(trainer, guard, count, losses):
    """Take so many steps, with these losses at these steps."""
    for _ in range(count):
        trainer.stepped(guard, loss=losses.get(trainer.step + 1))


def guarded(trainer, within):
    """Return the guard of a run that begins."""
    guard = Guard(within, torch.device("cpu"), Writer())
    trainer.begin(guard)
    return guard


@pytest.mark.parametrize("within", [1, 2, 3, 10, 50])
@pytest.mark.parametrize("bad", [1, 2, 24, 25, 26])
@pytest.mark.parametrize("loss", [NAN, INF, -INF])
def test_a_bad_loss_is_found_in_time_and_named(trainer, within, bad, loss):
    """Whatever step it is, the training ends within N steps and names step, loss and samples."""
    guard = guarded(trainer, within)
    with pytest.raises(NonFinite) as raised:
        run(trainer, guard, bad + within, {bad: loss})
    assert trainer.step - bad <= within
    assert raised.value.step == bad
    assert raised.value.details["loss"] == repr(loss)
    assert raised.value.details["indices"] == [2 * bad - 2, 2 * bad - 1]
    assert f"the loss of step {bad} is {loss}" in str(raised.value)
    assert f"indices {2 * bad - 2}, {2 * bad - 1}" in str(raised.value)


def test_the_first_bad_step_is_named_although_all_after_it_are_bad_too(trainer):
    """The samples of the first are those to look at."""
    guard = guarded(trainer, 10)
    with pytest.raises(NonFinite) as raised:
        run(trainer, guard, 20, dict.fromkeys(range(3, 20), NAN))
    assert raised.value.step == 3


def test_finite_losses_are_left_alone_over_many_rounds(trainer):
    """Large losses, and the rests of earlier rounds, are no finding."""
    guard = guarded(trainer, 5)
    for _ in range(90):
        trainer.stepped(guard, loss=1e30)
    trainer.end(guard)
    assert guard._seen == trainer.step


@pytest.mark.parametrize("start", [0, 7, 50])
def test_the_end_is_guarded_too(trainer, start):
    """A bad loss in the last step before a stop is found before anything is saved."""
    trainer.step = start
    guard = guarded(trainer, 50)
    trainer.stepped(guard)
    trainer.stepped(guard, loss=NAN)
    with pytest.raises(NonFinite) as raised:
        trainer.end(guard)
    assert raised.value.step == start + 2


def test_after_a_failure_the_guard_is_silent(trainer):
    """What failed first is what is told."""
    guard = guarded(trainer, 50)
    trainer.stepped(guard, loss=NAN)
    trainer.end(guard, word="failed")
    assert guard._seen == 0


def test_with_a_gradient_scaler_a_few_overflows_are_normal(trainer):
    """Seven in a row are excused, also across rounds; the eighth ends the training."""
    trainer.scaler = object()
    guard = guarded(trainer, 4)
    assert guard.losses() is None
    for row in (7, 1, 7):
        for _ in range(row):
            trainer.stepped(guard, loss=INF)
        trainer.stepped(guard)
    with pytest.raises(NonFinite) as raised:
        run(trainer, guard, 12, dict.fromkeys(range(100), NAN))
    assert raised.value.step == 18 + 8


def test_a_bad_weight_is_told_with_the_samples_of_its_step(trainer):
    """What the writer found in a snapshot ends the training at the next boundary, with indices."""
    guard = guarded(trainer, 50)
    for _ in range(3):
        trainer.stepped(guard)
    guard._writer._failure = NonFinite("weight w is not finite after step 2", 2, weight="w")
    with pytest.raises(NonFinite, match="weight w is not finite") as raised:
        trainer.stepped(guard)
    assert raised.value.details["indices"] == [2, 3]
    assert raised.value.details["weight"] == "w"


@pytest.mark.parametrize(
    ("weight", "told"), [(1, "weight w"), (2, "the loss of step 2"), (3, "the loss of step 2")]
)
def test_of_a_bad_loss_and_a_bad_weight_the_first_is_named(trainer, weight, told):
    """A weight that was bad before any loss was tells of a gradient; else the loss came first."""
    guard = guarded(trainer, 50)
    run(trainer, guard, 2, {2: NAN})
    guard._writer._failure = NonFinite("weight w is not finite", weight, weight="w")
    with pytest.raises(NonFinite, match=told):
        trainer.stepped(guard, loss=NAN)


def test_long_batches_are_shortened(trainer):
    """A report has the first of many thousand indices, and how many there were."""
    guard = guarded(trainer, 1)
    guard._recent.append((1, list(range(5000))))
    told = guard._told(1, "the loss is bad")
    assert len(told.details["indices"]) == 500
    assert told.details["samples"] == 5000
    assert "0, 1, 2, 3, 4, 5, 6, 7, ... (5000 in all)" in str(told)
