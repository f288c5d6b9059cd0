"""The checks of `supervise doctor`, each on hosts that have and that lack what it looks for."""

import os
import resource
import sys
from pathlib import Path

import pytest

from supervisor.cli.diagnosis import disk, evidence, gpus, host, memory, processes
from supervisor.cli.diagnosis.facts import Facts
from supervisor.gpu import shared_folder
from supervisor.gpu.leases import Leases, Owner
from supervisor.gpu.model import Inventory
from supervisor.gpu.probe import look
from supervisor.host.cgroup import Offer
from supervisor.host.cgroup_offer import look as look_at_cgroups
from supervisor.host.space import Space

TREE = Path("/cg/supervise")
WHOLE = Offer(TREE, TREE, TREE, version_memory=2, version_pids=2)
LEGACY = Offer(None, TREE, TREE, version_memory=1, version_pids=1, reasons=("no kill: mount it",))
NO_GPU = Inventory("", (), "NVML: libnvidia-ml.so.1 was not found")
MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:30 / /home rw,relatime - nfs4 server:/home rw
24 23 8:2 / /home/me/local rw - xfs /dev/sdb1 rw
25 22 0:31 / /with\\040space rw - tmpfs tmpfs rw
26 22 0:32 / /twice rw - ext4 /dev/sdc1 rw
27 26 0:33 / /twice rw - overlay overlay rw
"""


@pytest.fixture
def found(tmp_path):
    """Make one check: `found(module, "name", files={}, offer=, driver=)`."""

    def call(module, name, *, files=(), offer=WHOLE, driver=(NO_GPU, ()), state_dir=None):
        root = tmp_path / "root"
        for path, text in dict(files).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        facts = Facts(state_dir or tmp_path, root, lambda: offer, lambda: driver)
        check = next(one for one in module.CHECKS if one.name == name)
        return check.look(facts)

    return call


@pytest.fixture
def lease_dir(tmp_path, monkeypatch):
    """Make a lease folder of this test's own, open to all."""
    folder = tmp_path / "leases"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setenv(shared_folder.ENVIRONMENT, str(folder))
    return folder


@pytest.mark.parametrize(
    ("module", "name", "offer", "status", "words"),
    [
        (processes, "whole-tree kill", WHOLE, "ok", "cgroup v2: one write"),
        (processes, "whole-tree kill", LEGACY, "weak", "killed one by one"),
        (processes, "whole-tree kill", Offer(), "weak", "in a sweep"),
        (processes, "process limit", LEGACY, "ok", "cgroup v1"),
        (processes, "process limit", Offer(), "weak", "no pids controller"),
        (memory, "memory limit", WHOLE, "ok", "cgroup v2"),
        (memory, "memory limit", Offer(), "weak", "sampled"),
        (memory, "out-of-memory kills", LEGACY, "ok", "cgroup v1 counts"),
    ],
)
def test_control_groups(found, module, name, *, offer, status, words):
    """Each lever that is on offer is well; without it, the rung below is named."""
    seen = found(module, name, offer=offer)
    assert seen.status == status
    assert words in seen.found


@pytest.mark.parametrize("name", ["whole-tree kill", "process limit", "memory limit"])
def test_what_it_takes_is_told_in_the_words_of_the_survey(found, tmp_path, name):
    """The survey of a host without any hierarchy says what to mount, without what is lacking."""
    seen = found(
        memory if name == "memory limit" else processes, name, offer=look_at_cgroups(tmp_path, 0)
    )
    assert seen.do.startswith("No cgroup v2 hierarchy is mounted: boot with")


@pytest.mark.parametrize(
    ("files", "status", "words"),
    [
        ({"proc/vmstat": "nr_free_pages 1\noom_kill 3"}, "weak", "only counted for the whole host"),
        ({}, "missing", "not told at all"),
    ],
)
def test_out_of_memory_kills_without_control_groups(found, files, status, words):
    """Where neither group nor log tells, what is left is said, and what would mend it."""
    seen = found(memory, "out-of-memory kills", files=files, offer=LEGACY_WITHOUT_MEMORY)
    assert (seen.status, words in seen.found) == (status, True)
    assert seen.do.startswith("Delegate memory. Or else: ")


