"""What this host can give of its memory, and whether a folder lies there."""

from pathlib import Path

import pytest

from supervisor.host import tmpfs
from supervisor.host.tmpfs import available_bytes, free_bytes, is_tmpfs

GIB = 1 << 30
MOUNTS = """\
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
22 21 0:5 / {shm} rw,nosuid - tmpfs tmpfs rw,size=64k
23 22 254:1 / {shm}/disk rw - ext4 /dev/vdb rw
24 21 0:9 / {over} rw - tmpfs tmpfs rw
25 21 254:2 / {over} rw - xfs /dev/vdc rw
damaged
"""


def test_the_deepest_mount_says_what_a_folder_lies_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links are followed, and of two mounts at one place the later one is seen."""
    shm, over = tmp_path / "shm", tmp_path / "over"
    for folder in (shm / "a", shm / "disk", over, tmp_path / "proc" / "self"):
        folder.mkdir(parents=True)
    (tmp_path / "link").symlink_to(shm)
    text = MOUNTS.format(shm=shm, over=over)
    (tmp_path / "proc" / "self" / "mountinfo").write_text(text)
    monkeypatch.setattr(tmpfs, "PROC", tmp_path / "proc")
    lies = [is_tmpfs(one) for one in (shm, shm / "a", tmp_path / "link")]
    assert lies == [True, True, True]
    others = (tmp_path, shm / "disk", over, shm / "none", tmp_path / "shm-like")
    assert not any(is_tmpfs(one) for one in others)
    monkeypatch.setattr(tmpfs, "PROC", tmp_path / "nowhere")
    assert not is_tmpfs(shm)


def _proc(root: Path, groups: str, mounts: str) -> Path:
    (root / "self").mkdir(parents=True)
    (root / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable:  33554432 kB\n")
    (root / "self" / "cgroup").write_text(groups)
    (root / "self" / "mountinfo").write_text(mounts)
    return root


def _group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)


def test_a_container_gives_no_more_than_its_limit(tmp_path: Path) -> None:
    """The tightest of version 2's limits on the way up; what is only cached can be had."""
    point = tmp_path / "cgroup"
    proc = _proc(tmp_path / "proc", "0::/box/job\n", f"9 1 0:1 / {point} rw - cgroup2 cgroup2 rw\n")
    _group(point / "box" / "job", memory__max="max\n", memory__current="5\n")
    assert available_bytes(proc) == 32 * GIB
    _group(
        point / "box",
        memory__max=f"{8 * GIB}\n",
        memory__current=f"{7 * GIB}\n",
        memory__stat=f"anon 9\ninactive_file {3 * GIB}\n",
    )
    assert available_bytes(proc) == 4 * GIB
    _group(point / "box", memory__current=f"{99 * GIB}\n")
    assert available_bytes(proc) == 0


def test_version_1_is_understood(tmp_path: Path) -> None:
    """Its files have other names; a limit that is none is huge."""
    point = tmp_path / "memory"
    proc = _proc(
        tmp_path / "proc",
        "4:memory:/box\n",
        f"9 1 0:1 / {point} rw - cgroup cgroup rw,memory\n",
    )
    _group(
        point / "box",
        memory__limit_in_bytes=f"{2**63 - 4096}\n",
        memory__usage_in_bytes="1\n",
    )
    assert available_bytes(proc) == 32 * GIB
    _group(point / "box", memory__limit_in_bytes=f"{2 * GIB}\n", memory__usage_in_bytes=f"{GIB}\n")
    assert available_bytes(proc) == GIB


def test_this_host_has_some() -> None:
    """The real files of this kernel are understood."""
    assert available_bytes() > 0
    assert free_bytes(Path("/")) > 0


def test_where_nothing_is_said_nothing_is_promised(tmp_path: Path) -> None:
    """No /proc, no budget."""
    assert available_bytes(tmp_path) == 0
