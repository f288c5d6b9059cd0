"""Where checkpoints are, in what order, and which names never count."""

import json
import os
import socket
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest

from supervisor.checkpoint import (
    Fingerprint,
    Layout,
    StepFromJson,
    StepFromName,
    StepFromPointer,
    find,
    fingerprint,
    growth,
)
from supervisor.checkpoint.names import hidden, is_ours, is_temporary, with_suffix
from supervisor.checkpoint.walk import Walk


def steps(layout: Layout) -> list[int]:
    """List the steps found, in order."""
    return [found.step for found in find(layout).found]


def touch(root: Path, *names: str) -> None:
    """Make small files."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name, errors="surrogateescape")


def test_order_is_by_step(tmp_path: Path) -> None:
    """Step 10 comes before step 9, whatever the names and times say; ties go by path."""
    touch(tmp_path, "c_9.pt", "c_10.pt", "b_10.pt", "c_0100.pt")
    os.utime(tmp_path / "c_9.pt", (2e9, 2e9))

    found = find(Layout(tmp_path, "*.pt")).found

    assert [one.path.name for one in found] == ["c_0100.pt", "b_10.pt", "c_10.pt", "c_9.pt"]


@pytest.mark.parametrize(
    ("name", "pattern", "step"),
    [
        ("epoch=3-step=1200.ckpt", None, 1200),
        ("model_0004999.pth", None, 4999),
        ("ckpt.17", None, 17),
        ("weights.mp4", None, 4),
        ("last.pt", None, None),
        ("a_" + "9" * 19 + ".pt", None, None),
        ("a_१२.pt", None, None),
        ("epoch=3-step=1200-v1.ckpt", r"step=(\d+)", 1200),
        ("e3_s1200.pt", r"s(?P<step>\d+)", 1200),
        ("e3_s1200.pt", r"(x)?(\d+)$", None),
        ("e3_s1200.pt", r"\d+", 1200),
        ("step-5/model.pt", r"step-(\d+)", 5),
        ("e-5.pt", r"e(-\d+)", None),
    ],
)
def test_step_from_name(tmp_path: Path, name: str, pattern: str | None, step: int | None) -> None:
    """The step is the last number of the name, or what the pattern says; or there is none."""
    layout = Layout(tmp_path, "**/*.*", StepFromName(pattern))
    touch(tmp_path, name)
    listing = find(layout)

    assert [one.step for one in listing.found] == ([] if step is None else [step])
    assert len(listing.skipped) == (step is None)


@pytest.mark.parametrize(
    ("content", "step"),
    [
        ('{"global_step": 40, "h": [{"s": 4}]}', 40),
        ('{"global_step": "40"}', 40),
        ('{"global_step": 40.0}', 40),
        ('{"global_step": 40.5}', None),
        ('{"global_step": true}', None),
        ('{"global_step": null}', None),
        ('{"global_step": -1}', None),
        ('{"global_step": [1]}', None),
        ('{"global_step": 1e400}', None),
        ("{}", None),
        ("[]", None),
        ("", None),
        ('{"global_step": 4', None),
        ("[" * 100_000, None),
        ('{"global_step": ' + "9" * 5000 + "}", None),
    ],
    ids=lambda value: str(value)[:30],
)
def test_step_from_json(tmp_path: Path, content: str, step: int | None) -> None:
    """The step is read from a JSON file in the folder; anything but an integer is no step."""
    layout = Layout(tmp_path, "checkpoint-*", StepFromJson("trainer_state.json", "global_step"))
    touch(tmp_path, "checkpoint-x/model.bin")
    (tmp_path / "checkpoint-x" / "trainer_state.json").write_text(content)
    listing = find(layout)

    assert [one.step for one in listing.found] == ([] if step is None else [step])
    assert all(one.reason for one in listing.skipped)


def test_step_from_nested_json_beside_a_file(tmp_path: Path) -> None:
    """A dotted key reaches into objects and lists; for a file the JSON lies beside it."""
    touch(tmp_path, "last.pt")
    (tmp_path / "log.json").write_text(json.dumps({"epochs": [{"step": 1}, {"step": 2}]}))

    assert steps(Layout(tmp_path, "last.pt", StepFromJson("log.json", "epochs.-1.step"))) == [2]
    assert steps(Layout(tmp_path, "last.pt", StepFromJson("log.json", "epochs.7.step"))) == []
    assert steps(Layout(tmp_path, "last.pt", StepFromJson("none.json", "epochs"))) == []


@pytest.mark.parametrize(
    ("content", "step"),
    [
        ("500\n", 500),
        ("iter_0000500", 500),
        ("", None),
        ("a", None),
        ("1 2", None),
        ("\0", None),
    ],
)
def test_step_from_pointer(tmp_path: Path, content: str, step: int | None) -> None:
    """The one integer of a text file is the step of one fixed checkpoint."""
    touch(tmp_path, "last.pt")
    (tmp_path / "latest.txt").write_text(content)

    assert steps(Layout(tmp_path, "last.pt", StepFromPointer("latest.txt"))) == (
        [] if step is None else [step]
    )


@pytest.mark.timeout(10)
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """Pipes and sockets, as checkpoint or as the step's file, are passed over, never opened."""
    os.mkfifo(tmp_path / "ckpt_1.pt")
    os.mkfifo(tmp_path / "step")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "ckpt_2.pt"))
    touch(tmp_path, "last.pt")

    assert steps(Layout(tmp_path, "ckpt_*.pt")) == []
    assert steps(Layout(tmp_path, "last.pt", StepFromPointer("step"))) == []


