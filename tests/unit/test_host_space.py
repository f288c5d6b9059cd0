import errno
import math
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from supervisor.host.space import Space, low_water_bytes, room, same_file_system, space

KIB, MIB, GIB, TIB = 1024, 1024**2, 1024**3, 1024**4
Mount = Callable[[str], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mount a tmpfs of its own with these options, until the test ends."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        if os.geteuid():
            pytest.skip("only root may mount a file system of its own")
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path: Path) -> None:
    """Write until there is no space."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)


def counts(block: int, total: int, free: int, available: int, inodes: int) -> os.statvfs_result:
    """What the kernel would say of such a file system."""
    return os.statvfs_result((4096, block, total, free, available, inodes, 7, 5, 0, 255))


def say(monkeypatch: pytest.MonkeyPatch, answer: os.statvfs_result) -> None:
    """Let every file system give this answer."""
    monkeypatch.setattr(os, "statvfs", lambda _: answer)


def test_a_file_system_says_what_it_has(mount: Mount) -> None:
    """Total, free bytes and free inodes are those of the mount, and fall as files are written."""
    disk = mount("size=1m,nr_inodes=20")

    before = space(disk)
    (disk / "file").write_bytes(b"x" * 64 * KIB)

    assert Space(disk, MIB, MIB, 19) == before
    assert Space(disk, MIB - 64 * KIB, MIB, 18) == space(disk)


def test_a_folder_that_is_not_made_yet_is_answered_for_by_the_one_above(mount: Mount) -> None:
    """Missing folders, files in their place and links to what does not exist raise nothing."""
    disk = mount("size=1m")
    (disk / "file").touch()
    (disk / "link").symlink_to(disk / "far" / "away")
    loop = disk.parent / "loop"
    loop.symlink_to(loop)

    for path in (disk / "runs" / "a", disk / "file", disk / "file" / "x", disk / "link" / "x"):
        assert (disk, MIB) == (space(path).path, space(path).total_bytes)
    assert room(disk / "runs" / "a", 4 * KIB) is None
    assert not list(disk.glob("runs"))
    with pytest.raises(OSError, match="symbolic links"):
        space(loop)


def test_where_nothing_on_the_way_exists_the_root_answers() -> None:
    """A mistyped path is answered for too, down to the root of the host."""
    assert space(Path("/no-such-folder/at/all")).path == Path("/")


def test_a_link_is_followed_to_the_disk_it_leads_to(mount: Mount, tmp_path: Path) -> None:
    """Checkpoints behind a link are on the other disk, and that is the one that is asked."""
    disk = mount("size=1m")
    (tmp_path / "runs").symlink_to(disk)

    assert disk == space(tmp_path / "runs" / "new").path


def test_a_folder_that_vanishes_between_two_questions_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script that cleans up at the wrong moment does not stop the supervision."""
    going = tmp_path / "going"
    going.mkdir()
    ask = os.statvfs

    def remove_then_ask(path: Path) -> os.statvfs_result:
        if path == going and going.exists():
            going.rmdir()
        return ask(path)

    monkeypatch.setattr(os, "statvfs", remove_then_ask)

    assert tmp_path == space(going).path
    assert room(going, 0) is None


def test_a_folder_that_vanishes_before_the_probe_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder above answers, as if the vanished one had never been made."""
    going = tmp_path / "going"
    going.mkdir()
    really = os.open

    def remove_then_open(path: Path, flags: int, mode: int = 0o777) -> int:
        if path == going and going.exists():
            going.rmdir()
        return really(path, flags, mode)

    monkeypatch.setattr(os, "open", remove_then_open)

    assert room(going, 0) is None
    assert not going.exists()


def test_roots_reserve_is_not_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Free is what a user may take, also where a kernel says more than there is."""
    say(monkeypatch, counts(1024, 1000, 300, 200, 10))
    assert space(tmp_path).free_bytes == 200 * 1024

    say(monkeypatch, counts(1024, 1000, 300, 2**62, 10))
    assert space(tmp_path).free_bytes == 300 * 1024


