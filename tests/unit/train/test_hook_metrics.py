import errno
import json
import os
import random
import sys
from types import ModuleType

import pytest
import torch

from tests.unit.train.hook_trainer import FakeRanks, FakeTrainer
from workers.train import steplog
from workers.train.errors import TrainingError
from workers.train.metrics import MetricLog
from workers.train.series import Logs
from workers.train.writer import Writer

LIMIT_S = 20


class Logged:
    """The metric hook with its writer and its files, as a process has them."""

    def __init__(self, trainer, *, every=1, tensorboard=False):
        self.trainer = trainer
        self.writer = Writer()
        self.logs = Logs(trainer.out, self.writer, tensorboard=tensorboard)
        self.log = MetricLog(self.writer, self.logs.metrics, every)
        trainer.begin(self.log, self.logs)

    def step(self, count=1, **given):
        """Take steps."""
        for _ in range(count):
            self.trainer.stepped(self.log, **given)

    def end(self, word=""):
        """End as the loop does."""
        self.trainer.end(self.log, self.logs, word=word)

    def kill(self):
        """Have written whatever was written, and nothing more."""
        self.writer.close(LIMIT_S)
        self.logs.metrics.close()


@pytest.fixture
def trainer(tmp_path):
    """Nothing trains."""
    made = FakeTrainer(tmp_path)
    made.out = tmp_path
    return made


