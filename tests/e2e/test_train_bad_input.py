"""Every mistake that a user of `train:` can make: the right cause, one sentence, nothing lost.

Where the command line is not the point, the trainer is called in this process: importing torch
takes longer than all the rest of such a test.
"""

import errno
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import IterableDataset, TensorDataset

from tests.e2e import train_mistakes as given
from workers import faults, protocol, publishing
from workers.train import TrainingError, run

pytestmark = pytest.mark.timeout(120)
NAME = "steps"
WANTED = "it must return the loss, or (loss, {'metric': value, ...})"


@pytest.fixture
def training(job) -> Any:
    """Make the job one that trains what an entry of train_mistakes.py builds."""
    (job.folder / "steps.py").unlink()
    shutil.copy(str(given.__file__), job.folder / "mistakes.py")
    job.spec.clear()

    def make(entry: str = "build", *, warm: bool = False, budget: int = 0, **train: Any) -> Any:
        job.write(
            name=NAME,
            train={"entry": f"mistakes:{entry}", "steps": 30, "snapshot": None, **train},
            warm=None if train.get("processes") else warm,
            env={"OMP_NUM_THREADS": "1"},
            timeouts={"stop": 10},
            restart={"budget": budget, "backoff": {"initial": 0}},
        )
        return job

    return make


@pytest.fixture
def mounted() -> Iterator[Callable[..., Path]]:
    """Mount a small file system in a folder; given another size, it grows."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folders: list[Path] = []

    def mount(folder: Path, options: str) -> Path:
        again = "remount," if folder in folders else ""
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", again + options, "tmpfs", str(folder)]
        if subprocess.run(command, check=False).returncode:
            pytest.skip("no tmpfs can be mounted here")
        if not again:
            folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def ours_in(log: str) -> list[str]:
    """The frames of our own in what a worker printed."""
    return [line for line in log.splitlines() if "/workers/" in line and "File" in line]


def reasons(job: Any) -> list[str]:
    """Why each attempt ended, in words."""
    return [one["reason"] for one in job.attempts()]


# --- By the command line: cause, exit code, words, and what is left ---------------------------


def test_an_import_that_fails_is_told_once_and_with_the_users_own_lines(training):
    """bad_config, no second try; the log has the traceback of the user's file and nothing else."""
    job = training("imports")
    code, output = job.run()
    assert code == 1, output
    assert job.causes() == ["bad_config"]
    said = "mistakes:imports failed: ModuleNotFoundError: No module named 'antigravity_x'"
    assert reasons(job) == [f"{said} (exit code 2)"]
    assert said in job.ask("explain", NAME)
    log = job.ask("logs", NAME)
    assert "import antigravity_x" in log
    assert ours_in(log) == []


def test_a_program_that_ends_itself_is_not_done(training):
    """sys.exit(0) in the user's code, in the middle of everything, is no success."""
    job = training("quits")
    code, output = job.run()
    assert code == 1, output
    assert job.causes() == ["exit_code"]
    assert "mistakes:quits ended the program by sys.exit(0)" in reasons(job)[0]


def test_what_cannot_be_written_is_told_before_anything_starts(training, mounted):
    """A file in the place of `out`, and a folder that is read-only: exit 2, and nothing changed."""
    job = training()
    (job.folder / "out").write_text("mine")
    code, output = job.run()
    assert (code, "out is not a folder" in output) == (2, True), output
    assert (job.folder / "out").read_text() == "mine"
    mounted(job.folder / "shut", "size=64k,ro")
    training(out="shut")
    code, output = job.run()
    assert (code, "you may not write into" in output) == (2, True), output


def test_a_training_that_cannot_be_delivered_waits_for_its_export(training):
    """The last step is saved; with the export mended nothing is trained again, and that once."""
    job = training("cannot_export", steps=20)
    code, output = job.run()
    assert code == 1, output
    assert reasons(job) == ["exit code 1: ValueError: no export today"]
    assert ours_in(job.ask("logs", NAME)) == []
    out = job.folder / "out"
    assert not (out / "result.json").exists()
    training("build", steps=20)
    code, output = job.run("--continue")
    assert code == 0, output
    assert job.causes() == ["exit_code", "completed"]
    assert "already finished at step 20" in job.ask("logs", NAME)
    assert (out / "metrics.jsonl").read_text().count("\n") == 20
    assert torch.load(out / "model.pt", weights_only=True).keys() == {"weight", "bias"}
    code, output = job.run()
    assert code == 0, output
    assert "has already succeeded" in output
    assert len(job.attempts()) == 2


