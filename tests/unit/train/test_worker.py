"""A training from its plan to its artifacts: exit codes, words, and what it leaves in `out`."""

import faulthandler
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from tests.unit.train.nets import Net, loss, plain
from workers.train import Pieces, run
from workers.train.errors import TrainingError
from workers.train.worker import main

STEPS = 14  # two epochs of seven
HERE = "tests.unit.train.test_worker"


def export(model: Net, folder: Path) -> None:
    """Write two files."""
    torch.save(model.state_dict(), folder / "weights.pt")
    (folder / "more").mkdir()
    (folder / "more" / "words.txt").write_text("two words\n")


def broken(model: Net, folder: Path) -> None:
    """Write them, and fail."""
    export(model, folder)
    raise RuntimeError("no export today")


def ours(_: Net, folder: Path) -> None:
    """Write a file that the trainer has under this name."""
    (folder / "metrics.jsonl").write_text("{}")


def linked(_: Net, folder: Path) -> None:
    """Write what is no file."""
    (folder / "link").symlink_to("/etc")


EXPORTS = {"export": export, "broken": broken, "ours": ours, "linked": linked, "none": None}


def build(how: str = "export") -> Pieces:
    """Return the parts."""
    return Pieces(
        Net(),
        loss,
        lambda parameters: torch.optim.AdamW(parameters, 0.01),
        plain(),
        batch_size=8,
        evaluate=lambda model: {"size": model.head.weight.abs().sum().item()},
        export=EXPORTS[how],
    )


def wrong() -> dict[str, int]:
    """Return something else."""
    return {"model": 3}


class Ended(NamedTuple):
    """How a worker ended, and what it said."""

    code: Any
    out: str
    err: str


@pytest.fixture
def start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    """Give a way to be the worker of a plan."""
    monkeypatch.setattr(faulthandler, "enable", lambda **_: None)  # pytest has its own

    def started(entry: str = f"{HERE}:build", **plan: Any) -> Ended:
        fields = {"entry": entry, "out": str(tmp_path / "out"), "epochs": 2, **plan}
        with pytest.raises(SystemExit) as ended:
            main(json.dumps(fields))
        return Ended(ended.value.code, *capsys.readouterr())

    return started


def test_a_run_ends_with_its_artifacts_and_is_then_finished(start: Any, tmp_path: Path) -> None:
    """All files of the export and the result; another start says so and changes nothing."""
    out = tmp_path / "out"
    assert start(save={"best": "size", "mode": "min"}).code == 0
    result = json.loads((out / "result.json").read_text())
    assert (result["steps"], result["epochs"]) == (STEPS, 2)
    assert result["best"]["metrics"]["size"] <= result["evaluation"]["size"]
    assert (out / "more" / "words.txt").read_text() == "two words\n"
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again = start()
    assert (again.code, again.err) == (0, "")
    assert f"already finished at step {STEPS}" in again.out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_a_failed_export_leaves_nothing_and_is_made_up_for(start: Any, tmp_path: Path) -> None:
    """`out` has no artifact until all are there; the training is not repeated for it."""
    out = tmp_path / "out"
    with pytest.raises(RuntimeError, match="no export today"):
        run(build, args={"how": "broken"}, out=str(out), epochs=2)
    left = {path.name for path in out.iterdir()}
    assert left == {"checkpoints", "metrics.jsonl", "evaluations.jsonl"}
    mended = start(args={"how": "none"})
    assert mended.code == 0
    assert f"at step {STEPS}" in mended.out
    assert (out / "model.pt").exists()
    assert json.loads((out / "result.json").read_text())["evaluation"]["size"] > 0


def test_a_longer_run_goes_on_and_its_result_is_new(start: Any, tmp_path: Path) -> None:
    """The result of the shorter one does not stand for it meanwhile."""
    start()
    with pytest.raises(RuntimeError):
        run(build, args={"how": "broken"}, out=str(tmp_path / "out"), epochs=3)
    assert not (tmp_path / "out" / "result.json").exists()


@pytest.mark.parametrize(
    ("how", "message"), [("ours", "a name of the trainer's own"), ("linked", "no plain file")]
)
def test_an_export_is_looked_at(how: str, message: str, tmp_path: Path) -> None:
    """Nothing of it gets into `out`."""
    with pytest.raises(TrainingError, match=message):
        run(build, args={"how": how}, out=str(tmp_path), steps=1)
    assert not (tmp_path / "result.json").exists()
    assert not (tmp_path / "link").exists()


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no such module": ({"entry": "nowhere:build"}, "there is no module nowhere"),
    "no such name": ({"entry": f"{HERE}:bild"}, "did you mean build?"),
    "a module that does not import": (
        {"entry": "tests.process.train_broken:build"},
        "cannot be imported: ModuleNotFoundError: No module named 'a_module_that_nobody_has'",
    ),
    "an entry that returns something else": (
        {"entry": f"{HERE}:wrong"},
        "returned a dict: it must return workers.train.Pieces",
    ),
    "a field that is none": ({"epoch": 3}, "did you mean epochs?"),
    "an out that cannot be": ({"out": "/proc/out"}, "train.out: /proc/out cannot be written"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_begin_says_why(name: str, start: Any) -> None:
    """Exit code 2, one sentence for people, before the first step."""
    fields, message = BAD[name]
    ended = start(**fields)
    assert ended.code == 2
    assert message in ended.err
    assert "step 1/" not in ended.out


def test_a_checkpoint_that_cannot_be_loaded_is_no_mistake_of_the_job(
    start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1: there may be another one."""
    (tmp_path / "state.pt").write_bytes(b"torn")
    monkeypatch.setenv("SUPERVISE_RESUME_PATH", str(tmp_path))
    ended = start()
    assert ended.code == 1
    assert f"{tmp_path}/state.pt cannot be loaded" in ended.err