LEGACY_WITHOUT_MEMORY = Offer(reasons=("no memory limit: delegate memory",))


def test_the_kernel_s_log_of_outside_a_container_names_nobody_here(found, tmp_path):
    """A log that can be read helps only where its process ids are ours."""
    names = tmp_path / "root/proc/self/ns"
    names.mkdir(parents=True)
    log = {"dev/kmsg": "", "proc/vmstat": "oom_kill 0"}
    for namespace, status in (("pid:[4026531836]", "ok"), ("pid:[4026532999]", "weak")):
        (names / "pid").unlink(missing_ok=True)
        (names / "pid").symlink_to(namespace)
        seen = found(memory, "out-of-memory kills", files=log, offer=LEGACY_WITHOUT_MEMORY)
        assert seen.status == status


def test_pressure(found):
    """The kernel's figures are shown; without them a starved host is told apart from nothing."""
    line = "some avg10=4.20 avg60=0.00 avg300=0.00 total=1\n"
    assert found(memory, "pressure").status == "weak"
    files = {f"proc/pressure/{name}": line for name in ("cpu", "memory", "io")}
    assert "memory 4 %" in found(memory, "pressure", files=files).found


@pytest.mark.parametrize(
    ("total", "free", "status", "words"),
    [
        (64 << 20, 64 << 20, "weak", "--shm-size"),
        (8 << 30, 8 << 30, "ok", ""),
        (8 << 30, 8 << 20, "weak", "ls -la /dev/shm"),
    ],
)
def test_shared_memory(found, tmp_path, monkeypatch, *, total, free, status, words):
    """A container's 64 MiB are too few, and so is what dead processes left of more."""
    assert found(memory, "shared memory").status == "missing"
    (tmp_path / "root/dev/shm").mkdir(parents=True)
    monkeypatch.setattr(memory, "space", lambda folder: Space(folder, free, total, None))
    seen = found(memory, "shared memory")
    assert (seen.status, words in seen.do) == (status, True)


def test_a_kernel_that_refuses_pidfds(found, monkeypatch):
    """Without pidfd the kernel is missing what a job cannot do without."""
    assert found(processes, "kernel").status == "ok"

    def refuses(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "pidfd_open", refuses)
    seen = found(processes, "kernel")
    assert (seen.status, processes.CHECKS[0].vital) == ("missing", True)
    assert "Operation not permitted" in seen.found


def test_no_driver(found):
    """Where there is no GPU, the driver's own reason is told, and the rest is left out."""
    seen = found(gpus, "driver (NVML)")
    assert (seen.status, seen.found) == ("missing", NO_GPU.problem)
    assert [found(gpus, name) for name in ("MIG", "unusable GPUs", "memory by process")] == [
        None
    ] * 3


def test_gpus_that_are_well(found, fake_gpus, lease_dir):
    """Version, number and names; processes with their memory."""
    fake_gpus.add_process(fake_gpus.gpus[0].uuid, os.getpid())
    driver = look()
    seen = found(gpus, "driver (NVML)", driver=driver)
    assert (seen.status, seen.found) == ("ok", "driver 580.65.06; 2 x NVIDIA H200")
    assert found(gpus, "memory by process", driver=driver).status == "ok"
    assert found(gpus, "set aside", driver=driver).found == "none"


def test_mig(found, fake_gpus):
    """Instances are counted; the GPU that they are of is no trouble."""
    fake_gpus.add_instance(fake_gpus.gpus[0].uuid)
    driver = look()
    assert found(gpus, "MIG", driver=driver).found == "1 instance of GPU 0: leased one by one"
    assert found(gpus, "unusable GPUs", driver=driver) is None


