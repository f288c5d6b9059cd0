"""Checkpoints with a manifest: whole, or not used, whatever was done to them."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supervisor.checkpoint import (
    Kind,
    Layout,
    Level,
    Outcome,
    Pins,
    Query,
    Remembered,
    Verdict,
    choose,
    find,
    reading,
    verify,
)
from tests.unit.snapshots import archive, flip, manifest, publish, sealed
from workers.publishing import Best, Publisher, Torn
from workers.publishing import verify as worker_verify

WEIGHTS = bytes(range(256)) * 64
FILES = {"state.pt": archive(WEIGHTS), "parts/tokens.bin": b"anything"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give the folder of a disk tier."""
    return tmp_path / "checkpoints"


def layout(root: Path) -> Layout:
    """How the checkpoints lie."""
    return Layout(root, "step-*", require=("manifest.json",))


def judge(root: Path, *, worker_lives: bool = False) -> Verdict:
    """Verify the newest."""
    found = find(layout(root)).found[0]
    return verify(found, layout(root), expect=Kind.PUBLISHED, worker_lives=worker_lives)


def _zipped(folder: Path) -> None:
    (folder / "state.pt").write_bytes(archive(WEIGHTS))


def _unzipped(folder: Path) -> None:
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "tokens \u00e9.bin").write_bytes(b"anything")
    (folder / "empty").touch()


@pytest.mark.parametrize("tier", ["disk", "memory"])
@pytest.mark.parametrize("write", [_zipped, _unzipped])
def test_what_the_worker_side_publishes_is_understood(
    root: Path, tier: str, write: Callable[[Path], None]
) -> None:
    """Both sides mean one format: links and retention of the writer's are no trouble either."""
    publisher = Publisher(root, tier=tier, keep=2, best=Best("loss"))
    for step, loss in ((1, 0.5), (2, 0.1), (3, 0.3), (4, 0.2)):
        publisher.publish(write, step, {"loss": loss, "\u00e9": 1e-300})
    assert [one.step for one in find(layout(root)).found] == [4, 3, 2]
    for found in find(layout(root)).found:
        assert verify(found, layout(root), expect=Kind.PUBLISHED).ok
    part = next(path for path in (root / "step-000000004").rglob("*.*") if path.suffix != ".json")
    flip(part, part.stat().st_size // 2)
    assert judge(root).outcome is Outcome.BAD
    with pytest.raises(Torn):
        worker_verify(root / "step-000000004")


@pytest.mark.parametrize("own_crc", [False, True])
def test_a_whole_one_is_verified_at_once(root: Path, *, own_crc: bool) -> None:
    """It appeared by a rename, so there is nothing to wait for, even while its writer lives."""
    files = {"state.pt": FILES["state.pt"]} if own_crc else FILES
    publish(root, 120, files, own_crc=own_crc)
    verdict = judge(root, worker_lives=True)
    assert (verdict.outcome, verdict.kind, verdict.level) == (
        Outcome.OK,
        Kind.PUBLISHED,
        Level.VERIFIED,
    )


def test_a_file_more_is_noted_and_no_harm(root: Path) -> None:
    """Somebody left a note beside the state: the checkpoint is what it was."""
    folder = publish(root, 7, FILES)
    assert judge(root).reason == "2 files are what the manifest says"
    (folder / "note.txt").write_text("the good one")
    (folder / ".nfs0001.tmp").write_text("")
    assert judge(root).reason == "2 files are what the manifest says; 1 more not in it"


@pytest.mark.parametrize("own_crc", [False, True])
@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_a_flipped_bit_is_found(root: Path, where: str, *, own_crc: bool) -> None:
    """By the manifest's checksum, or by the archive's own: torch itself would load it."""
    content = FILES["state.pt"]
    folder = publish(root, 7, {"state.pt": content}, own_crc=own_crc)
    start = content.index(WEIGHTS)
    flip(folder / "state.pt", start + {"first": 0, "middle": 8000, "last": len(WEIGHTS) - 1}[where])
    verdict = judge(root)
    assert (verdict.outcome, verdict.kind) == (Outcome.BAD, Kind.PUBLISHED)
    assert "checksum" in verdict.reason


def _cut(folder: Path) -> None:
    os.truncate(folder / "state.pt", 1000)


def _without(folder: Path) -> None:
    (folder / "state.pt").unlink()


def _linked(folder: Path) -> None:
    (folder / "state.pt").rename(folder.parent / "elsewhere.pt")
    (folder / "state.pt").symlink_to("../elsewhere.pt")


def _linked_part(folder: Path) -> None:
    (folder / "parts").rename(folder.parent / "elsewhere")
    (folder / "parts").symlink_to("../elsewhere")


def _piped(folder: Path) -> None:
    (folder / "state.pt").unlink()
    os.mkfifo(folder / "state.pt")


def _linked_manifest(folder: Path) -> None:
    (folder / "manifest.json").rename(folder.parent / "elsewhere.json")
    (folder / "manifest.json").symlink_to("../elsewhere.json")


def _no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def _cut_manifest(folder: Path) -> None:
    os.truncate(folder / "manifest.json", 60)


def _empty_manifest(folder: Path) -> None:
    os.truncate(folder / "manifest.json", 0)


def _zeroed_manifest(folder: Path) -> None:
    size = (folder / "manifest.json").stat().st_size
    (folder / "manifest.json").write_bytes(bytes(size))


def _renamed(folder: Path) -> None:
    folder.rename(folder.with_name("step-000000900"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_cut, "state.pt has 1000 bytes and was published with"),
        (_without, "state.pt is missing"),
        (_linked, "state.pt is a link"),
        (_linked_part, "parts/tokens.bin is missing"),
        (_piped, "state.pt is a link or no file"),
        (_linked_manifest, "manifest.json is a link"),
        (_no_manifest, "manifest.json is missing"),
        (_cut_manifest, "manifest.json: it is not valid JSON"),
        (_empty_manifest, "manifest.json is empty"),
        (_zeroed_manifest, "manifest.json: it is not valid JSON"),
        (_renamed, "its manifest is that of step 7"),
    ],
)
def test_a_damaged_one_is_bad(root: Path, damage: Callable[[Path], None], words: str) -> None:
    """Each with the reason, and nothing outside the folder is read for it."""
    damage(publish(root, 7, FILES))
    verdict = judge(root)
    assert verdict.outcome is Outcome.BAD
    assert words in verdict.reason


