"""A checkpoint is published whole, those that stay are the right ones, and a torn one is told."""

import errno
import json
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from workers import leftovers
from workers.protocol import ENV_MEMORY_BUDGET, ENV_RESUME_PATH, canonical
from workers.publishing import Best, Publisher, Torn, Unfit, newest, read_manifest, verify


def state(content: bytes = b"state") -> Callable[[Path], object]:
    """Return a writer of one file."""
    return lambda folder: (folder / "state.bin").write_bytes(content)


def steps(folder: Path) -> list[int]:
    """Return the steps whose checkpoints are visible."""
    return [int(path.name[5:]) for path in sorted(folder.glob("step-*"))]


def hidden(folder: Path) -> list[str]:
    """Return what was left that nobody is to see."""
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def zipped(path: Path, *, sums: bool = True) -> None:
    """Write a file as torch does."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", b"x" * 10_000)
    if not sums:
        content = path.read_bytes()
        path.write_bytes(content.replace(zlib.crc32(b"x" * 10_000).to_bytes(4, "little"), bytes(4)))


def test_what_is_published_is_listed_with_its_sums(tmp_path) -> None:
    """Files in folders too; step, tier and metrics are in the manifest, whose form is fixed."""

    def write(folder: Path) -> None:
        (folder / "a").mkdir()
        (folder / "a" / "part é").write_bytes(b"123456789")
        zipped(folder / "state.pt")

    made = Publisher(tmp_path / "ckpt").publish(
        write, 120, {"loss": 0.5, "lr": float("nan"), "odd": "x"}
    )
    size = (made.path / "state.pt").stat().st_size
    assert made == (tmp_path / "ckpt" / "step-000000120", 120, 9 + size, False)
    facts = {
        "format": "supervise-checkpoint",
        "version": 1,
        "step": 120,
        "tier": "disk",
        "metrics": {"loss": 0.5},
        "files": {
            "a/part é": {"bytes": 9, "crc32": 0xCBF43926},
            "state.pt": {"bytes": size, "crc32": None},
        },
    }
    facts["crc32"] = zlib.crc32(canonical(facts).encode())
    assert (made.path / "manifest.json").read_bytes() == canonical(facts).encode()
    assert read_manifest(made.path) == facts
    assert (tmp_path / "ckpt" / "last").readlink() == Path("step-000000120")
    assert newest(tmp_path / "ckpt") == made.path
    assert hidden(tmp_path / "ckpt") == []


def test_a_zip_without_sums_and_what_only_looks_like_one_are_summed(tmp_path) -> None:
    """Null is for files whose own sums can be checked."""

    def write(folder: Path) -> None:
        zipped(folder / "none.pt", sums=False)
        (folder / "cut.pt").write_bytes(b"PK\x03\x04 and no more")
        (folder / "old.pt").write_bytes(b"\x80\x02")
        zipped(folder / "other.zip")

    made = Publisher(tmp_path).publish(write, 1)
    files = read_manifest(made.path)["files"]
    assert all(isinstance(one["crc32"], int) for one in files.values())
    verify(made.path)


def flip(path: Path) -> None:
    """Change one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def relink(path: Path) -> None:
    """Put a link to a copy in its place."""
    path.rename(path.parent.parent / "moved")
    path.symlink_to(path.parent.parent / "moved")