def test_a_gpu_that_no_job_gets(found, fake_gpus):
    """It is named, with the driver's reason."""
    fake_gpus.set(fake_gpus.gpus[1].uuid, compute_mode=2)
    seen = found(gpus, "unusable GPUs", driver=look())
    assert seen.status == "weak"
    assert "GPU 1" in seen.found
    assert "Prohibited" in seen.found


def test_figures_by_process(found, fake_gpus):
    """No list, a list without figures, and memory in use that nobody is listed for, are weak."""
    uuid = fake_gpus.gpus[0].uuid
    fake_gpus.set(uuid, used=5 << 30)
    hidden = found(gpus, "memory by process", driver=look())
    fake_gpus.add_process(uuid, os.getpid(), used=None)
    nameless = found(gpus, "memory by process", driver=look())
    fake_gpus.fail("nvmlDeviceGetComputeRunningProcesses", "NOT_SUPPORTED")
    refused = found(gpus, "memory by process", driver=look())
    assert [one.status for one in (hidden, nameless, refused)] == ["weak"] * 3
    assert [one.found for one in (hidden, nameless, refused)] == [
        "memory is in use, and no process is listed",
        "the driver lists processes, without their memory",
        "the driver does not list the processes on a GPU",
    ]


def test_a_figure_that_the_driver_refuses(found, fake_gpus):
    """The driver is weak then, and says which."""
    fake_gpus.fail("nvmlDeviceGetPowerUsage", "UNKNOWN")
    seen = found(gpus, "driver (NVML)", driver=look())
    assert (seen.status, "power" in seen.found) == ("weak", True)


def test_set_aside(found, lease_dir, tmp_path):
    """A GPU that was set aside is named with its reason, and how to release it."""
    owner = Owner("net-1", str(tmp_path), os.getpid(), 1, "boot")
    Leases(lease_dir).set_aside("GPU-1", "Xid 79", owner)
    seen = found(gpus, "set aside")
    assert (seen.status, seen.found) == ("weak", "GPU-1 (Xid 79)")
    assert "gpus --release" in seen.do


@pytest.mark.parametrize(("mode", "status"), [(0o1777, "ok"), (0o700, "weak"), (0o777, "missing")])
def test_the_lease_folder(found, lease_dir, mode, status):
    """It is open to all users, or only one may lease; or nobody, for anybody could take it away."""
    lease_dir.chmod(mode)
    assert found(gpus, "leases").status == status


def test_a_lease_folder_that_is_not_made_yet(found, lease_dir, monkeypatch):
    """What counts is whether it can be made; where it cannot, no job gets a GPU."""
    monkeypatch.setenv(shared_folder.ENVIRONMENT, str(lease_dir / "new"))
    assert f"{lease_dir / 'new'} will be made in {lease_dir}" in found(gpus, "leases").found
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert found(gpus, "leases").status == "missing"


def test_stacks_are_really_read(found):
    """py-spy is tried on a process of ours, which is gone afterwards."""
    seen = found(evidence, "stacks of a hang")
    if seen.status == "weak":
        pytest.skip(f"processes may not be read here: {seen.found}")
    assert seen.found == "py-spy reads the stacks of a process of ours (no Yama)"  # in the picture


def test_a_py_spy_that_cannot(found, tmp_path, monkeypatch):
    """Its own reason is told, with what Yama and the container's rights would have to be."""
    python = tmp_path / "bin/python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(python))
    assert found(evidence, "stacks of a hang").status == "missing"
    spy = python.with_name("py-spy")
    spy.write_text("#!/bin/sh\necho 'Error: Permission Denied' >&2\nexit 1\n")
    spy.chmod(0o755)
    rights = {"proc/self/status": "CapBnd:\t00000000a80425fb\n"}
    plain = found(evidence, "stacks of a hang", files=rights)
    assert (plain.status, plain.found) == ("weak", "py-spy cannot: Permission Denied (no Yama)")
    assert "--cap-add SYS_PTRACE" in plain.do
    yama = {"proc/sys/kernel/yama/ptrace_scope": "2\n"}
    assert "ptrace_scope=1" in found(evidence, "stacks of a hang", files=yama).do