def test_missing_root_and_file_as_root(tmp_path: Path) -> None:
    """Before the first checkpoint there is nothing, and that is no error."""
    touch(tmp_path, "file")
    for root in (tmp_path / "none", tmp_path / "file"):
        listing = find(Layout(root, "**/*.pt"))
        assert (listing.found, listing.skipped) == ((), ())
        assert growth(Layout(root, "*.pt")).count == 0


UNFINISHED = (
    "ckpt_5.pt.tmp",
    "ckpt_5.pt.tmp.123",
    "tmp-checkpoint-500",
    "ckpt_5.incomplete",
    "500.orbax-checkpoint-tmp-17",
    ".ckpt_5.pt.x7Fq",
    "ckpt_5.pt~",
    "ckpt_5.part",
)
OURS = (".set-aside", "ckpt_5.pt.set-aside-1", "ckpt_5.pt.set-aside-12.why.txt")


@pytest.mark.parametrize("name", UNFINISHED + OURS)
def test_names_that_never_count(tmp_path: Path, name: str) -> None:
    """Unfinished names and our own are no candidates, not even for the glob `*`."""
    touch(tmp_path, name, f"folder_1/{name}")
    (tmp_path / "ckpt_4.pt").write_text("")

    assert steps(Layout(tmp_path, "*.*")) == [4]
    assert steps(Layout(tmp_path, "folder_1/*")) == []
    assert is_temporary(name) or is_ours(name)


@pytest.mark.parametrize(
    "name", ["template_5.pt", "attempt-3.pt", "partial_fc_5.pt", "my.temperature_4"]
)
def test_innocent_names(name: str) -> None:
    """A name that merely contains such a word counts."""
    assert not is_temporary(name)


def test_hidden_folder_on_request(tmp_path: Path) -> None:
    """A hidden name is found when the glob asks for one."""
    touch(tmp_path, ".ckpts/a_3.pt", ".b_4.pt")

    assert steps(Layout(tmp_path, ".ckpts/*.pt")) == [3]
    assert steps(Layout(tmp_path, ".b*.pt")) == [4]
    assert steps(Layout(tmp_path, "**/*.pt")) == []


def test_one_inode_counts_once(tmp_path: Path) -> None:
    """A link to a checkpoint, symbolic or hard, is not a second one; the real name wins."""
    touch(tmp_path, "epoch_3.pt", "epoch_4.pt")
    (tmp_path / "last.pt").symlink_to("epoch_3.pt")
    (tmp_path / "epoch_9.pt").symlink_to("epoch_3.pt")
    (tmp_path / "best_1.pt").hardlink_to(tmp_path / "epoch_4.pt")

    listing = find(Layout(tmp_path, "*.pt"))

    assert [one.path.name for one in listing.found] == ["epoch_4.pt", "epoch_3.pt"]
    assert listing.skipped == ()


