"""Outputs: what is published, when, and what is refused."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers import outputs
from workers.jsonable import BadResult
from workers.outputs import Publisher, output, sweep

GONE = 2**22 + 1  # no process has this pid


@pytest.fixture(autouse=True)
def _unsupervised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the publisher that a test made."""
    monkeypatch.setattr(outputs, "_publisher", None)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Give the output folder, not made yet."""
    return tmp_path / "out"


@pytest.fixture
def publisher(out: Path) -> Iterator[Publisher]:
    """Give a publisher with a call in progress."""
    made = Publisher(out, 3)
    made.in_call = True
    yield made
    made.close()


def files(folder: Path) -> dict[str, str]:
    """Return names and contents of all files below a folder."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in found}


def test_a_file_is_seen_when_it_is_published(out: Path, publisher: Publisher) -> None:
    """Until then it lies under .parts, with the suffix that says its format."""
    path = output("heat/a.photo.png")
    assert path.name == "a.photo.png"
    path.write_text("heat")
    assert files(out) == {f".parts/3-{os.getpid()}/0/a.photo.png": "heat"}
    publisher.publish()
    assert files(out) == {"heat/a.photo.png": "heat"}


def test_publishing_replaces_what_was_there(out: Path, publisher: Publisher) -> None:
    """An item that runs again writes its files again."""
    for text in ("first", "second"):
        output("a.txt").write_text(text)
        publisher.publish()
    assert files(out) == {"a.txt": "second"}


def test_all_is_durable_before_it_is_named(
    out: Path, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contents are synced, then names are set, then the folders that hold the names are synced."""
    done: list[tuple[str, str]] = []
    sync, replace = os.fsync, os.replace

    def synced(fd: int) -> None:
        done.append(("sync", str(Path(f"/proc/self/fd/{fd}").readlink().relative_to(out))))
        sync(fd)

    def replaced(source: Path, target: Path) -> None:
        done.append(("name", str(target.relative_to(out))))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    for name in ("new/deep/a", "b"):
        output(name).write_text(name)
    parts = f".parts/3-{os.getpid()}"
    publisher.publish()
    assert done[:4] == [
        ("sync", f"{parts}/0/a"),
        ("sync", f"{parts}/1/b"),
        ("name", "new/deep/a"),
        ("name", "b"),
    ]
    assert set(done[4:]) == {("sync", name) for name in ("new/deep", "new", ".")}


def test_a_failed_call_leaves_nothing(out: Path, publisher: Publisher) -> None:
    """What it wrote is dropped, and the next call of the same name does not see it."""
    output("a.txt").write_text("half")
    publisher.drop()
    assert files(out) == {}
    output("a.txt")
    with pytest.raises(BadResult, match=r"'a[.]txt' was never written"):
        publisher.publish()
    publisher.drop()
    publisher.publish()
    assert files(out) == {}


def test_the_same_name_twice_is_one_file(out: Path, publisher: Publisher) -> None:
    """However it is written."""
    first = output("sub/a.txt")
    assert output(Path("sub") / "a.txt") == first
    assert output("sub/./a.txt") == first
    first.write_text("once")
    publisher.publish()
    assert files(out) == {"sub/a.txt": "once"}


def test_names_of_different_folders_do_not_meet(out: Path, publisher: Publisher) -> None:
    """Two files of one last name in one call are two files."""
    output("a/x.txt").write_text("a")
    output("b/x.txt").write_text("b")
    publisher.publish()
    assert files(out) == {"a/x.txt": "a", "b/x.txt": "b"}


def test_what_lies_beside_an_output_is_removed(out: Path, publisher: Publisher) -> None:
    """A library's own temporary files and folders do not pile up."""
    path = output("a.txt")
    path.write_text("a")
    path.with_suffix(".tmp").write_text("left")
    (path.parent / "folder").mkdir()
    publisher.publish()
    assert files(out) == {"a.txt": "a"}
    assert list(path.parent.iterdir()) == []


def test_a_suffix_that_a_library_added_is_found(publisher: Publisher) -> None:
    """`np.save` writes `a.npy` when it is told `a`: the error says so."""
    path = output("a")
    path.with_suffix(".npy").write_text("array")
    with pytest.raises(BadResult, match=r"output 'a' was never written, but 'a[.]npy' was"):
        publisher.publish()


def test_only_files_are_published(publisher: Publisher, tmp_path: Path) -> None:
    """A folder cannot be replaced in one step, and a link may lead anywhere."""
    output("folder").mkdir()
    with pytest.raises(BadResult, match="'folder' is not a file"):
        publisher.publish()
    publisher.drop()
    output("link").symlink_to(tmp_path)
    with pytest.raises(OSError, match="symbolic links"):
        publisher.publish()


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../a", "a/../../b", "", ".", "a/..", "results.jsonl", "quarantine.jsonl"],
)
def test_names_that_lead_out_are_refused(
    name: str, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nobody supervises, so that a mistake is seen on the first run by hand."""
    with pytest.raises(ValueError, match="output name"):
        output(name)
    monkeypatch.setattr(outputs, "_publisher", None)
    with pytest.raises(ValueError, match="output name"):
        output(name)


def test_an_output_belongs_to_a_call(publisher: Publisher) -> None:
    """Outside of one nobody would publish it."""
    publisher.in_call = False
    with pytest.raises(RuntimeError, match="belongs to an item"):
        output("a.txt")


def test_another_process_may_not_name_outputs(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a copy of the worker nor a program that it started: the worker would not know."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with pytest.raises(RuntimeError, match="in a copy of the worker"):
        output("a.txt")
    monkeypatch.setattr(outputs, "_publisher", None)
    monkeypatch.setenv("SUPERVISE_CHANNEL_FD", "5")
    with pytest.raises(RuntimeError, match="in another process"):
        output("a.txt")


def test_by_hand_the_same_function_writes_to_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a worker the file is named as it will be, and its folder made."""
    monkeypatch.chdir(tmp_path)
    path = output("sub/a.txt")
    assert path == Path("out/sub/a.txt")
    path.write_text("a")
    assert files(tmp_path) == {"out/sub/a.txt": "a"}


def test_a_closed_publisher_leaves_no_folder(out: Path) -> None:
    """Nor .parts, once the last worker has left."""
    publishers = [Publisher(out, number) for number in (1, 2)]
    for publisher in publishers:
        publisher.in_call = True
        publisher.path("a.txt").write_text("half")
    publishers[0].close()
    assert files(out) == {f".parts/2-{os.getpid()}/0/a.txt": "half"}
    publishers[1].close()
    assert list(out.iterdir()) == []


def test_parts_of_dead_workers_are_swept(out: Path) -> None:
    """Those of the living, and what is not a worker's, stay."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    names = [f"1-{GONE}", f"2-{child.pid}", "notes", "1-1"]
    for name in names:
        (out / ".parts" / name / "0").mkdir(parents=True)
        (out / ".parts" / name / "0" / "a.txt").write_text("half")
    sweep(out)
    assert sorted(path.name for path in (out / ".parts").iterdir()) == sorted(names[1:])
    child.communicate(b"\n")
    sweep(out)
    assert sorted(path.name for path in (out / ".parts").iterdir()) == ["1-1", "notes"]


def test_a_pid_that_came_round_again_starts_afresh(out: Path) -> None:
    """The parts of an earlier worker with this one's number and pid are not taken for its own."""
    old = out / ".parts" / f"3-{os.getpid()}" / "0" / "a.txt"
    old.parent.mkdir(parents=True)
    old.write_text("old")
    publisher = Publisher(out, 3)
    assert not old.exists()
    publisher.close()