def test_a_loss_that_is_no_number_is_given_up_after_an_older_checkpoint(training):
    """Once from further back, then permanent; step and samples are named, no nan is on the disk."""
    job = training("nan", warm=True, budget=5, steps=60, non_finite=4, save={"steps": 5, "keep": 9})
    code, output = job.run()
    assert code == 1, output
    assert job.causes() == ["non_finite", "non_finite"]
    first, second = job.attempts()
    assert [first["decision"], second["decision"]] == ["resume_from_older", "give_up"]
    assert 0 < second["resumed_step"] < given.BAD_STEP
    explained = " ".join(job.ask("explain", NAME).split())
    assert "is not used: the policy resumes from an earlier checkpoint; kept as" in explained
    assert f"the loss of step {given.BAD_STEP} is nan; its samples have the indices" in explained
    assert f"step {given.BAD_STEP}; loss nan; indices [" in explained
    files = list((job.folder / "out/checkpoints").rglob("state.pt"))
    assert len(files) >= 2
    for file in files:
        weights = torch.load(file, weights_only=True)["model"]
        assert all(torch.isfinite(one).all() for one in weights.values()), file


def test_a_full_disk_holds_the_job_until_there_is_room(training, mounted, eventually):
    """What was saved is whole; it goes on from there by itself, and every step is logged once."""
    job = training("heavy", warm=True, steps=40, save={"steps": 10, "keep": 9})
    out = mounted(job.folder / "out", "size=1200k")
    run_ = job.start()
    eventually(lambda: job.why().startswith("disk_full"), 60)
    assert "no room for the checkpoint of step 3" in job.why()
    assert "state.pt'; the ones before it are whole: make room" in job.why()
    saved = int(publishing.newest(out / "checkpoints").name[5:])
    assert "It goes on by itself when there is room" in job.ask("show", NAME)
    mounted(out, "size=20m")
    output, _ = run_.communicate(timeout=60)
    assert run_.returncode == 0, output
    assert job.causes() == ["disk_full", "completed"]
    assert job.attempts()[1]["resumed_step"] == saved >= 20
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 41))
    assert ours_in(job.ask("logs", NAME)) == []


def test_a_process_that_fails_alone_ends_all_and_other_numbers_go_on(training, monkeypatch):
    """The rank's own error is the reason; two processes go on from the checkpoint of one."""
    job = training("only_one_rank_fails", processes=2, steps=20)
    monkeypatch.chdir(job.folder)
    run(given.build, out="out", steps=10)
    code, output = job.run()
    assert code == 1, output
    assert job.causes() == ["exit_code"]
    assert reasons(job) == ["exit code 1: ValueError: my rank has no data"]
    training("build", processes=2, steps=20)
    code, output = job.run("--continue")
    assert code == 0, output
    assert job.attempts()[1]["resumed_step"] == 10
    log = job.ask("logs", NAME)
    assert "the checkpoint is of 1 processes, and now there are 2" in log


def test_a_checkpoint_that_does_not_fit_is_refused_and_stays(training, monkeypatch):
    """Another precision is bad_config at once; with fewer steps it is finished, and says so."""
    job = training(precision="bf16")
    monkeypatch.chdir(job.folder)
    run(given.build, out="out", steps=10)
    saved = (job.folder / "out/checkpoints/step-000000010/state.pt").read_bytes()
    code, output = job.run()
    assert code == 1, output
    assert job.causes() == ["bad_config"]
    assert "was trained in fp32, and this run is in bf16" in reasons(job)[0]
    assert (job.folder / "out/checkpoints/step-000000010/state.pt").read_bytes() == saved
    (job.folder / "out/result.json").unlink()
    training(steps=4)
    code, output = job.run("--continue")
    assert code == 0, output
    assert "already finished at step 10, beyond the 4 of this run" in job.ask("logs", NAME)
    assert json.loads((job.folder / "out/result.json").read_text())["steps"] == 10