CONTENT = {"state.pt": archive()}
GIVEN = manifest(7, CONTENT)
SIZE = len(CONTENT["state.pt"])


def _files(**entry: Any) -> dict[str, Any]:
    return GIVEN | {"files": {"state.pt": GIVEN["files"]["state.pt"] | entry}}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (GIVEN | {"files": {"../x": {"bytes": 1, "crc32": 1}}}, "lies outside"),
        (GIVEN | {"files": {"a/../../x": {"bytes": 1, "crc32": 1}}}, "lies outside"),
        (GIVEN | {"files": {"/etc/hostname": {"bytes": 1, "crc32": 1}}}, "lies outside"),
        (GIVEN | {"files": {"./state.pt": {"bytes": SIZE, "crc32": 1}}}, "is missing"),
        (GIVEN | {"files": {}}, "no files"),
        (GIVEN | {"files": ["state.pt"]}, "no files"),
        (GIVEN | {"files": {"state.pt": 7}}, "its entry of 'state.pt' is damaged"),
        (GIVEN | {"step": -1}, "names no step"),
        (GIVEN | {"step": True}, "names no step"),
        (GIVEN | {"step": 2**63}, "names no step"),
        (GIVEN | {"version": 0}, "not what was written"),
        (GIVEN | {"version": "1"}, "not what was written"),
        (GIVEN | {"metrics": {"loss": float("nan")}}, "not what was written"),
        (_files(bytes=-1), "is damaged"),
        (_files(bytes=float(SIZE)), "is damaged"),
        (_files(crc32=2**32), "is damaged"),
        (_files(crc32="none"), "is damaged"),
    ],
)
def test_a_manifest_that_lies_is_bad(root: Path, fields: dict[str, Any], words: str) -> None:
    """Even with a right checksum over itself; nothing outside is opened because it says so."""
    folder = publish(root, 7, CONTENT)
    (root / "x").write_bytes(b"x")
    (folder / "manifest.json").write_bytes(sealed(fields))
    verdict = judge(root)
    assert (verdict.outcome, words in verdict.reason) == (Outcome.BAD, True), verdict.reason


