"""`checkpoint list` and `checkpoint verify`, over real files."""

import json
import os
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from supervisor.checkpoint import Pins, find, verify
from supervisor.checkpoint.layout import Layout
from supervisor.core.events import CheckpointChosen, CheckpointVerified, RejectedCheckpoint
from supervisor.spec.frozen import freeze
from supervisor.spec.load import load_job

Supervise = Callable[..., Result]
JOB = """
name: digits
command: [python, train.py]
checkpoint: {dir: out, glob: "ckpt-*.pt"}
resume: {argv: [--resume, "{path}"]}
"""


def write_checkpoint(path: Path) -> None:
    """A zip as torch writes them, older than any question of being at rest."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("c/data.pkl", b"\x80\x02}q\x00.")
        archive.writestr("c/version", b"3\n")
        archive.writestr("c/data/0", os.urandom(4096))
    os.utime(path, (time.time() - 100,) * 2)


@pytest.fixture
def story(new_job: Callable[..., Any], tmp_path: Path, clock: Any) -> Any:
    """A job with checkpoints 10 (torn), 20 (verified and copied) and 30 (not looked at)."""
    folder = tmp_path / "work"
    (folder / "out").mkdir(parents=True)
    (folder / "job.yaml").write_text(JOB)
    for step in (10, 20, 30):
        write_checkpoint(folder / "out" / f"ckpt-{step}.pt")
    torn = folder / "out" / "ckpt-10.pt"
    content = bytearray(torn.read_bytes())
    content[len(content) // 2] ^= 1
    torn.write_bytes(content)
    os.utime(torn, (time.time() - 100,) * 2)
    clock.now_s = time.time()
    story = new_job(folder=folder, spec=freeze(load_job(folder / "job.yaml")))
    layout = Layout(folder / "out", "ckpt-*.pt")
    found = {one.step: one for one in find(layout).found}[20]
    Pins(story.attempt(1).path.parents[1] / "pins").pin(found, verify(found, layout))
    size, written = found.fingerprint.size_bytes, found.fingerprint.mtime_ns / 1e9
    verified = CheckpointVerified(
        20, str(found.path), "torch_zip", "verified", size, written, pinned=True
    )
    old = RejectedCheckpoint(str(folder / "out/ckpt-15.pt"), 15, "it is cut short", "elsewhere")
    chosen = CheckpointChosen(str(found.path), 20, 2, rejected=(old,), written_at_s=written)
    return story.runner().saw(verified, chosen)


def test_list(story: Any, supervise: Supervise) -> None:
    """What is on disk, newest first, what is known of it, and which copy is safe."""
    shown = supervise("checkpoint", "list", "digits")
    listed = json.loads(supervise("checkpoint", "list", "digits", "--json").stdout)

    assert [(one["step"], one["level"], one["pinned"]) for one in listed["found"]] == [
        (30, None, False),
        (20, "verified", True),
        (10, None, False),
    ]
    assert [one["step"] for one in listed["pins"]] == [20]
    assert [one["reason"] for one in listed["rejected"]] == ["it is cut short"]
    assert "out/ckpt-15.pt: it is cut short; kept as elsewhere" in shown.output
    assert [line.split()[0] for line in shown.output.splitlines()[3:6]] == ["30", "20", "10"]
    assert "not verified yet" in shown.output
    assert str(story.folder) not in shown.output.partition("KEPT IN")[0]


@pytest.mark.usefixtures("story")
def test_list_without_the_copy_trusts_the_journal(story: Any, supervise: Supervise) -> None:
    """A record of the same size and time is believed; a file that changed since is not."""
    for pin in Pins(story.attempt(1).path.parents[1] / "pins").all():
        (pin.folder / "manifest.json").write_text("{}")

    def level() -> str | None:
        listed = json.loads(supervise("checkpoint", "list", "digits", "--json").stdout)
        assert len(listed["damaged_pins"]) == 1
        known: str | None = listed["found"][1]["level"]
        return known

    assert level() == "verified"
    os.utime(story.folder / "out/ckpt-20.pt", (time.time() - 50,) * 2)
    assert level() is None


def test_verify(story: Any, supervise: Supervise) -> None:
    """Good ones are good, the torn one is bad with its reason: exit 1, and nothing was moved."""
    before = sorted((story.folder / "out").rglob("*"))
    everything = supervise("checkpoint", "verify", "digits")
    told = json.loads(supervise("checkpoint", "verify", "digits", "--json").stdout)

    assert everything.exit_code == 1
    assert [(one["step"], one["outcome"]) for one in told["checkpoints"]] == [
        (30, "ok"),
        (20, "ok"),
        (10, "bad"),
    ]
    assert not told["ok"]
    assert told["checkpoints"][2]["reason"] in everything.output
    assert sorted((story.folder / "out").rglob("*")) == before
    events = story.journal.events(story.id)
    assert [one.kind for one in events][-2:] == ["CheckpointVerified", "CheckpointChosen"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["digits", "--step", "20"], 0, "verified"),
        (["digits", "--step", "10"], 1, "bad"),
        (["out/ckpt-20.pt"], 0, "verified"),
        (["out/ckpt-10.pt", "out/ckpt-20.pt"], 1, "bad"),
        (["digits", "out/stray.bin"], 0, "stable"),
        (["digits", "--step", "11"], 2, "no checkpoint of step 11"),
        (["digits", "out/nothing.pt"], 2, "cannot be verified: No such file"),
        (["digits", "out/pipe"], 2, "cannot be verified"),
        (["digits", "out/ckpt-20.pt", "--step", "20"], 2, "do not go together"),
        (["nosuch"], 2, "no such job: nosuch"),
        (["--step", "-1"], 2, "-1 is not in the range"),
    ],
)
def test_verify_one(
    words: list[str], code: int, said: str, story: Any, supervise: Supervise,
) -> None:  # fmt: skip
    """By step, by path with or without the job's name, also a file that is none of the job's."""
    os.chdir(story.folder)
    os.mkfifo("out/pipe")
    stray = Path("out/stray.bin")
    stray.write_bytes(b"something")
    os.utime(stray, (time.time() - 100,) * 2)
    result = supervise("checkpoint", "verify", *words)

    assert result.exit_code == code
    assert said in result.output


def test_another_kind_is_refused_as_the_runner_does(story: Any, supervise: Supervise) -> None:
    """Some bytes that bear a checkpoint's name are bad where the others are torch archives."""
    stray = story.folder / "out/ckpt-99.pt"
    stray.write_bytes(b"x")
    os.utime(stray, (time.time() - 100,) * 2)
    result = supervise("checkpoint", "verify", "digits", "--step", "99")

    assert result.exit_code == 1
    assert "the earlier checkpoints are torch archives" in result.output