def test_a_stop_comes_at_once_where_there_is_nothing_to_save(training, eventually):
    """SIGTERM while it is built: exit 75. Ctrl-C twice within a step: exit 130. Nothing is left."""
    job = training("builds_for_ever")
    reached = job.folder / "reached"
    for entry, number, code in (("builds", signal.SIGTERM, 75), ("steps", signal.SIGINT, 130)):
        training(f"{entry}_for_ever")
        run_ = job.start("--continue")
        eventually(reached.exists, 60)
        reached.unlink()
        run_.send_signal(number)
        if code == 130:
            eventually(lambda: job.show()["state"] == "stopping")
            run_.send_signal(number)
        output, _ = run_.communicate(timeout=30)
        assert run_.returncode == code, output
    assert job.causes() == ["stopped", "stopped"]
    assert not list((job.folder / "out").rglob("state.pt"))


# --- In this process: the words, and where they come ------------------------------------------


def told(out: Path, build: Any, **plan: Any) -> tuple[str, str]:
    """What a training is ended by: the kind, and the words of a person's own mistake."""
    try:
        run(build, out=str(out), **{"steps": 6, **plan})
    except TrainingError as error:
        return error.kind, str(error)
    except Exception as error:  # noqa: BLE001 -- what the user's code raised
        return faults.kind_of(error), f"{type(error).__name__}: {error}"
    return "", "finished"


class Endless(IterableDataset):
    """A dataset of the other style."""

    def __iter__(self) -> Iterator[int]:
        yield 1


class Text:
    """No hook."""


PARTS: list[tuple[str, Any, str]] = [
    ("model", given.loss, "model is of type function; it must be a torch.nn.Module"),
    ("model", nn.Linear, "model is of type type; it must be a torch.nn.Module"),
    ("loss", None, "loss is of type NoneType (None); it must be a function of (model, batch)"),
    ("loss", nn.MSELoss(), "such as lambda model, batch: criterion(model(batch[0]), batch[1])"),
    ("loss", lambda model: model, "loss cannot be called with (model, batch): too many"),
    ("optimizer", "sgd", "optimizer is of type str ('sgd'); it must be a torch.optim.Optimizer"),
    ("optimizer", None, "a function of the parameters that returns one"),
    ("optimizer", lambda: 1, "optimizer cannot be called with (parameters): too many"),
    ("optimizer", lambda _: None, "optimizer(parameters) is of type NoneType (None)"),
    ("optimizer", torch.optim.LBFGS, "one whose step() takes no closure"),
    (
        "optimizer",
        torch.optim.SGD(nn.Linear(2, 2).parameters(), 0.1),
        "the optimizer holds no parameter of the model",
    ),
    ("data", None, "data is of type NoneType (None); it must be a dataset with __len__"),
    ("data", Endless(), "data is of type Endless; it must be a dataset with __len__"),
    ("data", given.Unsized(), "data is of type Unsized; it must be a dataset that has a length"),
    ("data", {"x": 1}, "data is of type dict; it must be a dataset: samples by number"),
    ("data", TensorDataset(torch.zeros(0, 4)), "data is empty: there is no sample to train on"),
    ("batch_size", 8.0, "batch_size is of type float (8.0); it must be a whole number from 1 on"),
    ("batch_size", 0, "batch_size is of type int (0)"),
    ("shuffle", "no", "shuffle is of type str ('no'); it must be True or False"),
    ("drop_last", None, "drop_last is of type NoneType (None); it must be True or False"),
    ("collate", 3, "collate is of type int (3); it must be a function of (samples)"),
    ("evaluate", "acc", "evaluate is of type str ('acc'); it must be a function of (model)"),
    ("evaluate", lambda *, x: x, "evaluate cannot be called with (model): too many"),
    ("export", lambda model: model, "export cannot be called with (model, folder): too many"),
    ("hooks", None, "hooks is of type NoneType (None); it must be a list of workers.train.Hook"),
    ("hooks", given.Holds({}), "hooks is of type Holds; it must be a list"),
    ("hooks", [given.Holds], "hooks is of type type; it must be made of instances"),
    ("hooks", [Text()], "hooks is of type Text; it must be made of instances"),
]


