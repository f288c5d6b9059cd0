"""Leases: who gets which GPU, in words why not, and what damaged files are worth."""

import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import time

import pytest

from supervisor.gpu import lease_files, shared_folder
from supervisor.gpu.free import Refused, Want
from supervisor.gpu.lease_files import Owner
from supervisor.gpu.leases import Lease, Leases
from supervisor.gpu.model import Gpu, GpuProcess, Inventory, Reading
from supervisor.host import identity

GIB = 1 << 30
UUIDS = ("GPU-0a0a0a0a-0", "GPU-1b1b1b1b-1", "GPU-2c2c2c2c-2", "GPU-3d3d3d3d-3")
A, B, C, D = UUIDS


def inventory(count=2, total_gib=80, **more):
    """So many equal GPUs; `more` replaces fields of the last one."""
    gpus = [
        Gpu(uuid, index, "A100", f"0000:0{index}:00", total_gib * GIB)
        for index, uuid in enumerate(UUIDS[:count])
    ]
    if more:
        last = gpus.pop()
        fields = {name: getattr(last, name) for name in Gpu.__slots__} | more
        gpus.append(Gpu(**fields))
    return Inventory("570.1", tuple(gpus))


def idle(*uuids):
    """Readings of GPUs on which nothing runs."""
    return tuple(Reading(uuid, used_bytes=0, processes=()) for uuid in uuids or UUIDS)


def owner(job_id="digits-3fa2"):
    """The owner that a runner in this very process is."""
    ticks = identity.start_ticks(os.getpid())
    return Owner(job_id, "/state", os.getpid(), ticks, identity.boot_id())


def names_in(folder):
    """Names of what is in a folder."""
    return {path.name for path in folder.iterdir()}


def one(**more):
    """A job that wants one GPU."""
    return Want(**({"count": 1, "memory_bytes": None, "share": False} | more))


@pytest.fixture
def take(tmp_path):
    """Acquire from a folder of this test's own; what was leased is let go at the end."""
    leases, held = Leases(tmp_path / "leases", wait_s=5.0), []

    def acquire(want=None, gpus=None, readings=None, who=None, own=frozenset()):
        got = leases.acquire(
            want or one(), gpus or inventory(), readings or idle(), who or owner(), own
        )
        if isinstance(got, Lease):
            held.append(got)
        return got

    acquire.leases = leases
    acquire.folder = leases.folder
    yield acquire
    for lease in held:
        lease.release()


def why(refused, uuid=A):
    """What is said of one GPU."""
    assert isinstance(refused, Refused)
    return dict(refused.per_gpu)[uuid]


def test_each_job_gets_another_gpu_until_none_is_left(take):
    """In the host's order; the third is told who holds them, and a release brings one back."""
    first, second, third = take(), take(who=owner("other-9")), take()
    assert (first.uuids, second.uuids) == ((A,), (B,))
    assert third.reason == "the job wants 1 GPU, and none of 2 is free"
    assert not third.never
    since = time.strftime("%H:%M", time.localtime(take.leases.records()[0].at_s))
    pid = os.getpid()
    assert why(third) == (
        f"GPU 0 (GPU-0a0a0a0a…, A100): leased to job digits-3fa2 (runner {pid}) since {since}"
    )
    assert "job other-9" in str(third)
    assert first.release()
    assert take().uuids == (A,)


def test_all_that_is_wanted_or_nothing(take):
    """Two of three with one taken are had; two with one left are refused, and it stays free."""
    take()
    pair = take(one(count=2), inventory(3))
    assert pair.uuids == (B, C)
    refused = take(one(count=2), inventory(4))
    assert refused.reason == "the job wants 2 GPUs, and only 1 of 4 is free"
    assert take(gpus=inventory(4)).uuids == (D,)


def test_a_record_says_everything(take):
    """Who, where, which boot, since when, which GPUs, shared or not, and how much memory."""
    me, before = owner(), time.time()
    take(one(count=2, memory_bytes=5 * GIB), who=me)
    (record,) = take.leases.records()
    assert record.owner == me
    assert (record.uuids, record.share, record.memory_bytes) == ((A, B), False, 5 * GIB)
    assert before <= record.at_s <= time.time()
    assert record.user == os.geteuid()