def test_link_out_of_the_folder(tmp_path: Path) -> None:
    """A link whose target no glob reaches is a checkpoint under the link's name."""
    touch(tmp_path, "store/x", "root/.keep")
    (tmp_path / "root" / "ckpt_2.pt").symlink_to("../store/x")

    (found,) = find(Layout(tmp_path / "root", "*.pt")).found

    assert found.path == tmp_path / "root" / "ckpt_2.pt"


def test_loops_and_dangling_links(tmp_path: Path) -> None:
    """Links to nothing and links in circles are passed over, in bounded time."""
    touch(tmp_path, "a/ckpt_1.pt")
    (tmp_path / "ckpt_2.pt").symlink_to("nothing")
    (tmp_path / "ckpt_3.pt").symlink_to("ckpt_3.pt")
    (tmp_path / "a" / "up").symlink_to("..", target_is_directory=True)

    assert steps(Layout(tmp_path, "**/*.pt")) == [1]
    assert steps(Layout(tmp_path, "**/**/**/*.pt")) == [1]


def test_strange_names(tmp_path: Path) -> None:
    """Names with line breaks, spaces, quotes or bytes that are not UTF-8 are names like others."""
    names = [b"a\n_1.pt", b"\xff\xfe_2.pt", b" '\"_3.pt", b"-rf_4.pt", b"[x]_5.pt"]
    for name in names:
        (tmp_path / os.fsdecode(name)).write_text("x")

    assert steps(Layout(tmp_path, "*.pt")) == [5, 4, 3, 2, 1]
    assert steps(Layout(tmp_path, "[[]x]_*.pt")) == [5]
    for found in find(Layout(tmp_path, "*.pt")).found:
        assert Fingerprint.from_token(found.fingerprint.token) == found.fingerprint


def test_folders_only(tmp_path: Path) -> None:
    """A glob that ends in a slash means folders."""
    touch(tmp_path, "checkpoint-1/a", "checkpoint-2")

    assert steps(Layout(tmp_path, "checkpoint-*/")) == [1]
    assert steps(Layout(tmp_path, "checkpoint-*")) == [2, 1]