def test_a_job_without_checkpoints(
    new_job: Callable[..., Any], supervise: Supervise, tmp_path: Path
) -> None:
    """Nothing to list is no error; nothing to verify is one."""
    (tmp_path / "job.yaml").write_text("name: bare\ncommand: [sleep, '1']\n")
    new_job("bare-0a0a0a", name="bare", spec=freeze(load_job(tmp_path / "job.yaml")))

    listed = supervise("checkpoint", "list", "bare")
    assert (listed.exit_code, "no section `checkpoint`" in listed.output) == (0, True)
    assert json.loads(supervise("checkpoint", "list", "bare", "--json").stdout)["root"] is None
    assert supervise("checkpoint", "verify", "bare").exit_code == 2


def test_an_empty_folder(story: Any, supervise: Supervise) -> None:
    """A listing of nothing says what was looked for."""
    for one in (story.folder / "out").iterdir():
        one.unlink()

    assert (
        "no checkpoint in out is named like ckpt-*.pt"
        in supervise("checkpoint", "list", "digits").output
    )


def test_a_damaged_spec(new_job: Callable[..., Any], supervise: Supervise) -> None:
    """Where the layout cannot be known it says so: exit 2, no traceback."""
    new_job(spec='{"format": 9}')
    result = supervise("checkpoint", "list", "digits")

    assert result.exit_code == 2
    assert "its format is 9" in result.stderr