DAMAGE = {
    "a flipped bit": flip,
    "cut": lambda path: os.truncate(path, path.stat().st_size - 1),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "a link": relink,
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("name", ["state.bin", "state.pt", "manifest.json"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_each_damage_is_told_and_the_older_one_taken(name: str, damage: str, tmp_path) -> None:
    """To any of the files; never another exception, and nothing is removed for it."""

    def write(folder: Path) -> None:
        (folder / "state.bin").write_bytes(b"123456789")
        zipped(folder / "state.pt")

    publisher = Publisher(tmp_path / "ckpt")
    older, newer = (publisher.publish(write, step).path for step in (1, 2))
    assert newest(tmp_path / "ckpt") == newer
    DAMAGE[damage](newer / name)
    with pytest.raises(Torn, match=name if damage != "a link" else "is a link"):
        verify(newer)
    assert newest(tmp_path / "ckpt") == older
    assert newer.is_dir()


@pytest.mark.parametrize(
    "text",
    ["[]", "{}", "null", '{"format":"supervise-checkpoint","version":2}', "[" * 100_000, "\xff"],
)
def test_what_is_no_manifest_is_none(text: str, tmp_path) -> None:
    """Whatever lies under that name."""
    (tmp_path / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(Torn):
        read_manifest(tmp_path)


def test_no_byte_of_a_zip_ends_the_reader(tmp_path) -> None:
    """Whichever is changed, it is whole or torn; in what it holds each change is seen."""
    made = Publisher(tmp_path).publish(lambda folder: zipped(folder / "state.pt"), 1).path
    content = (made / "state.pt").read_bytes()
    held = content.index(b"xxxx")
    seen = 0
    for place in [*range(held + 3), *range(held + 9_997, len(content))]:
        changed = bytearray(content)
        changed[place] ^= 0xFF
        (made / "state.pt").write_bytes(changed)
        try:
            verify(made)
        except Torn:
            seen += 1
        else:
            assert not held <= place < held + 10_000
    assert seen > 50


def test_what_came_later_is_no_damage(tmp_path) -> None:
    """Files, links and folders that the manifest does not know are let be."""
    made = Publisher(tmp_path).publish(state(), 1).path
    (made / "note").write_text("mine")
    (made / "link").symlink_to("/nowhere")
    verify(made)
    assert newest(tmp_path) == made


def test_a_changed_figure_in_the_manifest_is_seen(tmp_path) -> None:
    """Also where it stays a manifest."""
    made = Publisher(tmp_path).publish(state(), 1, {"loss": 1.0})
    facts = json.loads((made.path / "manifest.json").read_text())
    facts["metrics"]["loss"] = 2.0
    (made.path / "manifest.json").write_text(json.dumps(facts))
    with pytest.raises(Torn, match="was changed after it was written"):
        verify(made.path)


def test_a_step_that_is_published_again_replaces_the_older_one(tmp_path) -> None:
    """Nothing but the newer one is left."""
    publisher = Publisher(tmp_path)
    for content in (b"old", b"new"):
        made = publisher.publish(state(content), 7)
    assert (made.path / "state.bin").read_bytes() == b"new"
    assert (steps(tmp_path), hidden(tmp_path)) == ([7], [])


@pytest.mark.parametrize("works", [True, False])
def test_the_same_without_an_exchange(works: bool, tmp_path, monkeypatch) -> None:  # noqa: FBT001 -- a parameter
    """Where the file system has none; the older one comes back when the second step fails."""
    monkeypatch.setattr(leftovers, "_exchange", lambda *_: False)
    publisher = Publisher(tmp_path)
    publisher.publish(state(b"old"), 7)
    rename = Path.rename
    if not works:

        def failing(path: Path, target: Path) -> Path:
            if path.name.endswith(".partial") and not target.exists():
                raise OSError(errno.EIO, "broken")
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", failing)
        with pytest.raises(OSError, match="broken"):
            publisher.publish(state(b"new"), 7)
    else:
        publisher.publish(state(b"new"), 7)
    content = (tmp_path / "step-000000007" / "state.bin").read_bytes()
    assert content == (b"new" if works else b"old")
    assert hidden(tmp_path) == []


@pytest.mark.parametrize(
    ("how", "losses", "left", "best"),
    [
        ({}, [3, 1, 2, 4], [1, 2, 3, 4], None),
        ({"keep": 2}, [3, 1, 2, 4], [3, 4], None),
        ({"keep": 1}, [3, 1, 2, 4], [4], None),
        ({"keep": 1, "best": Best("loss")}, [3, 1, 2, 4], [2, 4], 2),
        ({"keep": 2, "best": Best("loss", "max")}, [3, 5, 2, 4], [2, 3, 4], 2),
        ({"keep": 1, "best": Best("loss")}, [1, 1, 1], [3], 3),
        ({"keep": 1, "best": Best("loss")}, [2, float("nan"), 3], [1, 3], 1),
        ({"keep": 1, "best": Best("other")}, [2, 1], [2], None),
        ({"best": Best("loss")}, [2, 1, 3], [1, 2, 3], 2),
    ],
)
def test_the_newest_and_the_best_stay(how, losses, left, best, tmp_path) -> None:
    """As many as are wanted; of equals the newer one is the best."""
    publisher = Publisher(tmp_path, **how)
    for step, loss in enumerate(losses, start=1):
        made = publisher.publish(state(), step, {"loss": loss})
    assert steps(tmp_path) == left
    assert made.is_best == (best == len(losses))
    links = {path.name: path.readlink().name for path in tmp_path.iterdir() if path.is_symlink()}
    wanted = {"last": f"step-{len(losses):09d}"}
    assert links == (wanted if best is None else {**wanted, "best": f"step-{best:09d}"})


def test_what_the_job_was_resumed_from_stays(tmp_path, monkeypatch) -> None:
    """Also where a file in it is named; in memory, where room is scarce, it goes."""
    for tier in ("disk", "memory"):
        publisher = Publisher(tmp_path / tier, tier=tier, keep=1)
        publisher.publish(state(), 1)
        resumed = tmp_path / tier / "step-000000001" / "state.bin"
        monkeypatch.setenv(ENV_RESUME_PATH, str(resumed))
        publisher.publish(state(), 2)
        publisher.publish(state(), 3)
    assert steps(tmp_path / "disk") == [1, 3]
    assert steps(tmp_path / "memory") == [3]


def test_what_was_published_last_stays_although_its_step_is_older(tmp_path) -> None:
    """A job that went back keeps what it does now."""
    publisher = Publisher(tmp_path, keep=1)
    publisher.publish(state(), 9)
    publisher.publish(state(), 5)
    assert steps(tmp_path) == [5, 9]
    assert (tmp_path / "last").readlink().name == "step-000000005"


def test_what_is_not_ours_stays(tmp_path) -> None:
    """Folders of such names without a manifest, links, and the user's own `last`."""
    (tmp_path / "step-000000001").mkdir()
    (tmp_path / "step-000000001" / "weights").write_bytes(b"x")
    (tmp_path / "last").write_text("mine")
    (tmp_path / "step-000000002").symlink_to("step-000000001")
    publisher = Publisher(tmp_path, keep=1)
    for step in (3, 4):
        publisher.publish(state(), step)
    publisher.remove_all()
    assert steps(tmp_path) == [1, 2]
    assert (tmp_path / "last").read_text() == "mine"


def fail(_: Path) -> None:
    """Write something, then break."""
    (_ / "state.bin").write_bytes(b"x")
    raise OSError(errno.ENOSPC, "No space left on device")


def named(name: str) -> Callable[[Path], object]:
    """Return a writer of a file of this name."""
    return lambda folder: (folder / name).write_bytes(b"x")


@pytest.mark.parametrize(
    ("write", "step", "raised", "words"),
    [
        (fail, 2, OSError, "No space left"),
        (lambda _: 1 / 0, 2, ZeroDivisionError, "division"),
        (lambda _: None, 2, Unfit, "nothing was written into"),
        (named("manifest.json"), 2, Unfit, "a name that is ours"),
        (lambda folder: (folder / "x").symlink_to("/etc/passwd"), 2, Unfit, "is a link"),
        (lambda folder: os.mkfifo(folder / "x"), 2, Unfit, "is no file"),
        (state(), -1, ValueError, "0 or more"),
        (state(), "two", ValueError, "is no number of steps"),
    ],
)
def test_what_cannot_be_published_leaves_nothing(write, step, raised, words, tmp_path) -> None:
    """The reason is raised, and the older checkpoint is still the newest."""
    publisher = Publisher(tmp_path)
    older = publisher.publish(state(), 1).path
    with pytest.raises(raised, match=words):
        publisher.publish(write, step)
    assert (steps(tmp_path), hidden(tmp_path), newest(tmp_path)) == ([1], [], older)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"tier": "tape"}, "tier='tape'"),
        ({"keep": 0}, "at least one"),
        ({"best": Best("loss", "least")}, 'neither "min" nor "max"'),
    ],
)
def test_a_retention_that_cannot_be_is_refused(how, words, tmp_path) -> None:
    """Before anything is written."""
    with pytest.raises(ValueError, match=words):
        Publisher(tmp_path, **how)


