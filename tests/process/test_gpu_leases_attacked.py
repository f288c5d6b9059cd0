"""Leases between real processes: races, SIGKILL at any instant, other users, hostile folders."""

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.gpu import shared_folder
from supervisor.gpu.free import Refused, Want
from supervisor.gpu.lease_files import Owner
from supervisor.gpu.leases import Lease, Leases
from supervisor.gpu.model import Gpu, Inventory, Reading
from supervisor.host import identity

GIB = 1 << 30
UUIDS = ("GPU-0a0a0a0a-0", "GPU-1b1b1b1b-1")
GPUS = Inventory("570.1", tuple(Gpu(one, at, "A100", "", 80 * GIB) for at, one in enumerate(UUIDS)))
IDLE = tuple(Reading(uuid, used_bytes=0, processes=()) for uuid in UUIDS)
NOBODY = 65534
ROUNDS = 200
RACERS = 8

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="to become another user, one must be root")


def me():
    """This process, as a runner says who it is."""
    return Owner(
        "job", "/state", os.getpid(), identity.start_ticks(os.getpid()), identity.boot_id()
    )


def acquire(folder, count=1, wait_s=30.0):
    """Lease from a folder, with idle GPUs."""
    want = Want(count, None, share=False)
    return Leases(folder, wait_s).acquire(want, GPUS, IDLE, me())