def test_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of files are listed; beyond the bound the listing says that it stopped."""
    for number in range(3000):
        os.mknod(tmp_path / f"c_{number}.pt")

    assert steps(Layout(tmp_path, "*.pt"))[:2] == [2999, 2998]
    monkeypatch.setattr(
        import_module("supervisor.checkpoint.find"), "Walk", partial(Walk, budget=100)
    )
    (note,) = find(Layout(tmp_path, "*.pt")).skipped
    assert "not looked at" in note.reason
    assert note.unreadable


def test_vanishing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint deleted between listing and looking is not there."""
    touch(tmp_path, "c_1.pt", "c_2.pt")
    real = Path.stat

    def stat(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if path.name == "c_2.pt":
            path.unlink(missing_ok=True)
        return real(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", stat)

    assert steps(Layout(tmp_path, "*.pt")) == [1]


def test_unreadable_folder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that may not be listed is said, so that it never passes for an empty one."""
    touch(tmp_path, "run/c_1.pt")
    real = os.scandir

    def scandir(path: Path) -> object:
        if Path(path).name == "run":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    listing = find(Layout(tmp_path, "*/*.pt"))

    assert listing.found == ()
    assert [(one.path.name, one.unreadable) for one in listing.skipped] == [("run", True)]


@pytest.mark.parametrize(
    "build",
    [
        lambda root: Layout(root, ""),
        lambda root: Layout(root, "/abs/*.pt"),
        lambda root: Layout(root, "../*.pt"),
        lambda root: Layout(root, "*.pt", StepFromName("(")),
        lambda root: Layout(root, "*.pt", StepFromJson("../x.json", "a")),
        lambda root: Layout(root, "*.pt", StepFromPointer("/x")),
        lambda root: Layout(root, "*.pt", require=("/a",)),
        lambda root: Layout(root, "*.pt", forbid=("a/../../b",)),
        lambda root: Layout(root, "*.pt", pointer=Path("/latest")),
    ],
)
def test_impossible_layouts(tmp_path: Path, build: Callable[[Path], Layout]) -> None:
    """A layout that could never match, or reaches outside, is refused when it is built."""
    with pytest.raises(ValueError, match=r"inside the checkpoint folder|not valid"):
        build(tmp_path)


def test_fingerprint_of_a_folder(tmp_path: Path) -> None:
    """Any change inside a folder changes its fingerprint; reading does not."""
    touch(tmp_path, "d/a", "d/sub/b")
    (tmp_path / "d" / "dangling").symlink_to("nothing")
    seen = [fingerprint(tmp_path / "d")]
    (tmp_path / "d" / "a").read_bytes()
    assert fingerprint(tmp_path / "d") == seen[0]
    assert seen[0].size_bytes == len("d/a" + "d/sub/b")
    for change in (
        lambda: (tmp_path / "d/sub/b").write_text("longer by some"),
        lambda: os.utime(tmp_path / "d/a", (1, 1)),
        lambda: (tmp_path / "d/a").rename(tmp_path / "d/c"),
        lambda: touch(tmp_path, "d/sub/new"),
    ):
        change()
        seen.append(fingerprint(tmp_path / "d"))
    assert len(set(seen)) == len(seen)
    (tmp_path / "d/sub/new").unlink()
    assert fingerprint(tmp_path / "d").digest == seen[-2].digest


def test_fingerprint_sees_a_restored_time(tmp_path: Path) -> None:
    """Bytes replaced with size and modification time kept, as `rsync -t` does, are noticed."""
    touch(tmp_path, "a")
    before = fingerprint(tmp_path / "a")
    (tmp_path / "a").write_text("b")
    os.utime(tmp_path / "a", ns=(before.mtime_ns, before.mtime_ns))

    assert fingerprint(tmp_path / "a") != before


def test_growth(tmp_path: Path) -> None:
    """Writing changes the token, under whatever name; reading does not."""
    layout = Layout(tmp_path, "runs/checkpoint-*")
    touch(tmp_path, "runs/checkpoint-1/model.bin", "elsewhere/x")
    seen = [growth(layout)]
    touch(tmp_path, "elsewhere/y")
    (tmp_path / "runs/checkpoint-1/model.bin").read_bytes()
    assert growth(layout) == seen[0]
    for change in (
        lambda: touch(tmp_path, "runs/tmp-checkpoint-2/shard/a.bin"),
        lambda: touch(tmp_path, "runs/.checkpoint-2.x/a.bin"),
        lambda: touch(tmp_path, "runs/half.tmp"),
        lambda: (tmp_path / "runs/half.tmp").write_text("longer by some"),
        lambda: os.utime(tmp_path / "runs/half.tmp", (2e9, 2e9)),
        lambda: (tmp_path / "runs/half.tmp").rename(tmp_path / "runs/checkpoint-3"),
        (tmp_path / "runs/checkpoint-3").unlink,
    ):
        change()
        seen.append(growth(layout))
    assert len(set(seen)) == len(seen)


def test_growth_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders that the glob cannot reach, hidden ones and circles are not walked."""
    touch(tmp_path, "a_1.pt", ".venv/lib/x", "data/y", "d/z")
    (tmp_path / "d" / "up").symlink_to("..", target_is_directory=True)

    assert growth(Layout(tmp_path, "*.pt")).count == 1
    assert growth(Layout(tmp_path, "**/*.pt")).count < 10
    monkeypatch.setattr(import_module("supervisor.checkpoint.growth"), "ENTRY_LIMIT", 3)
    assert growth(Layout(tmp_path, "**/*.pt")).count <= 3


def test_long_names() -> None:
    """A name made from one of 255 bytes still fits a directory entry."""
    for name in ("x" * 255, "ä" * 127, "." + "y" * 254):
        assert len(os.fsencode(hidden(name, ".supervise-restore"))) <= 255
        assert len(os.fsencode(with_suffix(name, ".set-aside-1", spare_bytes=8))) <= 247