def test_a_file_in_the_way_is_not_touched(tmp_path) -> None:
    """A name clash is an error that names the file."""
    (tmp_path / "step-000000005").write_text("mine")
    with pytest.raises(OSError, match="is in the way of a checkpoint"):
        Publisher(tmp_path).publish(state(), 5)
    assert (tmp_path / "step-000000005").read_text() == "mine"
    assert hidden(tmp_path) == []


def test_the_memory_tier_holds_no_more_than_its_budget(tmp_path, monkeypatch) -> None:
    """Refused before it is written where it can be foreseen; what is there stays."""
    monkeypatch.setenv(ENV_MEMORY_BUDGET, "5000")
    publisher = Publisher(tmp_path, tier="memory", keep=1)
    written = []

    def write(folder: Path, size: int = 2000) -> None:
        written.append(size)
        (folder / "state.bin").write_bytes(b"x" * size)

    for step in (1, 2, 3):
        publisher.publish(write, step)
    with pytest.raises(OSError, match="may hold 5,000 bytes") as raised:
        publisher.publish(lambda folder: write(folder, 3000), 4)
    assert raised.value.errno == errno.ENOSPC
    monkeypatch.setenv(ENV_MEMORY_BUDGET, "3000")
    with pytest.raises(OSError, match="may hold 3,000 bytes"):
        publisher.publish(write, 5)
    assert (steps(tmp_path), hidden(tmp_path)) == ([3], [])
    assert written == [2000, 2000, 2000, 3000]
    monkeypatch.setenv(ENV_MEMORY_BUDGET, "some")
    publisher.publish(write, 6)


