import json
import re
import runpy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "digits" / "train.py"
EPOCHS = 2
STEPS = 45 * EPOCHS


def train(out: Path, *more: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the script to its end as a person would, for a few epochs."""
    command = [sys.executable, SCRIPT, "--epochs", str(EPOCHS), "--out", out, *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def resume(out: Path, checkpoint: Path) -> subprocess.CompletedProcess[str]:
    """Run it again from a checkpoint."""
    return train(out, "--resume", checkpoint)


def last_loss(output: str) -> str:
    """The loss of the last progress line."""
    return re.findall(r"^step \d+/\d+ epoch \d+/\d+ loss (\S+)", output, re.MULTILINE)[-1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder and output of an undisturbed run."""
    out = tmp_path_factory.mktemp("whole")
    done = train(out, "--checkpoint-every", "50")
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_it_learns_and_says_so(whole: tuple[Path, str]) -> None:
    """A few epochs recognise most digits; result, message and files agree."""
    out, output = whole
    result = json.loads((out / "result.json").read_text())
    assert (result["steps"], result["epochs"]) == (STEPS, EPOCHS)
    assert 0.8 < result["accuracy"] <= 1
    percent = f"{result['accuracy'] * 100:.1f}"
    assert output.splitlines()[-1] == f"Training finished: test accuracy {percent} %"
    assert sorted(path.name for path in out.iterdir()) == [
        *("ckpt-000050.pt", f"ckpt-{STEPS:06d}.pt"),
        *("final.pt", "result.json"),
    ]


def test_a_resumed_run_ends_as_the_undisturbed_one(whole: tuple[Path, str], tmp_path: Path) -> None:
    """From any checkpoint, also the last, the run ends with the same model to the bit."""
    out, output = whole
    folders = [tmp_path / "from the middle", tmp_path / "from the end"]
    checkpoints = [out / f"ckpt-{step:06d}.pt" for step in (50, STEPS)]
    with ThreadPoolExecutor(2) as two:
        runs = list(two.map(resume, folders, checkpoints))
    for folder, run in zip(folders, runs, strict=True):
        assert run.returncode == 0, run.stderr
        assert (folder / "result.json").read_text() == (out / "result.json").read_text()
        assert (folder / "final.pt").read_bytes() == (out / "final.pt").read_bytes()
    assert last_loss(runs[0].stdout) == last_loss(output)


@pytest.mark.parametrize("damage", ["missing", "empty", "torn", "text", "of another run"])
def test_a_broken_checkpoint_is_refused(
    whole: tuple[Path, str], tmp_path: Path, damage: str
) -> None:
    """The script never trains on from a file it cannot restore: it names it and fails."""
    good = (whole[0] / "ckpt-000050.pt").read_bytes()
    content = {
        "empty": b"",
        "torn": good[: len(good) // 2],
        "text": b"hello",
        "of another run": good,
    }
    broken = tmp_path / "broken.pt"
    if damage in content:
        broken.write_bytes(content[damage])
    run = runpy.run_path(str(SCRIPT))["Run"](lr=0.1, total=STEPS + 1)
    # A message in SystemExit goes to stderr, with exit code 1.
    with pytest.raises(SystemExit, match=f"cannot resume from {re.escape(str(broken))}: "):
        run.load(broken)
