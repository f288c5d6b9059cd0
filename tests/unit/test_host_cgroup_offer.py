"""What a survey makes of hosts that this one is not, from pictures of their files."""

import errno
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from supervisor.host import cgroup_files, cgroup_memory
from supervisor.host.cgroup import Leaf
from supervisor.host.cgroup_offer import look, survey

ME = os.getpid()
ROOT, USER = 0, os.geteuid() or 1000


@dataclass
class Host:
    """A picture of a host: /proc of this process, and one cgroup v2 hierarchy."""

    proc: Path
    top: Path

    def standing(self, own: str, *, options: str = "rw", root: str = "/") -> None:
        """Say where this process stands in the hierarchy, and how that is mounted."""
        (self.proc / "self").mkdir(parents=True, exist_ok=True)
        (self.proc / "self/cgroup").write_text(f"1:name=systemd:/x\n0::{own}\n")
        plain = str(self.top).replace(" ", "\\040")
        (self.proc / "self/mountinfo").write_text(
            "22 1 0:1 / / rw,relatime - ext4 /dev/vda rw\n"
            f"31 22 0:28 {root} {plain} {options},nosuid shared:9 - cgroup2 cgroup2 rw\n"
        )

    def cgroup(self, path: str, *, own: str = "", down: str = "", pids: str = "") -> Path:
        """Make a cgroup with its controllers, those it hands down, and its processes."""
        folder = self.top / path.lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        content = {"controllers": own, "subtree_control": down, "procs": pids}
        for name, text in content.items():
            (folder / f"cgroup.{name}").write_text(text)
        if folder != self.top:
            self.typed(path)
        return folder

    def typed(self, path: str) -> None:
        """Add the files that every cgroup has but the kernel's own root."""
        for name in ("type", "kill"):
            (self.top / path.lstrip("/") / f"cgroup.{name}").write_text("")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Give a host without anything, whose cgroup files take what the kernel's take."""
    monkeypatch.setattr(cgroup_files, "write", as_the_kernel)
    top = tmp_path / "a cgroup"
    top.mkdir()
    return Host(tmp_path / "proc", top)


def as_the_kernel(file: Path, text: str) -> None:
    """Write a cgroup file with the meaning it has: a move, or a controller for those below."""
    if not file.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
    if file.name == "cgroup.procs":
        for other in file.parents[1].rglob("cgroup.procs"):
            left = [pid for pid in other.read_text().split() if pid != str(ME)]
            other.write_text("\n".join(left))
        file.write_text(f"{ME}\n")
    elif file.name == "cgroup.subtree_control":
        is_root = not file.with_name("cgroup.type").exists()
        if file.with_name("cgroup.procs").read_text() and not is_root:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(file))
        file.write_text(f"{file.read_text()} {text.removeprefix('+')}")
    else:
        file.write_text(text)


def test_root_gets_a_tree_at_the_top(host: Host) -> None:
    """Root on a host with cgroup v2 alone makes its leaves in one folder at the top."""
    host.standing("/user.slice/session-1.scope")
    host.cgroup("/", own="cpu memory pids", down="memory", pids="1")
    host.cgroup("/user.slice/session-1.scope", own="memory pids", pids=f"{ME} 77")
    host.cgroup("/supervise", own="memory pids")
    offer = look(host.proc, ROOT)
    assert (offer.kill, offer.memory, offer.pids) == (host.top / "supervise",) * 3
    assert (offer.version_memory, offer.version_pids, offer.reasons) == (2, 2, ())
    # The root may have processes and hand down all the same; pids was missing.
    assert cgroup_files.words(host.top / "cgroup.subtree_control") == {"memory", "pids"}


