"""GPUs set aside: until released or rebooted, whatever happens to the records."""

import json
import os

import pytest

from supervisor.gpu import aside
from supervisor.gpu.free import Refused, Want
from supervisor.gpu.lease_files import Owner
from supervisor.gpu.leases import Leases
from supervisor.gpu.model import Gpu, Inventory, Reading
from supervisor.host import identity

GIB = 1 << 30
A, B, MIG = "GPU-0a0a0a0a-0", "GPU-1b1b1b1b-1", "MIG-GPU-0a0a0a0a-0/1/0"
HOST = Inventory("570.1", (Gpu(A, 0, "A100", "", 80 * GIB), Gpu(B, 1, "A100", "", 80 * GIB)))
IDLE = tuple(Reading(uuid, used_bytes=0, processes=()) for uuid in (A, B, MIG))
OWNER = Owner("digits-3fa2", "/state", 1, 1, "boot")


@pytest.fixture
def leases(tmp_path):
    """Leases in a folder of this test's own."""
    return Leases(tmp_path / "leases")


def ask(leases, inventory=HOST, count=1):
    """Try to lease; what was leased is given back at once."""
    got = leases.acquire(Want(count, None, share=False), inventory, IDLE, OWNER)
    if not isinstance(got, Refused):
        got.release()
    return got


def test_a_gpu_that_is_set_aside_is_leased_to_nobody_until_it_is_released(leases):
    """The refusal says why and how to end it; a release ends it, and says whether it did."""
    leases.set_aside(A, "Xid 79: the GPU has fallen off the bus", OWNER)
    assert ask(leases).uuids == (B,)
    refused = ask(leases, count=2)
    assert dict(refused.per_gpu)[A] == (
        "GPU 0 (GPU-0a0a0a0a…, A100): set aside: Xid 79: the GPU has fallen off the bus; "
        "release it with: supervise gpus --release 0"
    )
    assert not refused.never
    assert [leases.release(A), leases.release(A)] == [True, False]
    assert ask(leases).uuids == (A,)


def test_what_is_told_of_it(leases):
    """Reason, job, time and boot, oldest first."""
    leases.set_aside(B, "first", OWNER)
    leases.set_aside(A, "second", OWNER)
    first, second = leases.set_asides()
    assert (first.uuid, first.reason, first.job_id) == (B, "first", "digits-3fa2")
    assert first.boot_id == identity.boot_id()
    assert first.at_s <= second.at_s


def test_the_same_bad_news_is_written_once(leases):
    """A trouble that is seen at every look fills no disk; another reason is kept beside it."""
    for _ in range(3):
        leases.set_aside(A, "Xid 79\n", OWNER)
    leases.set_aside(A, "Xid 48", OWNER)
    assert len(leases.set_asides()) == 2
    leases.release(A)
    assert leases.set_asides() == []


def test_a_reboot_makes_it_void(leases):
    """A record of another boot keeps no GPU, and the next runner removes it."""
    leases.set_aside(A, "Xid 79", OWNER)
    (path,) = leases.folder.glob("aside-*")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"boot_id": "an earlier one"}))
    assert leases.set_asides() == []
    assert path.exists()
    assert ask(leases).uuids == (A,)
    assert not path.exists()


@pytest.mark.parametrize(
    "content",
    [b"{", b"[]", b" " * 70_000, b'{"format": 1, "reason": 5}', b"\xff", b"[" * 60_000],
    ids=["torn", "a list", "huge", "odd", "no text", "nested"],
)
def test_a_damaged_record_still_keeps_its_gpu(content, leases):
    """Its name tells which GPU it is about, and a person can release that."""
    leases.set_aside(MIG, "Xid 79", OWNER)
    (path,) = leases.folder.glob("aside-*")
    path.write_bytes(content)
    (one,) = leases.set_asides()
    assert (one.uuid, one.reason) == (MIG, "its record cannot be read")
    mig = Inventory("470", (Gpu(MIG, 0, "1g.10gb", "", 10 * GIB, parent=A),))
    refused = ask(leases, mig)
    assert (
        f"set aside: its record cannot be read; release it with: supervise gpus --release {MIG}"
        in (str(refused))
    )
    assert leases.release(MIG)
    assert ask(leases, mig).uuids == (MIG,)


def test_an_emptied_record_says_nothing_and_is_swept(leases):
    """That is how another user's record is released: it stays empty until its owner comes by."""
    leases.set_aside(A, "Xid 79", OWNER)
    (path,) = leases.folder.glob("aside-*")
    path.write_bytes(b"")
    assert leases.set_asides() == []
    assert not leases.release(A)
    assert ask(leases).uuids == (A,)
    assert not path.exists()


def test_trouble_of_a_card_is_trouble_of_its_instances(leases):
    """What befell the whole GPU keeps its MIG instances too; it is the card that one releases."""
    leases.set_aside(A, "Xid 79", OWNER)
    mig = Inventory("570", (Gpu(MIG, 0, "1g.10gb", "", 10 * GIB, parent=A),))
    assert "supervise gpus --release 0" in str(ask(leases, mig))


def test_a_record_is_never_half_written(leases, monkeypatch):
    """Killed before the rename, nothing is set aside, and the leftover is swept."""

    def die(*_args, **_more):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(os, "rename", die)
        with pytest.raises(KeyboardInterrupt):
            leases.set_aside(A, "Xid 79", OWNER)
    assert list(leases.folder.iterdir()) == []


def test_what_cannot_be_written_is_an_error(leases):
    """A record that is a folder can be neither emptied nor removed: releasing says so."""
    leases.folder.mkdir()
    (leases.folder / f"{aside.PREFIX}{A}~0.json").mkdir()
    assert [one.uuid for one in leases.set_asides()] == [A]
    with pytest.raises(OSError, match="directory"):
        leases.release(A)