def test_a_py_spy_that_does_not_answer(found, tmp_path, monkeypatch):
    """It is given up after its time, and ended."""
    spy = tmp_path / "py-spy"
    spy.write_text("#!/bin/sh\nexec cat /dev/zero >/dev/null\n")
    spy.chmod(0o755)
    monkeypatch.setattr(evidence, "DUMP_S", 0.1)
    assert evidence._refusal(spy) == "it did not answer within 0 s"


@pytest.mark.parametrize(
    ("pattern", "status", "words"),
    [
        ("core", "ok", "named core"),
        ("|/usr/share/apport/apport -p%p -c%c", "ok", "piped to /usr/share/apport/apport"),
        ("|/opt/dump %p", "weak", "not told the limit"),
    ],
)
def test_core_dumps(found, pattern, status, words):
    """A program that gets every crash whole, whatever the limit, is worth knowing."""
    seen = found(evidence, "core dumps", files={"proc/sys/kernel/core_pattern": pattern})
    assert (seen.status, words in seen.found) == (status, True)


def test_the_kernel_s_log(found):
    """Readable or not, with the reason."""
    assert found(evidence, "kernel's log").status == "weak"
    assert found(evidence, "kernel's log", files={"dev/kmsg": ""}).status == "ok"


@pytest.mark.parametrize(
    ("path", "point", "kind"),
    [
        ("/etc/x", "/", "ext4"),
        ("/home/me", "/home", "nfs4"),
        ("/home/me/local/state", "/home/me/local", "xfs"),
        ("/homely", "/", "ext4"),
        ("/with space/a", "/with space", "tmpfs"),
        ("/twice/a", "/twice", "overlay"),
    ],
)
def test_the_file_system_of_a_path(path, point, kind):
    """The deepest mount that holds the path counts, and of two on one point the later."""
    assert disk.mounted(MOUNTS, Path(path)) == (Path(point), kind)


@pytest.mark.parametrize(
    ("kind", "status", "words"),
    [
        ("ext4", "ok", ""),
        ("nfs4", "weak", "on a network"),
        ("fuse.sshfs", "weak", "on a network"),
        ("9p", "weak", "virtual machine"),
        ("tmpfs", "weak", "in memory"),
        ("overlay", "weak", "container"),
    ],
)
def test_kinds_of_file_systems(found, kind, status, words):
    """A state folder on a network, in memory or in a container's layer is weak, and says why."""
    mounts = {"proc/self/mountinfo": f"22 1 8:1 / / rw - {kind} what rw\n"}
    seen = found(disk, "file system", files=mounts)
    assert (seen.status, words in seen.found) == (status, True)


def test_the_state_folder_is_tried_and_left_as_it_was(found, tmp_path):
    """Writing, locking and SQLite are tried where the folder is to be, and nothing stays there."""
    state_dir = tmp_path / "a/b/state"
    for name in ("state folder", "journal"):
        assert found(disk, name, state_dir=state_dir).status == "ok"
    assert [one.name for one in tmp_path.iterdir()] == []