@pytest.mark.parametrize("proof", ["top of a container", "owner", "mark of systemd"])
def test_a_delegated_cgroup_is_divided(host: Host, proof: str) -> None:
    """Alone in a cgroup of its own, this process moves below it, and leaves get controllers."""
    path = "/" if proof == "top of a container" else "/app.slice/run-1.scope"
    user = ROOT if proof == "top of a container" else USER
    host.standing(path)
    home = host.cgroup(path, own="cpu memory pids", pids=str(ME))
    host.typed(path)
    hand_over(home, proof)
    aside = host.cgroup(f"{path}/supervise-runner-{ME}")
    offer = look(host.proc, user)
    assert (offer.kill, offer.memory, offer.pids) == (home, home, home)
    assert offer.reasons == ()
    assert cgroup_files.pids(aside) == {ME}
    assert cgroup_files.words(home / "cgroup.subtree_control") == {"memory", "pids"}
    # Asked again, from where it stands now, it finds the same.
    host.standing(f"{path.rstrip('/')}/supervise-runner-{ME}")
    assert look(host.proc, user) == offer


def hand_over(home: Path, proof: str) -> None:
    """Give a cgroup to the ordinary user, in one of the ways in which that is seen."""
    if proof == "owner" and os.geteuid() == 0:
        for name in ("procs", "subtree_control"):
            os.chown(home / f"cgroup.{name}", USER, USER)
    if proof == "mark of systemd":
        try:
            os.setxattr(home, "user.delegate", b"1")
        except OSError as error:
            pytest.skip(f"this file system keeps no extended attributes: {error.strerror}")


def test_a_shared_cgroup_is_left_as_it_is(host: Host) -> None:
    """With a shell in the same cgroup nobody is moved: kill alone, and what memory would take."""
    host.standing("/")
    home = host.cgroup("/", own="memory pids", pids=f"{ME}\n4711")
    host.typed("/")
    offer = look(host.proc, ROOT)
    assert (offer.kill, offer.memory, offer.pids) == (home, None, None)
    assert len(offer.reasons) == 1
    assert offer.reasons[0].startswith("no memory limit, no pids limit: other processes are in")
    assert "-p Delegate=yes supervise run" in offer.reasons[0]
    assert cgroup_files.pids(home) == {ME, 4711}
    assert cgroup_files.content(home / "cgroup.subtree_control") == ""


def test_cgroups_of_runners_that_are_gone_are_cleared_away(host: Host) -> None:
    """An empty cgroup of an earlier runner goes; another program's of a like name stays."""
    host.standing("/")
    home = host.cgroup("/", own="", pids=str(ME))
    host.typed("/")
    (home / "supervise-runner-1").mkdir()
    (home / "supervise-runner-mail.service").mkdir()
    look(host.proc, ROOT)
    assert not (home / "supervise-runner-1").exists()
    assert (home / "supervise-runner-mail.service").exists()


def test_a_runner_inside_a_leaf_makes_siblings(host: Host) -> None:
    """A worker that is a runner itself has its leaves beside the one it stands in."""
    host.standing("/supervise-a.b-3-0badcafe")
    home = host.cgroup("/", own="memory pids", down="memory pids")
    host.typed("/")
    host.cgroup("/supervise-a.b-3-0badcafe", pids=str(ME))
    assert look(host.proc, ROOT).memory == home


def test_a_read_only_mount_is_told(host: Host) -> None:
    """Docker's default offers nothing, for one reason, which says how to start the container."""
    host.standing("/", options="ro")
    host.cgroup("/", own="memory pids", pids=str(ME))
    offer = look(host.proc, ROOT)
    assert (offer.kill, offer.memory, offer.pids) == (None, None, None)
    [reason] = offer.reasons
    assert reason.startswith(
        f"no kill of a whole cgroup, no memory limit, no pids limit: {host.top} is"
    )
    assert "--cgroupns=private" in reason


def test_an_old_kernel_and_a_missing_controller_are_told_apart(host: Host) -> None:
    """Without cgroup.kill memory is still limited; a controller that is off names its switch."""
    host.standing("/x")
    host.cgroup("/", own="pids", down="pids")
    host.cgroup("/supervise")
    (host.top / "supervise/cgroup.kill").unlink()
    offer = look(host.proc, ROOT)
    assert (offer.kill, offer.memory, offer.pids) == (None, None, host.top / "supervise")
    assert [reason.partition(":")[0] for reason in offer.reasons] == [
        "no kill of a whole cgroup",
        "no memory limit",
    ]
    assert "Linux 5.14" in offer.reasons[0]
    assert "cgroup_disable=memory" in offer.reasons[1]


