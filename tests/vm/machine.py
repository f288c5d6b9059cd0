"""A virtual machine with the unified cgroup hierarchy of a usual host, for one run of tests.

Owns finding qemu and a kernel, the initramfs (init.c, the kernel's modules, the guest's command)
and the one boot. The host's root file system is the guest's, read-only under an overlay in memory,
so that the guest has this Python and this checkout. Invariant: the machine is gone when `boot`
returns, and soon also when the tests themselves are killed.
"""

import gzip
import lzma
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

QEMU = "qemu-system-x86_64"
INIT = Path(__file__).with_name("init.c")
VARIABLE = "SUPERVISE_VM_KERNEL"
"""Names the folder that holds boot/ and lib/modules, where a kernel was unpacked, not installed."""

KERNEL_ROOT = Path(os.environ.get(VARIABLE, "/"))
LIMIT_S = 600  # for a machine without hardware virtualisation, both of whose cores are busy
MEMORY_MIB = 1024
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
KERNEL_OPTIONS = "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable random.trust_cpu=on"
KERNEL_OPTIONS += " fstab=no systemd.show_status=0"
# Emulated, AVX costs more than it saves: an import takes half as long without it.
EMULATED = ["-accel", "tcg,thread=multi", "-cpu", "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+rdrand"]
VIRTUAL = ["-accel", "kvm", "-cpu", "host"]
NEWC = "070701" + "{:08x}" * 13
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


class Unavailable(Exception):
    """Why no machine can be booted here, for a person."""


@dataclass(frozen=True, slots=True)
class Booted:
    """What came of a boot: the exit status, None where it was cut short, and all that it said."""

    status: int | None
    console: str


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel image, and its modules in the order in which they are to be loaded."""

    image: Path
    modules: tuple[tuple[str, bytes], ...]


def requirements() -> Kernel:
    """Find what a boot needs. Raises Unavailable."""
    if shutil.which(QEMU) is None:
        raise Unavailable(f"no {QEMU}: apt-get install --no-install-recommends qemu-system-x86")
    if shutil.which("cc") is None:
        raise Unavailable("no C compiler for the machine's first process: apt-get install gcc")
    return _kernel(KERNEL_ROOT)


def _kernel(root: Path) -> Kernel:
    advice = f"install linux-image-amd64, or unpack it and name the folder in {VARIABLE}"
    images = [one for one in root.glob("boot/vmlinuz-*") if os.access(one, os.R_OK)]
    if not images:
        raise Unavailable(f"no kernel image in {root / 'boot'}: {advice}")
    why = ""
    for image in sorted(images, reverse=True):
        try:
            return Kernel(image, tuple(_modules(root, image.name.partition("-")[2])))
        except Unavailable as error:
            why = str(error)
    raise Unavailable(f"{why}: {advice}")


def _modules(root: Path, release: str) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the modules to load, each after those that it depends on."""
    folder = root / "lib/modules" / release
    files = {_named(one): one for one in folder.rglob("*.ko*")}
    builtin = folder / "modules.builtin"
    listed = builtin.read_text().split() if builtin.exists() else ()
    inside = {_named(Path(line)) for line in listed}
    seen: set[str] = set()

    def load(name: str) -> Iterator[tuple[str, bytes]]:
        if name in seen or name in inside:
            return
        seen.add(name)
        if name not in files:
            raise Unavailable(f"the kernel {release} has no module {name}")
        content = _unpacked(files[name])
        found = _DEPENDS.search(content)
        for needed in found[1].decode().split(",") if found and found[1] else ():
            yield from load(needed.replace("-", "_"))
        yield name, content

    for name in MODULES:
        yield from load(name)


def _named(file: Path) -> str:
    return file.name.partition(".ko")[0].replace("-", "_")


def _unpacked(file: Path) -> bytes:
    unpack: dict[str, Callable[[bytes], bytes]] = {
        ".ko": bytes,
        ".gz": gzip.decompress,
        ".xz": lzma.decompress,
        ".zst": _zstd,
    }
    return unpack[file.suffix](file.read_bytes())


def _zstd(packed: bytes) -> bytes:
    if shutil.which("zstd") is None:
        raise Unavailable("the kernel's modules are packed with zstd: apt-get install zstd")
    return subprocess.run(["zstd", "-dc"], input=packed, check=True, capture_output=True).stdout


def boot(kernel: Kernel, command: list[str], folder: Path, out: Path) -> Booted:
    """Run a command in the guest; what it writes to /run/vm is in `out`. Returns after power-off.

    `folder` takes what is built for it. The console's text tells how far a machine came that died.
    """
    initramfs = folder / "initramfs"
    initramfs.write_bytes(_archive(kernel, command, _first_process(folder)))
    console = folder / "console"
    machine = VIRTUAL if _virtualises() else EMULATED
    bare = ["-smp", "2", "-m", str(MEMORY_MIB), "-nodefaults", "-no-user-config", "-no-reboot"]
    bare += ["-display", "none", "-serial", f"file:{console}"]
    system = ["-kernel", kernel.image, "-initrd", initramfs, "-append", KERNEL_OPTIONS]
    shared = "local,security_model=none,multidevs=remap"
    folders = ["-virtfs", f"{shared},mount_tag=host,path=/,readonly=on"]
    folders += ["-virtfs", f"{shared},mount_tag=out,path={out}"]
    dies_with_us = ["setpriv", "--pdeathsig", "KILL", QEMU]
    with (folder / "qemu").open("w+") as said:
        try:
            status = subprocess.run(
                [*dies_with_us, *machine, *bare, *system, *folders],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                timeout=LIMIT_S,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            status = None
        said.seek(0)
        text = said.read() + (console.read_text(errors="replace") if console.exists() else "")
    return Booted(status, text)


def _virtualises() -> bool:
    """Tell whether the processor helps: a /dev/kvm can be there that does not work."""
    flags = set(Path("/proc/cpuinfo").read_text().split())
    return bool(flags & {"vmx", "svm"}) and os.access("/dev/kvm", os.R_OK | os.W_OK)


def _first_process(folder: Path) -> bytes:
    binary = folder / "init"
    command = ["cc", "-static", "-O1", "-Wall", "-Wextra", "-Werror", "-o", binary, INIT]
    subprocess.run(command, check=True)
    return binary.read_bytes()


def _archive(kernel: Kernel, command: list[str], init: bytes) -> bytes:
    """Return an initramfs: a cpio archive of the format newc, as the kernel's docs describe it."""
    words = b"".join(os.fsencode(word) + b"\0" for word in command)
    entries = [("init", 0o100755, init), ("command", 0o100644, words), ("modules", 0o40755, b"")]
    for number, (name, content) in enumerate(kernel.modules):
        entries.append((f"modules/{number:02}-{name}.ko", 0o100644, content))
    entries.append(("TRAILER!!!", 0, b""))
    return b"".join(_entry(number, *one) for number, one in enumerate(entries, start=1))


def _entry(inode: int, name: str, mode: int, content: bytes) -> bytes:
    header = NEWC.format(inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    return b"".join(map(_padded, (header.encode() + name.encode() + b"\0", content)))


def _padded(part: bytes) -> bytes:
    return part + b"\0" * (-len(part) % 4)
