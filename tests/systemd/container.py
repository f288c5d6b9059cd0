"""A container with a systemd of its own, over an overlay of this machine.

Owns one boot: systemd-nspawn, its cgroups, its mounts, and the way in. The root file system is this
machine's with a layer in memory above it, so that the container has this Python and this checkout
and what it writes is gone with it. Invariant: after `stop` no process, mount or cgroup is left, and
the kernel ends all of it when the tests themselves are killed.
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
NSPAWN = "systemd-nspawn"
CGROUPS = Path("/sys/fs/cgroup")
BOOT_S = 60.0
STOP_S = 60.0
COMMAND_S = 60.0
POWER_OFF = signal.SIGRTMIN + 4  # systemd(1), signals
FINISHED = {"running", "degraded"}
CLEAN = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
CLEAN |= {"LANG": "C.UTF-8", "TERM": "dumb"}

# A mount namespace of its own takes the mount away together with its last process.
ENTER = """
mount --bind / "$1" || exit 1
shift
while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || exit 1; shift; done
shift
exec "$@"
"""

Eventually = Callable[..., Any]
Done = subprocess.CompletedProcess[str]


class Unavailable(Exception):
    """Why no container can be booted here, for a person."""


def requirements() -> None:
    """Find what a boot needs. Raises Unavailable."""
    if os.geteuid() != 0:
        raise Unavailable("a container with systemd needs root")
    for tool, package in ((NSPAWN, "systemd-container"), ("nsenter", "util-linux")):
        if shutil.which(tool) is None:
            raise Unavailable(f"no {tool}: apt-get install {package}")
    if not Path("/usr/lib/systemd/systemd").exists():
        raise Unavailable("no systemd on this machine: apt-get install systemd")
    if "\toverlay\n" not in Path("/proc/filesystems").read_text():
        raise Unavailable("the kernel has no overlayfs (modprobe overlay)")
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    if tried.returncode != 0:
        raise Unavailable("no mount namespace may be made here")
    if not _has_systemd() and not all(os.access(one, os.W_OK) for one in _hierarchies()):
        raise Unavailable(f"no cgroup may be made in {CGROUPS}")


def _has_systemd() -> bool:
    return Path("/run/systemd/system").is_dir()


def _hidden() -> list[str]:
    """Bring this checkout in where it lies below a folder that is the container's own."""
    root = Path(__file__).resolve().parents[2]
    hides = any(root.is_relative_to(one) for one in ("/tmp", "/run", "/dev/shm"))
    return [f"--overlay={root}::{root}"] if hides else []


def _hierarchies() -> list[Path]:
    """Where the container's cgroup has to be, on a host without a systemd that would make it."""
    if (CGROUPS / "cgroup.procs").exists():
        return [CGROUPS]
    return [CGROUPS / "unified", *filter(Path.is_dir, [CGROUPS / "systemd"])]