def test_every_part_of_the_wrong_type_is_named_before_the_first_step(tmp_path):
    """Which part, what it is, and what it must be; nothing is written but an empty folder."""
    for number, (name, value, words) in enumerate(PARTS):
        out = tmp_path / str(number)
        kind, said = told(out, lambda name=name, value=value: given.pieces(**{name: value}))
        assert (kind, words in said) == ("bad_config", True), (name, said)
        assert not [path for path in out.rglob("*") if path.is_file()]


ENTRIES: list[tuple[Any, dict[str, Any], str]] = [
    (lambda: None, {}, "returned a NoneType: it must return workers.train.Pieces(model=..."),
    (lambda: (1, 2), {}, "returned a tuple: it must return workers.train.Pieces"),
    (given.takes, {}, "cannot be called with args {}: missing a required argument: 'width'"),
    (given.build, {"args": {"depth": 3}}, "got an unexpected keyword argument 'depth'"),
    (given.build, {"args": 5}, "train.args: 5 is of type int, not mapping"),
    (given.imports, {}, "imports failed: ModuleNotFoundError: No module named 'antigravity_x'"),
    (5, {}, "is of type int, which cannot be called: name a function"),
    (given.build, {"device": "cuda"}, "train.device is cuda, and torch sees no GPU here"),
    (given.build, {"save": {"best": "acc"}}, "the entry returns no `evaluate`"),
    (
        lambda: given.pieces(batch_size=99, drop_last=True),
        {},
        "data has 64 samples, fewer than the 99 of one batch",
    ),
]


def test_an_entry_that_cannot_be_used_is_told_in_words(tmp_path, monkeypatch):
    """What it returned or could not be called with; also what this machine does not have."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for number, (build, plan, words) in enumerate(ENTRIES):
        kind, said = told(tmp_path / str(number), build, **plan)
        assert (kind, words in said) == ("bad_config", True), said
    assert told(tmp_path / "raises", given.raises) == ("error", "KeyError: 'no such data'")


def later(count: int) -> Any:
    """Return a loss that is right at first, and nothing after so many steps."""
    calls = iter(range(count))
    return lambda model, batch: given.loss(model, batch) if next(calls, None) is not None else None


LOSSES: list[tuple[Any, str]] = [
    (lambda *_: 1.0, f"returned a float: {WANTED}"),
    (lambda *_: None, f"returned a NoneType: {WANTED}"),
    (lambda *_: {"loss": 1}, f"returned a dict: {WANTED}"),
    (lambda model, batch: (given.loss(model, batch), 1, 2), "returned a tuple of 3"),
    (lambda model, batch: model(batch[0]), "returned a tensor of shape (8, 1): reduce it"),
    (lambda model, batch: given.loss(model, batch).detach(), "depends on no parameter that can be"),
    (lambda model, batch: given.loss(model, batch) * 1j, "returned a complex number"),
    (lambda model, batch: (given.loss(model, batch), {"x": "y"}), "returned a str as the metric"),
    (lambda model, batch: (given.loss(model, batch), {"x": batch[0]}), "returned 32 numbers as"),
    (lambda model, batch: (given.loss(model, batch), {"lr": 1}), "a name of the trainer's own"),
    (later(3), f"returned a NoneType: {WANTED}"),
]
FIGURES: list[tuple[Any, str]] = [
    (lambda _: "good", "evaluate returned a str; it must return numbers by name"),
    (lambda _: None, "evaluate returned a NoneType; it must return numbers by name"),
    (lambda _: {"acc": "good"}, "evaluate returned no number for 'acc', but a str"),
    (lambda _: {"loss": 1}, "train.save.best is 'acc', and evaluate returns no such metric"),
]


def test_a_loss_or_a_figure_that_is_none_is_told_in_words(tmp_path):
    """At its step, also where it was right before; what the user's code raises passes as it is."""
    for number, (loss, words) in enumerate(LOSSES):
        kind, said = told(tmp_path / f"loss-{number}", lambda loss=loss: given.pieces(loss=loss))
        assert (kind, words in said) == ("bad_config", True), said
    for number, (evaluate, words) in enumerate(FIGURES):
        kind, said = told(
            tmp_path / f"figure-{number}",
            lambda evaluate=evaluate: given.pieces(evaluate=evaluate),
            evaluate=2,
            save={"best": "acc"},
        )
        assert (kind, words in said) == ("bad_config", True), said
    division = ("error", "ZeroDivisionError: division by zero")
    assert told(tmp_path / "a", lambda: given.pieces(loss=lambda *_: 1 / 0)) == division
    assert told(tmp_path / "b", lambda: given.pieces(evaluate=lambda _: 1 / 0)) == division