def test_a_cgroup_that_is_not_ours_is_not_divided(host: Host) -> None:
    """A cgroup that this user may write and was not given has leaves, and nobody is moved."""
    host.standing("/shared")
    home = host.cgroup("/shared", own="memory pids", down="pids", pids=str(ME))
    offer = look(host.proc, 4242)
    assert (offer.kill, offer.memory, offer.pids) == (home, None, home)
    assert "processes are in" in offer.reasons[0]
    assert cgroup_files.pids(home) == {ME}
    (home / "cgroup.procs").unlink()  # which nobody may write then
    [reason] = look(host.proc, 4242).reasons
    assert f"this user may not make cgroups in {home}" in reason


def test_what_cannot_be_made_or_entered_is_told(host: Host) -> None:
    """A folder that cannot be made, or not be moved into, becomes a reason with the error."""
    host.standing("/")
    host.cgroup("/", own="memory pids", pids=str(ME))
    (host.top / "supervise").write_text("in the way")
    assert "supervise could not be made (File exists)" in look(host.proc, ROOT).reasons[0]
    host.typed("/")  # now it is a container's, whose new cgroups have no files in this picture
    offer = look(host.proc, ROOT)
    assert (offer.kill, offer.memory) == (host.top, None)
    assert "cannot move below" in offer.reasons[0]