def forked(work):
    """A copy of this process that does `work`, and ends with 0 if that returned; its pidfd."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return pid, os.pidfd_open(pid)


def ended(child):
    """Reap; the exit code, negative for a signal."""
    pid, pidfd = child
    _, status = os.waitpid(pid, 0)
    os.close(pidfd)
    return os.waitstatus_to_exitcode(status)


@pytest.fixture
def fork():
    """As `forked`; what is left at the end is killed."""
    children = []

    def start(work):
        child = forked(work)
        children.append(child)
        return child

    yield start
    for pid, pidfd in children:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(pidfd)


def race(folder, witness):
    """Lease and give back, each time proven by a lock that leases know nothing of.

    A second holder of a GPU finds the witness locked, and this process ends with an error.
    """
    won = 0
    while won < ROUNDS // RACERS:
        got = acquire(folder)
        if isinstance(got, Refused):
            assert got.reason == "the job wants 1 GPU, and none of 2 is free", got
            continue
        fds = [os.open(witness / uuid, os.O_RDWR | os.O_CREAT, 0o600) for uuid in got.uuids]
        for fd in fds:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises where somebody else is
        won += 1
        for fd in fds:
            os.close(fd)
        assert got.release()


def test_a_race_never_has_two_winners(tmp_path, fork):
    """Eight processes take two GPUs two hundred times; an outside lock sees each alone."""
    (tmp_path / "witness").mkdir()
    racers = [fork(lambda: race(tmp_path / "leases", tmp_path / "witness")) for _ in range(RACERS)]
    assert [ended(racer) for racer in racers] == [0] * RACERS
    assert Leases(tmp_path / "leases").records() == []


def test_a_killed_runners_worker_holds_the_lease_until_it_is_gone(tmp_path, fork, eventually):
    """SIGKILL of the runner alone frees nothing; with the last process of the tree it is free."""
    folder, pids = tmp_path / "leases", tmp_path / "pids"

    def run():
        got = acquire(folder, count=2)
        code = (
            "import os, signal\n"
            "if os.fork() == 0:\n"
            "    os.setsid()\n"
            f"    open({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n')\n"
            "signal.pause()"
        )
        child = subprocess.Popen([sys.executable, "-c", code], pass_fds=got.fds)
        with pids.open("a") as file:
            file.write(f"{child.pid}\n")
        signal.pause()

    runner = fork(run)
    workers = eventually(lambda: (found := read_pids(pids))[1:] and found)
    signal.pidfd_send_signal(runner[1], signal.SIGKILL)
    ended(runner)
    try:
        refused = acquire(folder)
        assert "is gone or in another container; its worker still holds it" in str(refused)
        signal.pidfd_send_signal(workers[0], signal.SIGKILL)
        assert isinstance(acquire(folder), Refused)  # one of the two is left
        signal.pidfd_send_signal(workers[1], signal.SIGKILL)
        both = eventually(
            lambda: (got := acquire(folder, count=2)) and isinstance(got, Lease) and got
        )
        assert both.uuids == UUIDS
        both.release()
    finally:
        for worker in workers:
            signal.pidfd_send_signal(worker, signal.SIGKILL)
            select.select([worker], [], [], 10)
            os.close(worker)


def read_pids(path):
    """The processes that a file names, as pidfds."""
    lines = path.read_text().split() if path.exists() else []
    return [os.pidfd_open(int(line)) for line in lines] if len(lines) > 1 else []


CALLS = (
    "open",
    "mkdir",
    "link",
    "unlink",
    "rename",
    "write",
    "fchmod",
    "listdir",
    "fstat",
    "close",
)


def dies_at(folder, fatal):
    """Lease, and be killed right before the `fatal`th call that touches the disk, or never."""
    left = [fatal]

    def deadly(call):
        def wrapped(*args, **more):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **more)

        return wrapped

    for name in CALLS:
        setattr(os, name, deadly(getattr(os, name)))
    assert isinstance(acquire(folder, count=2), Lease)


def test_a_runner_killed_at_any_instant_leaves_nothing_taken(tmp_path, fork):
    """Killed before each single call of a lease in turn: the next runner gets both GPUs at once."""
    folder = tmp_path / "leases"
    for fatal in range(1, 200):
        code = ended(fork(lambda fatal=fatal: dies_at(folder, fatal)))
        got = acquire(folder, count=2, wait_s=0.0)
        assert isinstance(got, Lease), f"killed at call {fatal}: {got}"
        assert got.release()
        assert {path.name for path in folder.iterdir()} == {"mutex"}
        if fatal % 3 == 0:  # also where everything has to be made anew
            (folder / "mutex").unlink()
            folder.rmdir()
        if code == 0:
            break
    assert code == 0
    assert fatal > len(CALLS)


def the_kernel_names_holders(folder):
    """Whether /proc/locks calls files here by the numbers of stat(2) (not so on overlayfs)."""
    seen = (folder / "mutex").stat()
    with (folder / "mutex").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        device = f"{os.major(seen.st_dev):02x}:{os.minor(seen.st_dev):02x}"
        return f" {os.getpid()} {device}:{seen.st_ino} " in Path("/proc/locks").read_text()


def test_a_frozen_holder_of_the_mutex_is_named_and_not_waited_for(tmp_path, fork, eventually):
    """A stopped runner in the middle of a decision delays the others for a bounded time."""
    folder = tmp_path / "leases"
    acquire(folder).release()
    named = the_kernel_names_holders(folder)

    def freeze():
        fd = os.open(folder / "mutex", os.O_RDONLY)
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.kill(os.getpid(), signal.SIGSTOP)

    pid, pidfd = fork(freeze)
    os.waitpid(pid, os.WUNTRACED)
    refused = acquire(folder, wait_s=0.05)
    assert isinstance(refused, Refused)
    assert not refused.never
    assert "does not go on" in refused.reason
    if named:
        assert f"process {pid} keeps" in refused.reason
    assert Leases(folder).records() == []  # a reader does not wait
    Leases(folder).set_aside(UUIDS[0], "Xid 79", me())  # nor does bad news
    assert Leases(folder).release(UUIDS[0])
    signal.pidfd_send_signal(pidfd, signal.SIGCONT)
    got = acquire(folder)
    assert isinstance(got, Lease)
    got.release()


def test_a_folder_that_was_swept_away_orders_nobody(tmp_path, fork, eventually):
    """A tidier takes the folder from under a waiting runner: it leases where the next one looks."""
    folder, said = tmp_path / "leases", tmp_path / "said"
    acquire(folder).release()

    def wait():
        held.close()  # the fork's copy of what the lock belongs to
        said.touch()
        got = acquire(folder)
        said.write_text(str((folder / got.file).exists()))

    with (folder / "mutex").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = fork(wait)
        eventually(lambda: said.exists() and identity.holders(folder / "mutex") == [waiting[0]])
        folder.rename(tmp_path / "moved")
    assert ended(waiting) == 0
    assert said.read_text() == "True"


@pytest.fixture
def public(tmp_path):
    """A folder like /tmp, which other users reach."""
    for parent in [tmp_path, *tmp_path.parents][:-2]:
        mode = stat.S_IMODE(parent.stat().st_mode)
        if parent.stat().st_uid == os.geteuid() and not mode & 0o001:
            parent.chmod(mode | 0o011)
    folder = tmp_path / "public"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


def as_nobody(work):
    """What `work` returns, done by user 65534."""
    reading, writing = os.pipe()

    def other():
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        os.umask(0o077)
        os.write(writing, json.dumps(work()).encode())

    child = forked(other)
    os.close(writing)
    with os.fdopen(reading) as file:
        said = file.read()
    assert ended(child) == 0
    return json.loads(said)


def outcome(got):
    """What a person would hear, and the GPUs."""
    return list(got.uuids) if isinstance(got, Lease) else str(got)


@as_root
@pytest.mark.parametrize("first", ["root", "nobody"])
def test_two_users_share_one_folder(first, public, fork):
    """Whoever makes the folder, each respects the other's lease, and sees the dead ones as dead."""
    folder = public / "leases"
    if first == "nobody":
        assert as_nobody(lambda: outcome(acquire(folder))) == [UUIDS[0]]  # and it died with it
    mine = acquire(folder)
    assert mine.uuids == (UUIDS[0],)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    assert as_nobody(lambda: outcome(acquire(folder))) == [UUIDS[1]]
    assert "leased to job job" in as_nobody(lambda: outcome(acquire(folder, count=2)))
    assert as_nobody(lambda: [one.user for one in Leases(folder).records()]) == [0]
    mine.release()
    assert as_nobody(lambda: outcome(acquire(folder, count=2))) == list(UUIDS)