def test_what_it_had_before_comes_first_and_what_it_avoids_never(take):
    """`prefer` is an order of wishes; `avoid` wins over it and is said in words."""
    assert take(one(prefer=(C, B)), inventory(4)).uuids == (C,)
    assert take(one(prefer=(C, B)), inventory(4)).uuids == (B,)
    refused = take(one(prefer=(A,), avoid=frozenset({A, D})), inventory(4))
    assert "had trouble on it" in why(refused, A)
    assert "had trouble on it" in why(refused, D)


LARGEST = "the largest has 80.0 GiB"


@pytest.mark.parametrize(
    ("want", "gpus", "reason"),
    [
        (one(count=4), inventory(2), "the job wants 4 GPUs, this host has 2"),
        (
            one(count=2),
            inventory(2, leasable=False, note="MIG mode is on"),
            "the job wants 2 GPUs, this host has 1 that a job can use",
        ),
        (one(), Inventory("570.1", ()), "the job wants 1 GPU, this host has none"),
        (
            one(memory_bytes=90 * GIB),
            inventory(2),
            f"the job wants 1 GPU with 90.0 GiB, this host has none so large; {LARGEST}",
        ),
        (
            one(count=2, memory_bytes=40 * GIB),
            inventory(2, total_bytes=24 * GIB),
            f"the job wants 2 GPUs with 40.0 GiB, this host has 1 so large; {LARGEST}",
        ),
    ],
)
def test_what_no_waiting_can_help(want, gpus, reason, take):
    """Too many, none, or too large for this host: never, in words."""
    refused = take(want, gpus)
    assert (refused.never, refused.reason) == (True, reason)


def test_a_driver_that_may_come_back_is_not_never(take):
    """No GPU because the driver does not answer: the job may wait for it."""
    refused = take(gpus=Inventory("", (), "the driver does not match the library"))
    assert not refused.never
    assert refused.reason.endswith("this host has none: the driver does not match the library")


def reading(**figures):
    """What GPU A does; the other one is busy anyway."""
    return (Reading(A, **figures), Reading(B, 70 * GIB, processes=(GpuProcess(1, 70 * GIB),)))


PYTHON = GpuProcess(os.getpid(), 20 * GIB)
GONE = GpuProcess(2**22 - 1, None)

NOT_FREE = {
    "stranger": ({"used_bytes": 20 * GIB, "processes": (PYTHON,)}, "used by process"),
    "nameless": ({"used_bytes": 0, "processes": (GONE,)}, f"used by process {GONE.pid}, which"),
    "ambiguous": ({"used_bytes": 2 * GIB}, "2.0 GiB of its memory are in use"),
    "hidden": ({"used_bytes": 2 * GIB, "processes": ()}, "the driver does not say by whom"),
    "silent": ({"problems": ("GPU is lost",)}, "neither its processes nor the memory in use (GPU"),
    "desktop and more": (
        {"used_bytes": 4 * GIB, "processes": (GpuProcess(1, GIB, "graphics"),)},
        "3.0 GiB of its memory are in use",
    ),
}


@pytest.mark.parametrize("case", NOT_FREE)
def test_ambiguous_is_not_free(case, take):
    """A stranger's process, memory that nobody explains, or silence: each keeps the GPU closed."""
    figures, said = NOT_FREE[case]
    refused = take(readings=reading(**figures))
    assert not refused.never
    assert said in why(refused)