@pytest.mark.parametrize("field", ["step", "metrics", "files", "crc32", "tier"])
def test_one_changed_figure_in_the_manifest_is_found(root: Path, field: str) -> None:
    """It has a checksum over itself, so that not even the metrics, which choose the best, lie."""
    folder = publish(root, 7, CONTENT)
    fields = json.loads((folder / "manifest.json").read_bytes())
    fields[field] = {"loss": 0.01} if field == "metrics" else "other"
    (folder / "manifest.json").write_text(json.dumps(fields))
    verdict = judge(root)
    assert (verdict.outcome, verdict.kind) == (Outcome.BAD, Kind.PUBLISHED)
    assert "not what was written" in verdict.reason


def test_a_file_without_checksum_must_have_its_own(root: Path) -> None:
    """A null in the manifest is for archives alone: anything else would go unchecked."""
    publish(root, 7, {"state.pt": b"no archive"}, own_crc=True)
    verdict = judge(root)
    assert verdict.outcome is Outcome.BAD
    assert "no archive that has its own" in verdict.reason
    publish(root, 8, {"state.pt": archive()[:-9]}, own_crc=True)
    assert "state.pt: the archive's table of contents" in judge(root).reason


def test_a_manifest_of_a_newer_version_is_not_judged(root: Path) -> None:
    """It may be good: it is passed over with what to do, and left where it is."""
    publish(root, 6, CONTENT)
    folder = publish(root, 7, CONTENT)
    (folder / "manifest.json").write_bytes(sealed(GIVEN | {"version": 2, "files": "elsewhere"}))
    assert "needs a newer supervise" in judge(root).reason
    choice = choose(layout(root), Remembered(), None, Query())
    assert choice.checkpoint is not None
    assert choice.checkpoint.step == 6
    assert [one.set_aside_to for one in choice.rejected] == [None]
    assert folder.exists()


def test_a_manifest_of_another_program_is_its_own_affair(root: Path) -> None:
    """Other savers use the name: the folder is judged as any, and is not one of ours."""
    folder = publish(root, 7, CONTENT)
    (folder / "manifest.json").write_text('{"format": "other", "files": ["../x"]}')
    (found,) = find(layout(root)).found
    assert verify(found, layout(root), worker_lives=False).kind is Kind.DIRECTORY
    refused = judge(root)
    assert refused.outcome is Outcome.BAD
    assert "folders with a manifest" in refused.reason


def test_a_torn_one_gives_way_to_the_one_before(root: Path) -> None:
    """It is set aside with the reason, and the older is used."""
    publish(root, 6, CONTENT)
    os.truncate(publish(root, 7, CONTENT) / "state.pt", 99)
    choice = choose(layout(root), Remembered(), None, Query(expect=Kind.PUBLISHED))
    assert choice.checkpoint is not None
    assert choice.checkpoint.step == 6
    (rejected,) = choice.rejected
    assert rejected.set_aside_to is not None
    assert rejected.set_aside_to.exists()


def test_one_that_is_being_written_is_not_seen(root: Path) -> None:
    """It has a hidden name until it is whole."""
    publish(root, 6, CONTENT)
    publish(root, 7, CONTENT).rename(root / ".step-000000007.4711.partial")
    assert [one.step for one in find(layout(root)).found] == [6]


def test_no_byte_is_read_twice(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the manifest's checksum or the archive's own, a look costs one reading of the file."""
    read_bytes = 0
    chunks = reading.Window.chunks

    def counted(self: reading.Window, start: int, size_bytes: int) -> Any:
        nonlocal read_bytes
        read_bytes += size_bytes
        return chunks(self, start, size_bytes)

    monkeypatch.setattr(reading.Window, "chunks", counted)
    content = archive(bytes(1 << 20))
    for step, own_crc in ((1, False), (2, True)):
        publish(root, step, {"state.pt": content}, own_crc=own_crc)
        read_bytes = 0
        assert judge(root).ok
        assert 1 << 20 <= read_bytes <= len(content)


def test_a_copy_of_it_is_checked_like_itself(root: Path, tmp_path: Path) -> None:
    """Also while its times are too fresh to trust, and it comes back where it was lost."""
    folder = publish(root, 7, FILES)
    pins = Pins(tmp_path / "pins")
    (found,) = find(layout(root)).found
    assert found.fingerprint.is_racy(time.time_ns())
    pins.pin(found, judge(root))
    flip(folder / "parts/tokens.bin", 0)
    choice = choose(layout(root), Remembered(), pins, Query(expect=Kind.PUBLISHED))
    assert choice.checkpoint is not None
    assert (choice.checkpoint.step, choice.checkpoint.restored_from_pin) == (7, True)
    assert judge(root).ok