def test_a_controller_that_is_refused_is_told(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the kernel does not hand a controller down, the survey says so and goes on."""

    def refused(file: Path, text: str) -> None:
        raise OSError(errno.EBUSY, text, str(file))

    host.standing("/run.scope")
    host.cgroup("/", own="memory pids", down="pids")
    host.cgroup("/supervise")
    monkeypatch.setattr(cgroup_files, "write", refused)
    offer = look(host.proc, ROOT)
    assert (offer.memory, offer.pids) == (None, host.top / "supervise")
    assert offer.reasons[0].startswith("no memory limit: processes are in")


@pytest.mark.parametrize("own", ["/../outside", "/gone (deleted)"])
def test_a_place_out_of_sight_is_told(host: Host, own: str) -> None:
    """A process whose cgroup no mount shows is offered nothing, and told so."""
    host.standing(own)
    host.cgroup("/")
    offer = look(host.proc, 1000)
    assert offer.kill is None
    assert "is not among the mounted ones" in offer.reasons[0]


def test_the_mount_that_shows_us_is_used(host: Host) -> None:
    """Of two mounts of a hierarchy the one in which this process can be seen is looked at."""
    host.standing("/docker/abc", root="/docker/abc")
    home = host.cgroup("/", own="", pids=str(ME))
    host.typed("/")
    mounts = host.proc / "self/mountinfo"
    mounts.write_text(
        f"30 22 0:28 /else {home.parent} rw - cgroup2 cgroup2 rw\n{mounts.read_text()}"
    )
    assert look(host.proc, ROOT).kill == home


def test_processes_of_other_namespaces_are_nobody_here(host: Host) -> None:
    """Who lives outside our pid namespace is listed as 0: no member, but company all the same."""
    host.standing("/")
    home = host.cgroup("/", own="memory", pids=f"{ME}\n0\n")
    host.typed("/")
    assert cgroup_files.pids(home) == {ME}
    assert "other processes are in" in look(host.proc, ROOT).reasons[0]


def test_a_bind_mounted_part_is_followed(host: Host) -> None:
    """A container of the host's namespace sees its part of the hierarchy at the mount."""
    host.standing("/docker/abc", root="/docker/abc")
    home = host.cgroup("/", own="", pids=str(ME))
    host.typed("/")
    assert look(host.proc, ROOT).kill == home


def test_rubbish_is_survived(host: Host) -> None:
    """No /proc, and files that make no sense, are a host that offers nothing."""
    nothing = look(host.proc, ROOT)
    (host.proc / "self").mkdir(parents=True)
    (host.proc / "self/cgroup").write_text("0\n\n::\n7:memory\n")
    (host.proc / "self/mountinfo").write_text("\n - \n1 2 - cgroup2\n1 2 3 4 5 6 - cgroup a b\n")
    assert look(host.proc, ROOT) == nothing
    assert "no cgroup v2 hierarchy is mounted" in nothing.reasons[0]


def test_version_one_alone_gives_limits(host: Host) -> None:
    """An old host gives memory and pids by version 1, beside our own place for a user's."""
    (host.proc / "self").mkdir(parents=True)
    (host.proc / "self/cgroup").write_text("4:cpu,pids:/me\n3:memory:/me\n2:freezer:/\n")
    mounts = ""
    for name in ("memory", "pids", "freezer"):
        point = str(host.cgroup(f"{name}/me").parent).replace(" ", "\\040")
        mounts += f"31 22 0:28 / {point} rw - cgroup cgroup rw,{name}\n"
    (host.proc / "self/mountinfo").write_text(mounts)
    of_user, of_root = look(host.proc, 1000), look(host.proc, ROOT)
    assert (of_user.memory, of_user.version_memory) == (host.top / "memory/me", 1)
    assert (of_root.pids, of_root.version_pids) == (host.top / "pids/supervise", 1)
    assert of_user.freezer == host.top / "freezer"
    assert [reason.partition(":")[0] for reason in of_user.reasons] == ["no kill of a whole cgroup"]


def test_version_two_is_limited_and_read(host: Host) -> None:
    """Memory of a version 2 leaf is limited without a way round by swap, and read back."""
    folder = host.cgroup("/leaf")
    for name in ("memory.max", "memory.swap.max"):
        (folder / name).write_text("max")
    cgroup_memory.limit(folder, 2, 4096)
    assert (folder / "memory.max").read_text() == "4096"
    assert (folder / "memory.swap.max").read_text() == "0"
    (folder / "memory.peak").write_text("4000\n")
    (folder / "memory.current").write_text("12\n")
    (folder / "memory.events").write_text("low 0\nmax 9\noom 2\noom_kill 3\noom_group_kill 1\n")
    assert cgroup_memory.facts(folder, 2) == cgroup_memory.MemoryFacts(
        limit_bytes=4096,
        peak_bytes=4000,
        used_bytes=12,
        oom_kills=3,
        at_limit=True,
        source="cgroup v2",
    )
    (folder / "memory.max").write_text("max\n")
    (folder / "memory.peak").unlink()
    facts = cgroup_memory.facts(folder, 2)
    assert (facts.limit_bytes, facts.peak_bytes) == (None, None)


def test_a_leaf_of_version_two_is_one_folder(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """With version 2 alone one folder has every lever, and dies as a whole when memory is out."""
    host.standing("/")
    host.cgroup("/", own="memory pids", down="memory pids", pids="1")
    tree = host.cgroup("/supervise", own="memory pids")
    written: list[tuple[str, str]] = []
    monkeypatch.setattr(cgroup_files, "write", lambda file, text: written.append((file.name, text)))
    leaf = Leaf.make(look(host.proc, ROOT), "supervise-a-1-00000000")
    leaf.limit(memory_bytes=100, pids=7)
    leaf.kill()
    assert leaf.entries == (tree / leaf.name / "cgroup.procs",)
    assert written == [
        ("cgroup.subtree_control", "+memory"),
        ("cgroup.subtree_control", "+pids"),
        ("memory.oom.group", "1"),
        ("memory.max", "100"),
        ("memory.swap.max", "0"),
        ("pids.max", "7"),
        ("cgroup.kill", "1"),
    ]


def test_a_leaf_is_made_in_all_its_folders_or_in_none(host: Host) -> None:
    """When one hierarchy refuses, what was made in the others is removed again."""
    host.standing("/")
    host.cgroup("/", own="", pids="1")
    offer = look(host.proc, ROOT)
    (host.top / "supervise").mkdir()
    broken = type(offer)(memory=host.top / "supervise", pids=host.top / "cgroup.procs")
    with pytest.raises(OSError, match=r"cgroup\.procs"):
        Leaf.make(broken, "supervise-a-1-00000000")
    assert not (host.top / "supervise").exists()


def test_the_survey_of_this_host_is_an_answer() -> None:
    """Whatever this host is, every lever is offered or has a reason."""
    offer = survey()
    missing = [name for name in ("kill", "memory", "pids") if getattr(offer, name) is None]
    assert bool(missing) == bool(offer.reasons)