FREE = {
    "idle": {"used_bytes": 0, "processes": ()},
    "a reserve of the driver": {"used_bytes": GIB, "processes": ()},
    "no processes told": {"used_bytes": GIB // 2},
    "no memory told": {"processes": ()},
    "a desktop": {"used_bytes": 4 * GIB, "processes": (GpuProcess(1, 4 * GIB, "graphics"),)},
    "a desktop of unknown size": {
        "used_bytes": 4 * GIB,
        "processes": (GpuProcess(1, None, "graphics"),),
    },
}


@pytest.mark.parametrize("case", FREE)
def test_an_idle_gpu_is_free(case, take):
    """What idle cards really show keeps nobody from them."""
    assert take(readings=reading(**FREE[case])).uuids == (A,)


def test_a_gpu_that_was_not_read_is_not_free(take):
    """No reading at all is silence too."""
    assert "the driver did not say" in why(take(readings=idle(C)))


def test_own_processes_are_no_strangers(take):
    """What the job's own tree still has there counts neither as a stranger nor as used memory."""
    figures = {"used_bytes": 79 * GIB, "processes": (GpuProcess(7, 79 * GIB),)}
    assert isinstance(take(readings=reading(**figures)), Refused)
    want = one(memory_bytes=60 * GIB)
    assert take(want, readings=reading(**figures), own=frozenset({7})).uuids == (A,)


def test_a_small_mig_instance_is_judged_by_its_own_size(take):
    """Half a GiB is nothing on a card, and a tenth of it already too much for a 4 GiB slice."""
    slice_ = Inventory("570.1", (Gpu(A, 0, "1g.5gb", "0000:00:00", 4 * GIB, parent=B),))
    used = (Reading(A, used_bytes=GIB // 2),)
    assert "0.5 GiB of its memory are in use" in why(take(gpus=slice_, readings=used))
    assert "MIG instance of GPU 0" in why(take(gpus=slice_, readings=used))


def test_memory_that_is_not_free_is_not_promised(take):
    """The job's need is held against what is free now, not only against the size of the card."""
    figures = {"used_bytes": 10 * GIB, "processes": (GpuProcess(1, 10 * GIB, "graphics"),)}
    refused = take(one(memory_bytes=75 * GIB), readings=reading(**figures))
    assert "70.0 GiB of it are free, the job wants 75.0 GiB" in why(refused)
    assert not refused.never


def shares(gib):
    """A job that shares its GPU."""
    return one(share=True, memory_bytes=None if gib is None else gib * GIB)


def test_shares_fit_by_what_they_declared(take):
    """80 GiB hold 50 and 30, whoever's processes are seen there, and nobody else."""
    single, busy = inventory(1), (Reading(A, 20 * GIB, processes=(PYTHON,)),)
    assert take(shares(50), single).uuids == (A,)
    assert "shared by job digits-3fa2" in why(take(one(), single))
    assert "say how much memory" in why(take(shares(None), single))
    assert take(shares(30), single, busy).uuids == (A,)
    refused = take(shares(1), single, busy)
    assert "80.0 GiB of its 80.0 GiB are promised, and the job wants 1.0 GiB" in why(refused)


def test_a_share_needs_room_that_is_really_there(take):
    """Declared memory fits, but it is used already, or nobody knows: not free."""
    single = inventory(1)
    take(shares(10), single)
    assert "5.0 GiB of it are free" in why(take(shares(20), single, (Reading(A, 75 * GIB),)))
    unknown = (Reading(A, None, processes=()),)
    assert "how much of it is free is not known" in why(take(shares(20), single, unknown))


def test_a_share_that_did_not_say_its_need_stays_alone(take):
    """It may share nobody's room, for nobody knows what is left."""
    single = inventory(1)
    take(shares(None), single)
    assert "without saying how much memory" in why(take(shares(1), single))


def test_an_exclusive_lease_is_not_shared(take):
    """Who did not agree to share has the GPU alone."""
    take(one(), inventory(1))
    assert "leased to job digits-3fa2" in why(take(shares(1), inventory(1)))


def test_to_share_is_no_way_past_a_stranger(take):
    """Without a lease on the GPU, a compute process on it can only be a stranger."""
    refused = take(shares(1), readings=reading(used_bytes=GIB, processes=(PYTHON,)))
    assert "used by process" in why(refused)


def test_shares_go_where_most_is_free(take):
    """The emptiest GPU first; two equal ones in the host's order."""
    used = (Reading(A, 30 * GIB), Reading(B, 10 * GIB), Reading(C, 10 * GIB))
    assert take(shares(5), inventory(3), used).uuids == (B,)


def test_a_lease_on_a_whole_gpu_covers_its_instances(take):
    """A MIG instance of a leased card is leased."""
    take(gpus=inventory(1))
    mig = Inventory("570.1", (Gpu(B, 0, "1g.10gb", "0000:00:00", 10 * GIB, parent=A),))
    assert "leased to job" in why(take(gpus=mig), B)


def test_no_gpu_is_no_lease(take):
    """A want of nothing is the caller's mistake."""
    with pytest.raises(ValueError, match="one GPU or more: 0"):
        take(one(count=0))


def locked_file(folder, name, content, mode=0o644):
    """Put a file there and keep it locked; the descriptor."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(content)
    path.chmod(mode)
    fd = os.open(path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


GOOD = {
    "format": 1, "job": "j", "state_dir": "/s", "pid": 1, "start_ticks": 1, "boot_id": "b",
    "at_s": 1.0, "gpus": [A], "share": False, "memory_bytes": None,
}  # fmt: skip
FOREIGN = {
    "empty": b"",
    "no json": b"\x00\xff\xfe",
    "a list": b"[1]",
    "huge": b" " * 70_000 + json.dumps(GOOD).encode(),
    "nested": b"[" * 60_000,
    "no gpus": json.dumps(GOOD | {"gpus": []}).encode(),
    "odd gpus": json.dumps(GOOD | {"gpus": [1]}).encode(),
    "odd time": json.dumps(GOOD | {"at_s": float("nan")}).encode(),
    "far time": json.dumps(GOOD | {"at_s": 1e300}).encode(),
    "odd pid": json.dumps(GOOD | {"pid": True}).encode(),
    "a newer format": b'{"format": 7, "lease": {"of": "everything"}}',
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_damaged_record_counts_while_it_is_locked_and_not_after(case, take):
    """What cannot be read may be about any GPU while its process lives; dead, it is removed."""
    fd = locked_file(take.folder, "lease-0.json", FOREIGN[case])
    refused = take()
    assert "lease-0.json in the lease folder is locked" in why(refused, A)
    assert "lease-0.json" in why(refused, B)
    assert take.leases.records()[0].problem
    os.close(fd)
    assert take().uuids == (A,)
    assert not (take.folder / "lease-0.json").exists()


def test_a_later_format_with_the_same_fields_is_understood(take):
    """What a newer program adds does not take the other GPUs away."""
    fd = locked_file(
        take.folder, "lease-0.json", json.dumps(GOOD | {"format": 2, "new": 1}).encode()
    )
    assert take().uuids == (B,)
    os.close(fd)


def test_a_record_of_an_earlier_boot_is_dead_however_alive_its_pid_is(take):
    """Nobody has it locked: this very pid in it proves nothing, and it is removed."""
    take.folder.mkdir()
    stale = GOOD | {"pid": os.getpid(), "start_ticks": owner().start_ticks}
    for boot in ("an earlier one", identity.boot_id()):
        (take.folder / "lease-0.json").write_text(json.dumps(stale | {"boot_id": boot}))
        assert take.leases.records() == []
        lease = take()
        assert lease.uuids == (A,)
        assert not (take.folder / "lease-0.json").exists()
        lease.release()


def test_a_lock_counts_however_dead_the_pid_is(take):
    """The runner's pid is gone, or another process's by now; a child of it still holds the lock."""
    for pid in (2**22 - 1, os.getpid()):
        content = json.dumps(GOOD | {"pid": pid, "boot_id": identity.boot_id()}).encode()
        fd = locked_file(take.folder, "lease-0.json", content)
        lease = take()
        assert lease.uuids == (B,)
        assert f"(runner {pid}, which is gone or in another" in why(take())
        lease.release()
        os.close(fd)


def test_a_record_that_steers_a_terminal_is_made_plain(take):
    """A job's name out of another user's file is repeated without its escape sequences."""
    content = json.dumps(GOOD | {"job": "\x1b[2Jx\ny"}).encode()
    fd = locked_file(take.folder, "lease-0.json", content)
    assert "leased to job ?[2Jx?y (" in why(take(gpus=inventory(1)))
    os.close(fd)


def test_what_no_runner_made_is_left_alone(take, tmp_path):
    """Links, folders and FIFOs of such names are neither followed, nor waited for, nor removed."""
    take.folder.mkdir()
    secret = tmp_path / "secret"
    secret.write_text("mine")
    (take.folder / "lease-1.json").symlink_to(secret)
    (take.folder / ".new-1").symlink_to(secret)
    (take.folder / "lease-2.json").mkdir()
    os.mkfifo(take.folder / "lease-3.json")
    os.mkfifo(take.folder / "aside-3~1.json")
    (take.folder / "notes").write_text("hello")
    assert take().uuids == (A,)
    assert secret.read_text() == "mine"
    names = {"lease-1.json", ".new-1", "lease-2.json", "lease-3.json", "notes"}
    assert names <= names_in(take.folder)


def test_leftovers_of_a_killed_writer_are_removed(take):
    """A temporary file that nobody has locked goes; one that is being written stays."""
    fd = locked_file(take.folder, ".new-busy", b"")
    (take.folder / ".new-dead").touch()
    take()
    assert {name for name in names_in(take.folder) if name.startswith(".new")} == {".new-busy"}
    os.close(fd)


def test_a_reader_removes_nothing_and_makes_nothing(take):
    """Without a folder there are no leases, and none is made; dead records stay for runners."""
    assert take.leases.records() == []
    assert take.leases.set_asides() == []
    assert not take.leases.release(A)
    assert not take.folder.exists()
    take.folder.mkdir()
    (take.folder / "lease-0.json").touch()
    assert take.leases.records() == []
    assert (take.folder / "lease-0.json").exists()


def test_a_reader_in_the_middle_of_a_look_is_no_holder(take):
    """A shared lock, as readers take it for a moment, keeps no dead record alive."""
    take.folder.mkdir()
    (take.folder / "lease-0.json").write_text(json.dumps(GOOD))
    with (take.folder / "lease-0.json").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert take().uuids == (A,)


def test_the_lock_is_everybodys_to_see_and_survives_tidying(take):
    """Files are readable by all whatever the umask, and bear the bit that tmp cleaners respect."""
    before = os.umask(0o077)
    try:
        take()
        take.leases.set_aside(B, "Xid 79", owner())
    finally:
        os.umask(before)
    modes = {
        path.name.partition("-")[0]: stat.S_IMODE(path.stat().st_mode)
        for path in take.folder.iterdir()
    }
    assert modes == {"mutex": 0o1644, "lease": 0o1644, "aside": 0o1666}


def test_a_forked_copy_does_not_keep_the_mutex(take):
    """A process forked in the middle of a decision holds nobody up, however long it lives."""
    with shared_folder.alone(take.folder, 1.0):
        pid = os.fork()
        if pid == 0:
            os._exit(signal.pause() or 0)  # never on into the tests
    try:
        assert take().uuids == (A,)
    finally:
        os.kill(pid, signal.SIGKILL)  # our child, not reaped yet: the pid is its own
        os.waitpid(pid, 0)


def test_releasing_twice_is_harmless(take):
    """The second time nothing is closed that meanwhile belongs to somebody else."""
    lease = take()
    assert lease.release()
    fd = os.open(os.devnull, os.O_RDONLY)
    assert lease.release()
    os.fstat(fd)
    os.close(fd)


def test_a_lease_stays_while_a_child_has_it(take):
    """Released by the runner, still held by its worker: the GPU is not free, and that is said."""
    lease = take(gpus=inventory(1))
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"],
        pass_fds=lease.fds, stdin=subprocess.PIPE,
    )  # fmt: skip
    assert not lease.release()
    assert isinstance(take(gpus=inventory(1)), Refused)
    child.communicate()
    assert take(gpus=inventory(1)).uuids == (A,)


def test_a_full_disk_is_no_lease(take, monkeypatch):
    """What could not be written whole is not held, and leaves nothing behind."""
    monkeypatch.setattr(lease_files, "encoded", lambda _record: b"x" * 100)
    monkeypatch.setattr(os, "write", lambda _fd, _content: 10)
    refused = take()
    assert "No space left on device" in refused.reason
    assert names_in(take.folder) == {"mutex"}