@pytest.mark.parametrize(
    ("where", "saved"),
    [
        ("before_train", 0), ("before_step", 0), ("after_backward", 0), ("after_step", 0),
        ("state_dict", 0), ("after_train", 3), ("load_state_dict", 4),
    ],
)  # fmt: skip
def test_a_hook_that_raises_costs_no_checkpoint(tmp_path, where, saved):
    """Its own error ends the training, from whichever method; what was saved before stays."""

    def build() -> Any:
        holds = given.Fails(where)
        if where == "load_state_dict":
            type(holds).state_dict = lambda _: {}
        return given.pieces(hooks=[holds])

    if where == "load_state_dict":
        run(build, out=str(tmp_path), steps=4)
    kind, said = told(tmp_path, build, save={"steps": 3})
    assert (kind, said) == ("error", f"ZeroDivisionError: my hook in {where}")
    newest = publishing.newest(tmp_path / "checkpoints")
    assert (0 if newest is None else int(newest.name[5:])) == saved


def holding(state: dict[Any, Any]) -> Any:
    """Build a training with a hook of this state."""
    return lambda: given.pieces(hooks=[given.Holds(state)])


def test_a_state_that_no_checkpoint_can_give_back_is_refused_when_it_is_saved(tmp_path):
    """Not when it is needed; the place is named, and a number that only looks odd is taken."""
    numpy = pytest.importorskip("numpy")
    for name, value in {"array": numpy.ones(2), "path": tmp_path, "tuple": {("x", Path())}}.items():
        kind, said = told(tmp_path / name, holding({"mine": value}))
        assert kind == "bad_config", said
        assert "at hooks > tests.e2e.train_mistakes.Holds#0 > mine" in said
    odd = {"rate": numpy.float64(0.1), ("a", 1): errno.ENOSPC, "set": {1}, "signal": signal.SIGTERM}
    for steps in (6, 9):
        assert told(tmp_path / "odd", holding(odd), steps=steps) == ("", "finished")


def test_a_full_memory_tier_is_told_once_and_the_disk_goes_on(
    tmp_path, mounted, monkeypatch, capfd
):
    """One that is full although nobody said how much it may hold, and one with a budget of 1 KB."""
    memory = mounted(tmp_path / "memory", "size=200k")
    monkeypatch.setenv(protocol.ENV_MEMORY_TIER, str(memory))
    for budget, words in (("", "No space left on device"), ("1000", "the memory tier may hold 0")):
        monkeypatch.setenv(protocol.ENV_MEMORY_BUDGET, budget)
        out = tmp_path / f"out-{budget}"
        plan = {"steps": 40, "snapshot_s": 1e-6, "save": {"steps": 10}}
        assert told(out, given.ballast, **plan) == ("", "finished")
        said = capfd.readouterr().err
        assert said.count("memory") in (1, 2, 3), said
        assert words in said
        assert publishing.newest(out / "checkpoints").name == "step-000000040"
    assert list(memory.glob("step-*")) == []


@pytest.mark.parametrize("name", ["checkpoints", "metrics.jsonl", "model.pt"])
def test_something_of_the_users_in_our_place_is_told_and_kept(tmp_path, name):
    """A folder where a file is to be, or the other way: bad_config, with the path."""
    place = tmp_path / name
    if name == "checkpoints":
        place.write_text("mine")
    else:
        place.mkdir()
    kind, said = told(tmp_path, given.build)
    assert (kind, f"{place} cannot be" in said or f"cannot write {place}" in said) == (
        "bad_config", True,
    ), said  # fmt: skip
    assert place.exists()
    with suppress(IsADirectoryError):
        assert place.read_text() == "mine"


def test_half_precision_needs_no_gpu(tmp_path):
    """fp16 on a CPU trains; that is slow, and no mistake."""
    assert told(tmp_path, given.build, precision="fp16", device="cpu") == ("", "finished")
