"""Directory checkpoints: complete, and every part whole."""

import io
import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from supervisor.checkpoint import Kind, Layout, Level, Outcome, Verdict, find, verify

REQUIRE = ("trainer_state.json", "*.safetensors", "optimizer.pt", "rng_state*")


def archive() -> bytes:
    """Write a small archive that passes for a torch file."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("x/data.pkl", b"\x80\x02}q\x00.")
        file.writestr("x/version", b"3\n")
        file.writestr("x/data/0", bytes(range(256)))
    return stream.getvalue()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Give a folder like transformers' Trainer writes."""
    folder = tmp_path / "checkpoint-500"
    folder.mkdir()
    shards = ("model-1-of-2.safetensors", "model-2-of-2.safetensors")
    for shard in shards:
        (folder / shard).write_bytes(save({shard: np.arange(9.0)}))
    index = {"metadata": {}, "weight_map": {"a": shards[0], "b": shards[1], "c": shards[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for name in ("optimizer.pt", "rng_state.pth", "scheduler.pt"):
        (folder / name).write_bytes(archive())
    (folder / "trainer_state.json").write_text('{"global_step": 500}')
    (folder / "merges.txt").touch()
    return folder


def judge(checkpoint: Path) -> Verdict:
    """Verify the folder as between two attempts."""
    layout = Layout(
        checkpoint.parent,
        "checkpoint-*",
        require=REQUIRE,
        forbid=("checkpoint-is-incomplete.txt", "*.lock"),
    )
    (found,) = find(layout).found
    return verify(found, layout, worker_lives=False)


def test_good(checkpoint: Path) -> None:
    """A complete folder is verified; an empty text file in it is nobody's fault."""
    verdict = judge(checkpoint)

    assert (
        verdict.outcome,
        verdict.kind,
        verdict.level,
    ) == (Outcome.OK, Kind.DIRECTORY, Level.VERIFIED)
    assert verdict.size_bytes > 1000


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda d: (d / "optimizer.pt").unlink(), "optimizer.pt is missing"),
        (lambda d: (d / "optimizer.pt").write_bytes(b""), "optimizer.pt is empty"),
        (lambda d: (d / "rng_state.pth").unlink(), r"rng_state\* is missing"),
        (lambda d: (d / "scheduler.pt").write_bytes(b""), "scheduler.pt: it is empty"),
        (lambda d: (d / "optimizer.pt").write_bytes(archive()[:-9]), "optimizer.pt: .*cut off"),
        (lambda d: (d / "trainer_state.json").write_text('{"glo'), "trainer_state.json: .*JSON"),
        (
            lambda d: (d / "model-2-of-2.safetensors").unlink(),
            "model-2-of-2.*, listed in",
        ),
        (lambda d: (d / "model.safetensors.index.json").write_text("[}"), "index.json: .*JSON"),
        (lambda d: (d / "checkpoint-is-incomplete.txt").touch(), "not complete"),
        (lambda d: (d / "x.lock").touch(), "x.lock says"),
        (lambda d: (d / "weights.pt").symlink_to("gone"), "weights.pt is a link to nothing"),
        (lambda d: (d / "0.distcp").write_bytes(archive()), ".metadata is missing"),
        (lambda d: (d / "sub").mkdir() or (d / "sub" / "a.pt").write_bytes(b"P"), "sub/a.pt: "),
    ],
)
def test_damaged(checkpoint: Path, damage: Callable[[Path], object], reason: str) -> None:
    """A missing, empty, torn or forbidden part makes the folder bad, and the reason names it."""
    damage(checkpoint)

    verdict = judge(checkpoint)

    assert verdict.outcome is Outcome.BAD
    assert re.search(reason, verdict.reason), verdict.reason


@pytest.mark.parametrize("shard", ["../other.bin", "/etc/passwd", "sub/../../x", "", 5, None])
def test_index_that_points_outside(checkpoint: Path, shard: object) -> None:
    """An index cannot make us look outside the folder: such a shard counts as missing."""
    (checkpoint.parent / "other.bin").write_bytes(b"x")
    (checkpoint / "m.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))

    verdict = judge(checkpoint)

    assert verdict.outcome is Outcome.BAD
    assert "listed in m.index.json, is missing" in verdict.reason


def test_some_other_index(checkpoint: Path) -> None:
    """A file that merely ends like an index is a JSON file like others."""
    for content in ("[]", "{}", '{"weight_map": []}'):
        (checkpoint / "m.index.json").write_text(content)
        assert judge(checkpoint).ok


def test_leftovers_inside(checkpoint: Path) -> None:
    """An unfinished file of an earlier try in the folder is not judged."""
    (checkpoint / "optimizer.pt.tmp").write_bytes(b"PK\x03\x04")

    assert judge(checkpoint).ok


def test_large_json(checkpoint: Path) -> None:
    """A JSON file of many megabytes is judged by its ends, not parsed."""
    (checkpoint / "log.json").write_text("[" + "1," * 3_000_000 + "1]\n")
    assert judge(checkpoint).ok
    (checkpoint / "log.json").write_text("[" + "1," * 3_000_000)
    assert "log.json: the JSON was cut off" in judge(checkpoint).reason


def test_empty_folder(tmp_path: Path) -> None:
    """A folder without a file is no checkpoint."""
    (tmp_path / "checkpoint-1" / "sub").mkdir(parents=True)
    layout = Layout(tmp_path, "checkpoint-*")

    assert verify(find(layout).found[0], layout, worker_lives=False).reason == "the folder is empty"


def test_nothing_checkable(tmp_path: Path) -> None:
    """A folder of files whose formats tell nothing is good as `stable` only."""
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "checkpoint-1" / "a.bin").write_bytes(b"anything")
    layout = Layout(tmp_path, "checkpoint-*")

    assert verify(find(layout).found[0], layout, worker_lives=False).level is Level.STABLE


def test_linked_folder_inside(checkpoint: Path) -> None:
    """A link to a folder is not followed: it may lead in circles."""
    (checkpoint / "self").symlink_to(checkpoint, target_is_directory=True)

    assert judge(checkpoint).ok


@pytest.mark.timeout(10)
def test_pipe_inside(checkpoint: Path) -> None:
    """A pipe in a folder is not waited for; we cannot read it, which is not the same as bad."""
    os.mkfifo(checkpoint / "pipe")

    assert judge(checkpoint).outcome is Outcome.UNREADABLE