def test_a_file_system_without_inodes_says_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No count of inodes is told apart from none left."""
    say(monkeypatch, counts(1024, 1000, 300, 200, 0))
    assert space(tmp_path).free_inodes is None


def test_paths_on_one_disk_are_one_group(mount: Mount) -> None:
    """State and checkpoints on the same disk are not counted twice, in the order they came."""
    one, other = mount("size=1m"), mount("size=1m")

    groups = same_file_system([one / "a", other, one / "b" / "c", other / "d"])

    assert ((one / "a", one / "b" / "c"), (other, other / "d")) == groups


def test_where_there_is_room_nothing_is_said_and_nothing_left(tmp_path: Path) -> None:
    """The probe is gone afterwards."""
    assert room(tmp_path, 1) is None
    assert list(tmp_path.iterdir()) == []


def test_the_probe_is_never_seen_in_the_folder(mount: Mount) -> None:
    """Looking for room is no sign of progress: the folder's time stays as it was."""
    disk = mount("size=1m")
    os.utime(disk, ns=(5, 5))

    assert room(disk, 1) is None

    assert disk.stat().st_mtime_ns == 5


def test_where_every_file_needs_a_name_the_probe_has_one_and_loses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Network file systems know no nameless files; a hidden one is made and is gone at once."""
    opened: list[str] = []
    really = os.open

    def named_only(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        opened.append(Path(path).name)
        return really(path, flags, mode)

    monkeypatch.setattr(os, "open", named_only)

    assert room(tmp_path, 1) is None

    assert [name[:16] for name in opened] == [".supervise-room-"]
    assert list(tmp_path.iterdir()) == []


def test_a_probe_that_cannot_be_removed_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that gives nothing back is not one to write checkpoints to."""
    really = os.open

    def named_only(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return really(path, flags, mode)

    def refuse(_: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "open", named_only)
    monkeypatch.setattr(Path, "unlink", refuse)

    assert f"{tmp_path}: no file can be written: operation not permitted" == room(tmp_path, 1)


def test_too_little_is_said_with_all_three_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Free, total and needed stand in one sentence, with units."""
    say(monkeypatch, counts(4096, 2 * TIB // 4096, 9, 12 * MIB // 4096, 5))
    assert room(tmp_path, GIB) == f"{tmp_path}: 36 KiB free of 2.0 TiB, 1.0 GiB are needed"

    say(monkeypatch, counts(4096, 2 * TIB // 4096, 2**40, 12 * MIB // 4096, 5))
    needed = math.ceil(3.1 * GIB)
    assert room(tmp_path, needed) == f"{tmp_path}: 12 MiB free of 2.0 TiB, 3.2 GiB are needed"


def test_free_is_rounded_down_and_need_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal never looks as if there were enough."""
    say(monkeypatch, counts(1, 10 * MIB, 2 * MIB - 1, 2 * MIB - 1, 5))

    assert room(tmp_path, 2 * MIB) == f"{tmp_path}: 1.9 MiB free of 10 MiB, 2.0 MiB are needed"


def test_a_full_disk_is_found_by_the_count(mount: Mount) -> None:
    """As long as the count is right nothing has to be written."""
    disk = mount("size=64k")
    fill(disk / "big")

    assert room(disk, 4 * KIB) == f"{disk}: 0 B free of 64 KiB, 4.0 KiB are needed"


def test_a_full_disk_is_found_by_writing(mount: Mount) -> None:
    """Where nothing is asked for, the probe still says that nothing fits."""
    disk = mount("size=64k")
    fill(disk / "big")

    assert room(disk, 0) == f"{disk}: 0 B free of 64 KiB, and nothing more can be written"


@pytest.mark.parametrize("options", ["size=64k", "size=1m", "size=64m"])
def test_the_smallest_disks_have_room_for_the_probe(mount: Mount, options: str) -> None:
    """An empty disk is never refused because the probe itself is too large for it."""
    assert room(mount(options), 16 * KIB) is None


def test_no_inodes_are_told_apart_from_no_space(mount: Mount) -> None:
    """A disk full of small files has space and takes no more; the reason names inodes."""
    disk = mount("size=1m,nr_inodes=4")
    with suppress(OSError):
        for number in range(10):
            (disk / str(number)).touch()

    assert room(disk, 4 * KIB) == (
        f"{disk}: no inodes left for another file, although 1.0 MiB free of 1.0 MiB"
    )


def test_a_disk_remounted_read_only_is_named(mount: Mount) -> None:
    """What the kernel does after disk errors is found although the counts are fine."""
    disk = mount("size=1m")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)

    found = room(disk, 4 * KIB)

    assert found is not None
    assert found.startswith(f"{disk}: mounted read-only")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EDQUOT, "the disk quota is used up, although "),
        (errno.EIO, "the disk fails or is unreachable (input/output error)"),
        (errno.ENOMEM, "no file can be written: cannot allocate memory"),
    ],
)
@pytest.mark.parametrize("call", ["open", "write", "fsync"])
def test_every_refusal_has_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, words: str
) -> None:
    """Quota, a dying disk and the unforeseen are told apart, wherever they strike."""

    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, refuse)

    found = room(tmp_path, 1)

    assert found is not None
    assert words in found