def test_a_folder_in_which_sqlite_fails(found, monkeypatch):
    """Locks that fail, or a journal without a write-ahead log, are fatal."""
    monkeypatch.setattr(disk, "_try_out", lambda _: "delete")
    assert "only delete" in found(disk, "journal").found

    def refuses(_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(disk, "_try_out", refuses)
    seen = found(disk, "journal")
    assert (seen.status, "No locks available" in seen.found) == ("missing", True)


def test_little_room(found, monkeypatch, tmp_path):
    """Little space and few inodes are weak; what the file system does not say is left out."""
    few = Space(tmp_path, 1 << 20, 1 << 40, 12)
    monkeypatch.setattr(disk, "space", lambda _: few)
    assert [found(disk, name).status for name in ("free space", "inodes")] == ["weak", "weak"]
    monkeypatch.setattr(disk, "space", lambda _: Space(tmp_path, 0, 0, None))
    assert found(disk, "inodes") is None
    assert "does not say" in found(disk, "free space").found


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "none"),
        ({".dockerenv": ""}, "docker (says /.dockerenv)"),
        ({"run/.containerenv": ""}, "podman (says /run/.containerenv)"),
        ({"run/systemd/container": "lxc\n"}, "lxc (says /run/systemd/container)"),
        ({"proc/self/cgroup": "0::/kubepods/pod1\n"}, "kubepods (says its control group)"),
        ({"proc/version": "Linux 6.6 microsoft-standard-WSL2"}, "WSL (says /proc/version)"),
    ],
)
def test_containers(found, files, words):
    """Each kind is known by what it leaves, and the sign is named."""
    assert found(host, "container", files=files).found == words


def test_systemd(found, monkeypatch):
    """Root needs nothing; a user is told what is not handed to him, and how to change it."""
    runs = {"run/systemd/system/x": ""}
    handed = {host.MANAGER.format(uid=1234): "cpu memory pids\n"}
    assert "is not needed" in found(host, "systemd").found
    assert found(host, "systemd", offer=Offer()).status == "weak"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert found(host, "systemd", files=runs).status == "ok"
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    lacking = found(host, "systemd", files=runs)
    assert (lacking.status, "memory and pids" in lacking.found) == ("weak", True)
    assert found(host, "systemd", files=handed).status == "ok"
    outside = found(host, "systemd", offer=Offer())
    assert (outside.status, host.SCOPE in outside.do) == ("weak", True)


def test_logout(found, monkeypatch):
    """A logout ends what is in a manager that does not linger, or in a session told to kill."""
    monkeypatch.setattr(os, "geteuid", lambda: 2**31 - 7)
    runs = {"run/systemd/system/x": ""}
    in_manager = {"proc/self/cgroup": "0::/user.slice/user-7.slice/user@7.service/app.slice\n"}
    in_session = {"proc/self/cgroup": "0::/user.slice/user-7.slice/session-3.scope\n"}
    kills = {"etc/systemd/logind.conf.d/a.conf": "[Login]\nKillUserProcesses=yes\n"}
    assert found(host, "logout") is None
    assert found(host, "logout", files=runs | in_session).status == "ok"
    assert found(host, "logout", files=kills).status == "weak"
    assert "KillUserProcesses" in found(host, "logout").found
    assert "enable-linger" in found(host, "logout", files=in_manager).do
    lingers = {f"var/lib/systemd/linger/{2**31 - 7}": ""}
    assert found(host, "logout", files=lingers).status == "ok"


@pytest.mark.parametrize(
    ("soft", "hard", "status", "words"),
    [
        (1024, 1 << 20, "weak", "open_files: 65536"),
        (1024, 2048, "weak", "limits.conf"),
        (1 << 20, 1 << 20, "ok", ""),
    ],
)
def test_open_files(found, monkeypatch, *, soft, hard, status, words):
    """A low limit is weak; whether the job or the host must raise it depends on the hard one."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    seen = found(host, "open files")
    assert (seen.status, words in seen.do) == (status, True)


def test_a_host_that_slept(found, monkeypatch):
    """Time that passed while the monotonic clock stood still is told."""
    clocks = {host.time.CLOCK_BOOTTIME: 5000.0, host.time.CLOCK_MONOTONIC: 4000.0}
    monkeypatch.setattr(host.time, "clock_gettime", clocks.__getitem__)
    assert "16 min 40 s" in found(host, "sleep").found
    clocks[host.time.CLOCK_BOOTTIME] = 4000.0
    assert found(host, "sleep").status == "ok"