@as_root
def test_anybody_releases_a_gpu_that_another_user_set_aside(public):
    """In both directions, although a sticky folder lets nobody remove another's file."""
    leases = Leases(public / "leases")
    leases.set_aside(UUIDS[0], "Xid 79", me())
    assert "set aside: Xid 79" in as_nobody(lambda: outcome(acquire(leases.folder, count=2)))
    assert as_nobody(lambda: leases.release(UUIDS[0])) is True
    assert leases.set_asides() == []
    assert as_nobody(lambda: leases.set_aside(UUIDS[1], "Xid 48", me())) is None
    assert [one.uuid for one in leases.set_asides()] == [UUIDS[1]]
    assert leases.release(UUIDS[1])
    assert as_nobody(lambda: outcome(acquire(leases.folder, count=2))) == list(UUIDS)


@as_root
def test_releasing_writes_to_nobodys_file(public, tmp_path):
    """A file of root's that another user linked into the folder as a record is not emptied."""
    leases, mine = Leases(public / "leases"), tmp_path / "mine"
    leases.set_aside(UUIDS[0], "Xid 79", me())
    mine.write_text("precious")
    os.link(mine, leases.folder / f"aside-{UUIDS[1]}~0.json")
    mine.chmod(0o666)
    os.chown(mine, 1, 1)
    with pytest.raises(PermissionError):
        leases_as_nobody_raise(leases)
    assert mine.read_text() == "precious"


def leases_as_nobody_raise(leases):
    """Release as a user who may not remove the link; its PermissionError comes back."""

    def work():
        try:
            leases.release(UUIDS[1])
        except PermissionError:
            return "refused"
        return "emptied"

    if as_nobody(work) == "refused":
        raise PermissionError


@as_root
@pytest.mark.parametrize(
    ("mode", "said"),
    [(0o755, "belongs to user 65534 and is not open to all"), (0o777, "chmod +t")],
)
def test_root_trusts_no_folder_that_one_user_rules(mode, said, public):
    """A folder that another user made for itself, or where all may delete all, is refused."""
    folder = public / "leases"
    folder.mkdir()
    folder.chmod(mode)
    os.chown(folder, NOBODY, NOBODY)
    refused = acquire(folder)
    assert isinstance(refused, Refused)
    assert said in refused.reason
    assert "SUPERVISE_LEASE_DIR" in refused.reason