def test_a_file_system_that_cannot_sync_is_not_refused_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some take every write and know no fsync; jobs have always written there."""

    def refuse(_: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)

    assert room(tmp_path, 1) is None


def test_a_file_system_that_does_not_count_is_asked_by_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Total nought means that nothing is known, not that nothing is free."""
    say(monkeypatch, counts(4096, 0, 0, 0, 0))
    assert room(tmp_path, TIB) is None

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", refuse)
    assert room(tmp_path, 1) == (
        f"{tmp_path}: how much is free is not told, and nothing more can be written"
    )


def test_a_folder_that_takes_no_files_is_said_and_not_asked_for_ever() -> None:
    """/proc tells root that its own folder is missing, and others that they may not."""
    answers = [
        "/proc: no such file or directory",
        "/proc: no file can be written: permission denied",
    ]

    assert room(Path("/proc"), 0) == answers[os.geteuid() != 0]


def test_a_disk_that_fails_while_it_is_asked_has_words_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first question that fails is a reason; a second one that fails changes no reason."""
    answers = iter([os.statvfs(tmp_path)])

    def fail_later(_: Path) -> os.statvfs_result:
        try:
            return next(answers)
        except StopIteration:
            raise OSError(errno.EIO, "Input/output error") from None

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "statvfs", fail_later)
    monkeypatch.setattr(os, "write", refuse)

    assert str(room(tmp_path, 0)).endswith(", and nothing more can be written")
    assert f"{tmp_path}: it cannot be asked: input/output error" == room(tmp_path, 0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_one_may_not_write_to_is_named(tmp_path: Path) -> None:
    """Permission is the reason, not space."""
    tmp_path.chmod(0o500)

    assert f"{tmp_path}: no file can be written: permission denied" == room(tmp_path, 0)


@pytest.mark.parametrize(
    ("total", "newest", "expected"),
    [
        (TIB, None, GIB),
        (TIB, 0, GIB),
        (TIB, 10 * GIB, 20 * GIB),
        (TIB, 100 * MIB, GIB),
        (10 * GIB, None, 10 * GIB // 20),
        (10 * GIB, 300 * MIB, 600 * MIB),
        (0, None, 0),
    ],
)
def test_the_low_water_mark_is_two_checkpoints_or_a_share(
    total: int, newest: int | None, expected: int
) -> None:
    """Two more checkpoints always; at least a GiB, or 5 % of a smaller disk."""
    assert expected == low_water_bytes(total, newest)
