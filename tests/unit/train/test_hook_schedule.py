import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR

from tests.unit.train.hook_trainer import FakeTrainer
from workers.train.plan import Schedule
from workers.train.schedule import LearningRate, factor_at, is_constant

TOTAL = 40


def rates(schedule, total=TOTAL):
    """Return the factor of every step."""
    return [factor_at(schedule, step, total) for step in range(total)]


def of_torch(make):
    """Return the rates of a scheduler of torch's."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scheduler, found = make(optimizer), []
    for _ in range(TOTAL):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_decay_by_steps_is_that_of_torch():
    """The rate of every step agrees with torch's StepLR."""
    expected = of_torch(lambda optimizer: StepLR(optimizer, 7, 0.3))
    assert rates(Schedule("step", every=7, factor=0.3)) == pytest.approx(expected)


def test_cosine_is_that_of_torch():
    """The rate of every step agrees with torch's CosineAnnealingLR, down to its floor."""
    expected = of_torch(lambda optimizer: CosineAnnealingLR(optimizer, TOTAL, eta_min=0.1))
    assert rates(Schedule("cosine", floor=0.1)) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["constant", "step", "cosine"])
def test_warm_up_is_linear_and_the_decay_begins_behind_it(kind):
    """Five steps of warm-up reach the full rate; what follows is the schedule without them."""
    warm = Schedule(kind, warmup=5, every=7)
    assert rates(warm)[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates(warm)[5:] == pytest.approx(rates(Schedule(kind, every=7), TOTAL - 5))


def test_no_decay_goes_below_the_floor():
    """The factor of a long run stops at the floor."""
    assert min(rates(Schedule("step", every=1, factor=0.5, floor=0.25))) == 0.25


def test_every_schedule_is_defined_beyond_its_end_and_for_no_steps_at_all():
    """A run that was made longer, or has a warm-up as long as itself, gets a number."""
    for warmup in (0, TOTAL):
        schedule = Schedule("cosine", warmup=warmup, floor=0.1)
        assert factor_at(schedule, TOTAL + 3, TOTAL) == pytest.approx(0.1)
    assert factor_at(Schedule("cosine"), 0, 0) == 1


@pytest.mark.parametrize("tensor", [False, True])
def test_each_group_keeps_its_own_rate_and_its_beginning_is_saved(tmp_path, tensor):
    """Groups decay from what they began with, from any step on, also after a checkpoint."""
    trainer = FakeTrainer(tmp_path, schedule={"kind": "step", "every": 2})
    first, second = trainer.model.children()
    groups = [{"params": first.parameters()}, {"params": second.parameters(), "lr": 0.01}]
    rate = torch.tensor(0.1) if tensor else 0.1
    trainer.optimizer = torch.optim.Adam(groups, lr=rate, capturable=False, foreach=False)
    hook = LearningRate(trainer.plan.schedule, trainer.optimizer)
    trainer.step = 5
    hook.before_step(trainer)
    assert [float(group["lr"]) for group in trainer.optimizer.param_groups] == pytest.approx(
        [0.001, 0.0001]
    )
    trainer.optimizer.load_state_dict(trainer.optimizer.state_dict())
    LearningRate(trainer.plan.schedule, trainer.optimizer).before_step(trainer)
    assert [float(group["lr"]) for group in trainer.optimizer.param_groups] == pytest.approx(
        [0.001, 0.0001]
    )


def test_a_group_that_comes_later_begins_with_its_own_rate(tmp_path):
    """A part that is unfrozen during the training follows the same schedule."""
    trainer = FakeTrainer(tmp_path, schedule={"kind": "step", "every": 2})
    hook = LearningRate(trainer.plan.schedule, trainer.optimizer)
    trainer.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 8.0})
    trainer.step = 2
    hook.before_step(trainer)
    assert [group["lr"] for group in trainer.optimizer.param_groups] == pytest.approx([0.05, 0.8])


def test_only_a_rate_that_never_changes_needs_no_hook():
    """A warm-up alone is a schedule."""
    assert is_constant(Schedule())
    assert not is_constant(Schedule(warmup=1))
    assert not is_constant(Schedule("cosine"))
