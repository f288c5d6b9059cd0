"""Where session.publish puts what it is given, and what a writer that died has left there."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from workers import leftovers, placing, session
from workers.protocol import ENV_CHECKPOINTS, ENV_MEMORY_BUDGET, ENV_MEMORY_TIER, ENV_SESSION
from workers.publishing import Best, Publisher, newest, read_manifest


@pytest.fixture(autouse=True)
def _untold(monkeypatch):
    """Let each test be told what is told once."""
    monkeypatch.setattr(placing, "_told", set())


def files(folder: Path) -> dict[str, bytes]:
    """Return what a checkpoint holds, without its manifest."""
    names = read_manifest(folder)["files"]
    return {name: (folder / name).read_bytes() for name in names}


@pytest.mark.parametrize("shares", [True, False])
def test_a_file_is_copied_under_its_own_name(shares, tmp_path, monkeypatch) -> None:
    """What the script writes into its file later does not change the checkpoint."""
    if not shares:

        def refuse(*_: object) -> None:
            raise OSError(errno.EOPNOTSUPP, "no")

        monkeypatch.setattr(fcntl, "ioctl", refuse)
    last = tmp_path / "last.bin"
    last.write_bytes(b"one")
    path = session.publish(str(last), 3, folder=tmp_path / "ckpt")
    last.write_bytes(b"two")
    assert path is not None
    assert files(path) == {"last.bin": b"one"}


def test_of_a_folder_the_contents_are_copied(tmp_path) -> None:
    """With the folders in it; the original stays."""
    made = tmp_path / "made"
    (made / "sub" / "empty").mkdir(parents=True)
    (made / "a").write_bytes(b"a")
    (made / "sub" / "b").write_bytes(b"b")
    path = session.publish(made, 3, folder=tmp_path / "ckpt", keep=1, best=Best("loss"))
    assert path is not None
    assert files(path) == {"a": b"a", "sub/b": b"b"}
    assert (made / "sub" / "b").read_bytes() == b"b"


def test_links_in_a_folder_are_refused(tmp_path) -> None:
    """What they point to may change, or lie elsewhere tomorrow."""
    made = tmp_path / "made"
    made.mkdir()
    (made / "a").symlink_to("/etc/hostname")
    with pytest.raises(ValueError, match="holds links"):
        session.publish(made, 3, folder=tmp_path / "ckpt")
    assert list((tmp_path / "ckpt").iterdir()) == []


def test_a_file_that_is_not_there_is_the_scripts_mistake(tmp_path) -> None:
    """It is named, and nothing is left."""
    with pytest.raises(FileNotFoundError, match=r"no\.pt"):
        session.publish(tmp_path / "no.pt", 3, folder=tmp_path / "ckpt")
    assert list((tmp_path / "ckpt").iterdir()) == []


def test_the_job_says_where_and_a_script_may_say_otherwise(tmp_path, monkeypatch) -> None:
    """Each tier has its folder; that of the memory tier keeps one unless told."""
    monkeypatch.setenv(ENV_CHECKPOINTS, str(tmp_path / "disk"))
    monkeypatch.setenv(ENV_MEMORY_TIER, str(tmp_path / "memory"))

    def write(folder: Path) -> None:
        (folder / "x").write_bytes(b"x")

    for step in (1, 2):
        disk = session.publish(write, step)
        memory = session.publish(write, step, tier="memory")
        own = session.publish(write, step, folder=tmp_path / "own")
    assert disk == tmp_path / "disk" / "step-000000002"
    assert memory == tmp_path / "memory" / "step-000000002"
    assert own == tmp_path / "own" / "step-000000002"
    assert len(list((tmp_path / "disk").glob("step-*"))) == 2
    assert len(list((tmp_path / "memory").glob("step-*"))) == 1
    assert read_manifest(memory)["tier"] == "memory"


def test_a_full_memory_tier_is_told_once_and_ends_nothing(tmp_path, monkeypatch, capfd) -> None:
    """None is returned; what a writer itself did wrong is raised all the same."""
    monkeypatch.setenv(ENV_MEMORY_TIER, str(tmp_path))
    monkeypatch.setenv(ENV_MEMORY_BUDGET, "10")

    def write(folder: Path) -> None:
        (folder / "x").write_bytes(b"x" * 100)

    for step in (1, 2):
        assert session.publish(write, step, tier="memory") is None
    told = capfd.readouterr().err
    assert told.count("no checkpoints are kept in memory") == 1
    assert "may hold 10 bytes" in told
    with pytest.raises(ZeroDivisionError):
        session.publish(lambda _: 1 / 0, 3, tier="memory")
    assert list(tmp_path.iterdir()) == []


def test_a_job_without_a_folder_is_told_so_once(monkeypatch, capfd) -> None:
    """And trains on."""
    monkeypatch.setenv(ENV_SESSION, "/nowhere")
    for _ in (1, 2):
        assert placing.publisher_of() is None
    assert capfd.readouterr().err.count("checkpoint.dir") == 1
    monkeypatch.setattr(sys, "stderr", None)
    placing.tell("to nobody")
    assert placing.publisher_of(tier="memory") is None


def dead_pid() -> int:
    """Return the pid of a process that has ended."""
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


def left(folder: Path, pid: int, word: str = "partial", *, age_s: float = 0) -> Path:
    """Return what a writer has left, as old as that."""
    path = folder / f".step-000000005.{pid}.{word}"
    path.mkdir()
    (path / "x").write_bytes(b"x")
    now = path.stat().st_mtime
    os.utime(path, (now - age_s, now - age_s))
    return path


def test_what_the_dead_left_is_removed_and_nothing_of_the_living(tmp_path) -> None:
    """The lock tells a writer from another process that has its pid by now."""
    gone = left(tmp_path, dead_pid())
    mine = left(tmp_path, os.getpid())  # of a process that had this pid before
    reused = left(tmp_path, 1, age_s=3600)
    young = left(tmp_path, os.getppid())
    locked = left(tmp_path, dead_pid() + (1 << 23), age_s=3600)  # in another pid namespace
    fd = os.open(locked, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        (tmp_path / f".last.{dead_pid()}").symlink_to("step-000000001")
        (tmp_path / f".best.{os.getpid()}").symlink_to("step-000000001")
        leftovers.sweep(tmp_path)
    finally:
        os.close(fd)
    assert [path.exists() for path in (gone, mine, reused, young, locked)] == [
        False, False, False, True, True,
    ]  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_symlink()) == [
        f".best.{os.getpid()}"
    ]


def test_without_locks_the_pid_has_to_do(tmp_path, monkeypatch) -> None:
    """On a file system that has none, what may be alive stays."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    gone, alive = left(tmp_path, dead_pid()), left(tmp_path, 1, age_s=3600)
    made = Publisher(tmp_path).publish(lambda folder: (folder / "x").write_bytes(b"x"), 1)
    assert (gone.exists(), alive.exists()) == (False, True)
    assert newest(tmp_path) == made.path


def test_a_replaced_one_comes_back_only_when_it_is_whole(tmp_path) -> None:
    """And only where its successor never came."""
    made = Publisher(tmp_path).publish(lambda folder: (folder / "x").write_bytes(b"x"), 5).path
    replaced = tmp_path / f".step-000000005.{dead_pid()}.replaced"
    made.rename(replaced)
    assert newest(tmp_path) == made
    made.rename(replaced)
    (replaced / "x").write_bytes(b"y")
    assert newest(tmp_path) is None
    leftovers.sweep(tmp_path)
    assert not replaced.exists()


def test_a_folder_that_cannot_be_written_is_raised(tmp_path, monkeypatch) -> None:
    """As the system says it, before the writer is called."""
    called = []

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(PermissionError, match="Permission denied"):
        session.publish(called.append, 1, folder=tmp_path)
    assert called == []
