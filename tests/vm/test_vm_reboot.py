"""A real power cut: the machine is gone in the middle of a training, and boots the same disk again.

What the kernel of the machine had not written to its disk is lost, as on a host whose plug is
pulled; the boot id is a new one.
"""

import compileall
import faulthandler
import json
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.vm import machine
from tests.vm.guest import ROOT

LIMIT_S = 400.0
pytestmark = [pytest.mark.vm, pytest.mark.timeout(2 * LIMIT_S + 60)]

DISK_MODULES = ("crc32c_generic", "virtio_blk", "ext4")
DISK_MIB = 256
ENOUGH = 10  # steps before the cut


@dataclass(frozen=True)
class Host:
    """A machine that is started more than once: its disk, and the folder that it reports to."""

    kernel: machine.Kernel
    folder: Path

    @property
    def out(self) -> Path:
        """Where the guest leaves its reports."""
        return self.folder / "out"

    @contextmanager
    def booted(self, phase: str) -> Iterator[subprocess.Popen[bytes]]:
        """The machine doing a phase; its power is cut at the end, if it is still on."""
        command = [sys.executable, "-m", "tests.vm.reboot_guest", phase]
        with (self.folder / f"{phase}.qemu").open("wb") as said:
            qemu = subprocess.Popen(
                self._command(
                    phase, ["/usr/bin/env", "-C", str(ROOT), f"PYTHONPATH={ROOT}", *command]
                ),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        try:
            yield qemu
        finally:
            qemu.kill()
            qemu.wait()

    def told(self, name: str) -> Any:
        """What the guest left under this name; None so far."""
        path = self.out / name
        return json.loads(path.read_text()) if path.exists() else None

    def said(self) -> str:
        """All that helps to understand a failure."""
        files = [*sorted(self.folder.glob("*.console")), *sorted(self.out.glob("*.log"))]
        files += sorted(self.folder.glob("*.qemu"))
        return "\n".join(f"{one.name}:\n{one.read_text(errors='replace')[-2000:]}" for one in files)

    def _command(self, phase: str, command: list[str]) -> list[str]:
        initramfs = self.folder / f"{phase}.initramfs"
        init = machine._first_process(self.folder)
        initramfs.write_bytes(machine._archive(self.kernel, command, init))
        accelerated = machine.VIRTUAL if machine._virtualises() else machine.EMULATED
        bare = ["-smp", "2", "-m", str(machine.MEMORY_MIB), "-nodefaults", "-no-user-config"]
        bare += ["-no-reboot", "-display", "none"]
        bare += ["-serial", f"file:{self.folder / f'{phase}.console'}"]
        system = ["-kernel", str(self.kernel.image), "-initrd", str(initramfs)]
        system += ["-append", machine.KERNEL_OPTIONS]
        shared = "local,security_model=none,multidevs=remap"
        disks = ["-virtfs", f"{shared},mount_tag=host,path=/,readonly=on"]
        disks += ["-virtfs", f"{shared},mount_tag=out,path={self.out}"]
        disks += ["-drive", f"file={self.folder / 'disk'},format=raw,if=virtio"]
        dies_with_us = ["setpriv", "--pdeathsig", "KILL", machine.QEMU]
        return [*dies_with_us, *accelerated, *bare, *system, *disks]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A machine with an empty disk."""
    monkeypatch.setattr(machine, "MODULES", (*machine.MODULES, *DISK_MODULES))
    try:
        kernel = machine.requirements()
    except machine.Unavailable as why:
        pytest.skip(str(why))
    for package in ("supervisor", "workers"):  # once here, not for every process there
        compileall.compile_dir(ROOT / package, quiet=2)
    faulthandler.cancel_dump_traceback_later()  # minutes are no hang here; the timeout stands
    made = Host(kernel, tmp_path)
    made.out.mkdir()
    with (tmp_path / "disk").open("wb") as disk:
        disk.truncate(DISK_MIB << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", tmp_path / "disk"], check=True)
    return made


def test_a_training_goes_on_after_a_power_cut(host: Host) -> None:
    """The daemon that starts then resumes the job by itself, from a checkpoint that was safe."""
    give_up_at = time.monotonic() + LIMIT_S
    with host.booted("before") as qemu:
        while (host.told("before.json") or {"pinned": 0})["pinned"] < ENOUGH:
            assert qemu.poll() is None, host.said()
            assert time.monotonic() < give_up_at, (host.told("before.json"), host.said())
            select.select([], [], [], 0.2)
    before = host.told("before.json")
    with host.booted("after") as qemu:
        assert qemu.wait(LIMIT_S) == 0, host.said()
    after = host.told("after.json")
    assert after is not None, host.said()
    assert after["boot"] != before["boot"]
    assert after["code"] == 0, host.said()
    attempts = after["shown"]["attempts"]
    assert [one["cause"] for one in attempts] == ["host_rebooted", "completed"]
    assert attempts[1]["resumed_step"] == after["left"] >= before["pinned"] > 0
    assert [one["step"] for one in after["began"]][1:] == [attempts[1]["resumed_step"]]