@as_root
def test_a_folder_half_made_by_a_killed_runner_is_finished_by_its_owner(public):
    """Between mkdir and chmod there is an instant: the same user's next runner repairs it."""
    folder = public / "leases"
    folder.mkdir(0o755)
    got = acquire(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    got.release()


@as_root
def test_a_user_who_may_not_read_or_write_is_told(public):
    """A squatted (0700), an unwritable and an unreadable folder: refused, and in words."""
    for mode in (0o700, 0o755):
        folder = public / f"{mode:o}"
        folder.mkdir()
        folder.chmod(mode)
        said = as_nobody(lambda folder=folder: outcome(acquire(folder)))
        assert "Permission denied" in said
        assert str(folder) in said


@as_root
def test_a_record_that_may_not_be_read_counts_for_every_gpu(public):
    """What another user hides may be about any GPU: not free."""
    folder = public / "leases"
    acquire(folder).release()
    (folder / "lease-0.json").touch(0o600)
    assert "it may not be read" in as_nobody(lambda: outcome(acquire(folder)))
    got = acquire(folder)  # its owner can see that nobody holds it
    assert got.uuids == (UUIDS[0],)
    got.release()


@pytest.mark.parametrize("name", ["leases", "leases/mutex"])
def test_a_link_in_the_place_of_folder_or_mutex_is_refused(name, tmp_path):
    """Neither is followed to where somebody else wants the locks to be."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).symlink_to(elsewhere)
    refused = acquire(tmp_path / "leases")
    assert isinstance(refused, Refused)
    assert str(tmp_path / name) in refused.reason
    assert list(elsewhere.iterdir()) == []


def test_a_mutex_that_is_no_file_is_refused(tmp_path):
    """A FIFO of that name is not waited on, a folder not locked."""
    (tmp_path / "leases").mkdir()
    os.mkfifo(tmp_path / "leases/mutex")
    assert "no plain file" in acquire(tmp_path / "leases").reason


MS_RDONLY, MS_REMOUNT, MS_PRIVATE, MS_REC = 1, 32, 1 << 18, 1 << 14


def mount(target, fstype, flags, data=""):
    """Mount a file system of that type there."""
    libc = ctypes.CDLL(None, use_errno=True)
    words = (fstype.encode(), str(target).encode(), fstype.encode(), flags, data.encode())
    if libc.mount(words[0], words[1], words[2], ctypes.c_ulong(words[3]), words[4]):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


@as_root
@pytest.mark.parametrize(
    ("again", "said"), [("ro", "Read-only file system"), ("full", "No space left on device")]
)
def test_a_folder_that_takes_no_file_is_no_lease(again, said, tmp_path, fork):
    """Read-only or full: refused with the reason, nothing half made is left, no GPU is held."""
    place = tmp_path / "place"
    place.mkdir()
    verdict = tmp_path / "verdict"

    def work():
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(0x00020000):  # CLONE_NEWNS: nobody else sees the mount
            verdict.write_text("skip")
            return
        mount("/", "", MS_REC | MS_PRIVATE)
        mount(place, "tmpfs", 0, "size=16k")
        acquire(place).release()
        if again == "ro":
            mount(place, "tmpfs", MS_REMOUNT | MS_RDONLY)
        else:
            with contextlib.suppress(OSError), (place / "ballast").open("wb", 0) as file:
                while True:
                    file.write(b"x" * 4096)
        got = acquire(place)
        left = {path.name for path in place.iterdir()} - {"ballast"}
        verdict.write_text(f"{outcome(got)} {left} {Leases(place).records()}")

    assert ended(fork(work)) == 0
    told = verdict.read_text()
    if told == "skip":
        pytest.skip("this kernel or container allows no private mounts")
    assert said in told
    assert told.endswith("{'mutex'} []")


def test_the_default_folder_does_not_depend_on_who_asks(monkeypatch, tmp_path):
    """The environment decides, else how /run/lock is set up; /tmp where that is root's alone."""
    run = tmp_path / "lock"
    monkeypatch.delenv("SUPERVISE_LEASE_DIR", raising=False)
    monkeypatch.setattr(shared_folder, "IN_RUN", run / "supervise")
    assert shared_folder.lease_folder() == Path("/tmp/supervise-leases")
    run.mkdir()
    run.chmod(0o755)
    assert shared_folder.lease_folder() == Path("/tmp/supervise-leases")
    run.chmod(0o1777)
    assert shared_folder.lease_folder() == run / "supervise"
    run.chmod(0o755)
    (run / "supervise").mkdir()  # as tmpfiles.d makes it at boot
    assert shared_folder.lease_folder() == run / "supervise"
    monkeypatch.setenv("SUPERVISE_LEASE_DIR", "relative")
    assert shared_folder.lease_folder() == Path.cwd() / "relative"