def lines(trainer):
    """Return what the file says."""
    text = (trainer.out / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_each_step_has_a_line_with_sorted_keys_and_exact_numbers(trainer):
    """A line is the JSON of its values: keys sorted, numbers as repr has them, epochs from 1."""
    logged = Logged(trainer)
    logged.step(11)
    logged.end()
    text = (trainer.out / "metrics.jsonl").read_text().splitlines()
    third = torch.tensor(1 / 3).item()
    assert text[2] == f'{{"epoch":1,"loss":{third!r},"lr":0.5,"step":3}}'
    assert [line["epoch"] for line in lines(trainer)] == [1] * 10 + [2]


def test_after_any_number_of_kills_the_file_is_that_of_an_undisturbed_run(trainer, tmp_path):
    """Killed, torn and resumed from older steps twenty times: the same bytes, each step once."""
    chance = random.Random(5)
    calm = FakeTrainer(tmp_path / "calm")
    calm.out = tmp_path / "calm"
    calm.out.mkdir()
    undisturbed = Logged(calm)
    undisturbed.step(100)
    undisturbed.end()
    path = trainer.out / "metrics.jsonl"
    saved = 0
    for _ in range(20):
        trainer.step, trainer.epoch = saved, saved // 10
        trainer.samples = 4 * (saved % 10)
        logged = Logged(trainer)
        done = chance.randrange(0, 12)
        logged.step(min(done, 99 - saved))
        logged.kill()
        saved += chance.randrange(0, max(1, trainer.step - saved + 1))  # what was published
        whole = path.read_bytes()
        torn = chance.randrange(0, 40) if trainer.step > saved else 0
        path.write_bytes(whole[: max(len(whole) - torn, whole.index(b"\n") + 1 if whole else 0)])
        kept = [json.loads(one)["step"] for one in whole.splitlines()]
        assert kept == list(range(1, len(kept) + 1))
        saved = min(saved, path.read_bytes().count(b"\n"))
    trainer.step, trainer.epoch, trainer.samples = saved, saved // 10, 4 * (saved % 10)
    logged = Logged(trainer)
    logged.step(100 - saved)
    logged.end()
    assert path.read_bytes() == (calm.out / "metrics.jsonl").read_bytes()


def test_values_are_those_of_the_step_although_their_tensor_changes_later(trainer):
    """A user's metric may live in a buffer that every step changes."""
    logged = Logged(trainer)
    running = torch.tensor(1.0)
    for value in (1.0, 2.0, 3.0):
        running.fill_(value)
        trainer.metrics = {"loss": torch.tensor(0.5), "running": running}
        trainer.step += 1
        logged.log.after_step(trainer)
    logged.end()
    assert [line["running"] for line in lines(trainer)] == [1, 2, 3]


def test_metrics_of_any_type_share_a_line(trainer):
    """Counts, doubles and half precision are numbers like the loss."""
    logged = Logged(trainer)
    trainer.metrics = {
        "loss": torch.tensor(0.5, dtype=torch.bfloat16),
        "right": torch.tensor(7),
        "exact%": torch.tensor(0.1, dtype=torch.float64),
        "one": torch.tensor([2.0]),
    }
    trainer.step = 1
    logged.log.after_step(trainer)
    logged.end()
    found = lines(trainer)[0]
    assert (found["loss"], found["right"], found["exact%"], found["one"]) == (0.5, 7, 0.1, 2)


def test_what_is_no_number_in_json_is_null(trainer):
    """Every line can be read by any reader of JSON."""
    logged = Logged(trainer)
    for loss in (float("nan"), float("inf"), -float("inf")):
        logged.step(loss=loss)
    logged.end()
    assert [line["loss"] for line in lines(trainer)] == [None] * 3


def test_only_every_nth_step_has_a_line(trainer):
    """Which steps have one follows from their numbers, not from where a process began."""
    trainer.step = 5
    logged = Logged(trainer, every=4)
    logged.step(12)
    logged.end()
    assert [line["step"] for line in lines(trainer)] == [8, 12, 16]


def test_a_metric_with_a_name_of_ours_is_refused_in_words(trainer):
    """It would replace the step that the file is ordered by."""
    logged = Logged(trainer)
    trainer.metrics = {"loss": torch.tensor(1.0), "step": torch.tensor(5.0)}
    trainer.step = 1
    logged.log.after_step(trainer)
    with pytest.raises(TrainingError, match="a metric named 'step'") as raised:
        logged.end()
    assert raised.value.kind == "bad_config"


def test_ranks_write_the_mean_and_only_the_main_one_writes(trainer):
    """The row of a step is given with the next one, its mean having been computed meanwhile."""
    trainer.ranks = FakeRanks(0, 2)
    logged = Logged(trainer)
    logged.step(2, loss=1.0)
    assert [mean.waited for mean in trainer.ranks.means] == [True, False]
    logged.log.settle()
    assert logged.writer.settle(LIMIT_S)
    assert [line["loss"] for line in lines(trainer)] == [1.5, 1.5]
    assert trainer.latest["loss"] == 1.5
    logged.end()


def test_another_rank_takes_part_and_writes_nothing(trainer):
    """It begins the same means, and touches no file."""
    trainer.ranks = FakeRanks(1, 2)
    logged = Logged(trainer)
    logged.step(3)
    logged.end()
    assert len(trainer.ranks.means) == 3
    assert all(mean.waited for mean in trainer.ranks.means)
    assert list(trainer.out.iterdir()) == []


def test_after_a_failure_nobody_waits_for_the_other_ranks(trainer):
    """A mean with a dead rank would never arrive."""
    trainer.ranks = FakeRanks(0, 2)
    logged = Logged(trainer)
    logged.step(1)
    logged.end("failed")
    assert not trainer.ranks.means[0].waited


def test_a_full_disk_ends_the_training_at_the_next_boundary_as_such(trainer, monkeypatch):
    """The line that could not be written is told as disk_full, with the file."""
    logged = Logged(trainer)
    logged.step(3)
    assert logged.writer.settle(LIMIT_S)

    def full(fd, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(steplog.os, "write", full)
    logged.step(1)
    assert logged.writer.settle(LIMIT_S)
    with pytest.raises(TrainingError, match=r"cannot write .*metrics.jsonl: No space") as raised:
        logged.writer.check()
    assert raised.value.kind == "disk_full"
    monkeypatch.undo()
    logged.end("failed")
    assert [line["step"] for line in lines(trainer)] == [1, 2, 3]


def test_a_file_that_cannot_be_opened_is_told_before_the_first_step(trainer):
    """A folder in its place, say."""
    (trainer.out / "metrics.jsonl").mkdir()
    with pytest.raises(TrainingError, match=r"cannot write .*metrics.jsonl: Is a directory"):
        Logged(trainer)


def test_without_the_package_tensorboard_is_refused_with_the_remedy(trainer, monkeypatch):
    """The command that installs it for this interpreter stands in the message."""
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(TrainingError, match="-m pip install tensorboard") as raised:
        Logged(trainer, tensorboard=True)
    assert raised.value.kind == "bad_config"
    assert sys.executable in str(raised.value)


def test_tensorboard_gets_every_value_and_forgets_what_is_done_again(trainer, monkeypatch):
    """Events begin behind the step that the run goes on from."""
    made = []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            self.said = [(folder, purge_step)]
            made.append(self.said)

        def add_scalar(self, name, value, step):
            self.said.append((name, value, step))

        def close(self):
            self.said.append("closed")

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    trainer.step = 7
    logged = Logged(trainer, tensorboard=True)
    logged.step(loss=0.25)
    logged.writer.put(logged.logs.evaluations, {"accuracy": 0.5, "step": 8})
    logged.end()
    assert made == [
        [
            (str(trainer.out / "tensorboard"), 8),
            ("loss", 0.25, 8),
            ("epoch", 1, 8),
            ("lr", 0.5, 8),
            ("evaluation/accuracy", 0.5, 8),
            "closed",
        ]
    ]