@dataclass
class Container:
    """One container; `folder` takes what belongs to it. `binds` are nspawn's own options.

    It may be booted again after a stop: what it wrote is gone, but for what lies in a bind.
    """

    folder: Path
    eventually: Eventually
    binds: Sequence[str] = ()
    users: Sequence[str] = ()
    target: str = "basic.target"
    name: str = field(default_factory=lambda: f"supervise-test-{secrets.token_hex(4)}")
    leader: int = 0
    _nspawn: subprocess.Popen[bytes] | None = None

    @property
    def console(self) -> str:
        """What was said on the console."""
        file = self.folder / "console"
        return file.read_text(errors="replace") if file.exists() else ""

    def boot(self) -> None:
        """Return when systemd has finished starting. Raises Unavailable: it does not come up."""
        root = self.folder / "root"
        root.mkdir(parents=True, exist_ok=True)
        cgroups = [] if _has_systemd() else [one / self.name for one in _hierarchies()]
        for cgroup in cgroups:
            cgroup.mkdir()
        own = [] if _has_systemd() else ["--keep-unit"]
        dies_with_us = ["setpriv", "--pdeathsig", "KILL"]
        enter = ["unshare", "--mount", "sh", "-c", ENTER, "sh", root, *cgroups, "--"]
        command = [NSPAWN, "-D", root, "--boot", "--register=no", *own, "--private-network"]
        command += ["--volatile=overlay", "--console=pipe", "--link-journal=no"]
        command += [f"--machine={self.name}", *_hidden(), *self.binds]
        command += [f"systemd.unit={self.target}"]
        with (self.folder / "console").open("wb") as console:
            self._nspawn = subprocess.Popen(
                [*dies_with_us, *enter, *command],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**CLEAN, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )
        try:
            self.leader = self.eventually(self._find_leader, BOOT_S)
            self.eventually(self._is_up, BOOT_S)
        except BaseException:
            self.stop()
            raise

    def provide(self) -> None:
        """Make the users, the same every time, and let them run this Python. Once a boot."""
        self.check("chmod", "a+x", *interpreter())
        for user in self.users:
            self.check("useradd", "--create-home", "--shell", "/bin/sh", user)

    def _alive(self) -> subprocess.Popen[bytes]:
        assert self._nspawn is not None
        if self._nspawn.poll() is not None:
            raise Unavailable(f"{NSPAWN} does not run here: {self.console[-500:].strip()}")
        return self._nspawn

    def _find_leader(self) -> int:
        """The process that is number 1 in there, once it is systemd."""
        pid = self._alive().pid
        with suppress(OSError):
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                inside = _field(Path(f"/proc/{child}/status").read_text(), "NSpid").split()
                here = Path(f"/proc/{child}/exe").readlink().name
                if len(inside) > 1 and inside[-1] == "1" and here == "systemd":
                    return int(child)
        return 0

    def _is_up(self) -> bool:
        self._alive()
        return self.run("systemctl", "is-system-running").stdout.strip() in FINISHED

    def run(self, *command: object, user: str = "", **options: Any) -> Done:
        """Run a command in there, as root or as that user, and return how it went."""
        words = [str(one) for one in (*self._as(user), *command)]
        settings: dict[str, Any] = {"capture_output": True, "text": True, "timeout": COMMAND_S}
        settings |= {"stdin": subprocess.DEVNULL} if "input" not in options else {}
        return subprocess.run([*self._inside(), *words], check=False, **(settings | options))

    def start(self, *command: object, user: str = "", **options: Any) -> subprocess.Popen[str]:
        """Start a command in there; whoever starts it ends it."""
        words = [str(one) for one in (*self._as(user), *command)]
        return subprocess.Popen([*self._inside(), *words], text=True, **options)

    def check(self, *command: object, **options: Any) -> str:
        """Run a command that has to succeed; what it printed."""
        done = self.run(*command, **options)
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return str(done.stdout)

    def _inside(self) -> list[str]:
        namespaces = ["-m", "-u", "-i", "-n", "-p", "-C"]
        clean = [f"{name}={value}" for name, value in CLEAN.items()]
        return ["nsenter", "-t", str(self.leader), *namespaces, "--", "env", "-i", *clean]

    def _as(self, user: str) -> list[str]:
        if not user:
            return []
        who = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--no-new-privs"]
        uid = self.check("id", "-u", user).strip()
        home = ["env", f"HOME=/home/{user}", f"USER={user}", f"XDG_RUNTIME_DIR=/run/user/{uid}"]
        return [*home, *who]

    def shows(self, unit: str, *names: str, user: str = "") -> dict[str, str]:
        """Properties of a unit, as systemd has them."""
        manager = ["--user"] if user else []
        shown = self.check("systemctl", *manager, "show", unit, "-p", ",".join(names), user=user)
        return dict(line.split("=", 1) for line in shown.splitlines())

    def outside(self, pid: int) -> int:
        """The pid here of a process that has `pid` in there; 0 if it is gone."""
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                inside = _field((folder / "status").read_text(), "NSpid").split()
                if len(inside) > 1 and inside[-1] == str(pid) and self._holds(folder):
                    return int(folder.name)
        return 0

    def _holds(self, folder: Path) -> bool:
        return (folder / "ns/pid").stat().st_ino == Path(
            f"/proc/{self.leader}/ns/pid"
        ).stat().st_ino

    def journal(self, unit: str) -> str:
        """What a unit wrote to the journal."""
        return self.run("journalctl", "--no-pager", "-o", "cat", "-u", unit).stdout

    def stop(self) -> None:
        """Shut it down in order; by force where that takes too long. May be called twice."""
        nspawn, self._nspawn = self._nspawn, None
        if nspawn is None:
            return
        if self.leader and nspawn.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.leader, POWER_OFF)
            with suppress(subprocess.TimeoutExpired):
                nspawn.wait(STOP_S)
        for pid in (self.leader, nspawn.pid):
            if pid and nspawn.poll() is None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        nspawn.wait(STOP_S)
        self.leader = 0
        for hierarchy in _hierarchies():
            self.eventually(lambda top=hierarchy / self.name: _removed(top), STOP_S)


@contextmanager
def booted(
    folder: Path, eventually: Eventually, *binds: str, users: Sequence[str] = ()
) -> Iterator[Container]:
    """Give a container in which ordinary users can run this Python, and see it out.

    Raises:
        Unavailable: none can be booted here.
    """
    requirements()
    container = Container(folder, eventually, binds, users)
    container.boot()
    try:
        container.provide()
        yield container
    finally:
        container.stop()


def _field(status: str, name: str) -> str:
    return next(
        (line.partition(":")[2] for line in status.splitlines() if line.startswith(f"{name}:")), ""
    )


def _removed(top: Path) -> bool:
    """Whether a cgroup is gone, with all below it."""
    for folder, _, _ in os.walk(top, topdown=False):
        with suppress(OSError):
            Path(folder).rmdir()
    return not top.exists()


def interpreter() -> list[Path]:
    """The folders that an ordinary user must be able to enter to run this Python here."""
    ends = [Path(sys.executable), Path(sys.base_prefix), Path(sys.prefix), ROOT]
    return sorted({one for end in ends for one in (end.parent, *end.resolve().parents)})