def test_only_what_has_to_last_is_synced(tmp_path, monkeypatch) -> None:
    """Files, folders and names of the disk tier; nothing in memory."""
    synced = []
    monkeypatch.setattr(
        os, "fsync", lambda fd: synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
    )
    Publisher(tmp_path / "m", tier="memory").publish(state(), 1)
    Publisher(tmp_path / "n", durable=False).publish(state(), 1)
    assert synced == []
    Publisher(tmp_path / "a" / "b").publish(state(), 1)
    partial = str(tmp_path / "a" / "b" / ".step-000000001")
    assert [name.partition(partial)[2].partition("partial")[2] for name in synced[2:5]] == [
        "/state.bin",
        "/manifest.json",
        "",
    ]
    assert {str(tmp_path), str(tmp_path / "a")} == set(synced[:2])
    assert synced[5:] == [str(tmp_path / "a" / "b")]


def test_remove_all_leaves_an_empty_folder(tmp_path) -> None:
    """Checkpoints and links go."""
    publisher = Publisher(tmp_path, best=Best("loss"))
    for step in (1, 2):
        publisher.publish(state(), step, {"loss": 1})
    publisher.remove_all()
    assert list(tmp_path.iterdir()) == []
    assert newest(tmp_path) is None
    assert newest(tmp_path / "missing") is None
