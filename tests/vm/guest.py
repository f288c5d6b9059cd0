"""What happens in the machine, once its first process has mounted everything.

Owns the order: what can be tested side by side, what wants the machine for itself, and at last the
same machine under systemd. Each part is a run of pytest of its own, whose report is left in /run/vm
for the tests outside. Never judges a result. Invariant: whatever happens, the machine is switched
off.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent.relative_to(ROOT)
REPORTS = Path("/run/vm")
RUN = Path("/run/tests")
TOP = Path("/sys/fs/cgroup")
GIVEN = TOP / "given"
USER, NAME = 42424, "somebody"  # nobody on any host, and not one of systemd's own
HOME = RUN / "home"
SYSTEMD = Path("/lib/systemd/systemd")
BECOME_SYSTEMD = 100  # what init.c understands
LIMIT_S = 240.0
QUIET = ("randomly", "hypothesispytest", "cov", "cacheprovider")

UNITS = {
    "vm.target": "[Unit]\nRequires=vm.service\nAfter=vm.service\n",
    "vm.service": f"""[Unit]
Requires=basic.target dbus.socket
After=basic.target dbus.socket
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
TimeoutStartSec={LIMIT_S + 60:.0f}
ExecStart={sys.executable} {Path(__file__)} systemd
StandardOutput=tty
StandardError=tty
""",
}
# What reads through the whole disk, waits for devices or changes them.
MASKED = (
    "systemd-tmpfiles-setup.service",
    "systemd-tmpfiles-setup-dev.service",
    "systemd-journal-flush.service",
    "systemd-update-utmp.service",
    "systemd-remount-fs.service",
    "systemd-udevd.service",
    "systemd-udev-trigger.service",
    "timers.target",
)


@dataclass(frozen=True)
class Part:
    """Some tests, and who runs them where. Without a cgroup it is started where the guest is."""

    name: str
    tests: tuple[str, ...]
    user: int = 0
    cgroup: Path | None = None

    def start(self) -> subprocess.Popen[bytes]:
        """Start it; its output and its report have its name."""
        folder = RUN / self.name
        folder.mkdir(parents=True)
        os.chown(folder, self.user, self.user)
        plugins = [word for one in QUIET for word in ("-p", f"no:{one}")]
        pytest = [sys.executable, "-m", "pytest", *plugins, "--color=no", "--durations=0"]
        command = [*pytest, f"--basetemp={folder}/tests", f"--junitxml={folder}/report.xml"]
        become = _becoming(self.user, self.cgroup) if self.cgroup else []
        with (REPORTS / f"{self.name}.log").open("wb") as log:
            return subprocess.Popen(
                [*become, *command, *self.tests],
                cwd=ROOT,
                env=_environment(self.user),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )


CGROUPS = "tests/process/test_host_cgroup.py"
ROOTS = Part("root", (CGROUPS,))
USERS = Part(
    "user",
    (
        f"{HERE}/inside_delegated.py",
        f"{CGROUPS}::test_frozen_members_are_told_and_die",
        f"{CGROUPS}::test_a_worker_may_divide_its_own_leaf",
    ),
    USER,
    GIVEN / "tests",
)
ALONE = Part("memory", (f"{HERE}/inside_memory.py",), USER, GIVEN / "alone")
UNDER_SYSTEMD = (
    Part("systemd", (f"{HERE}/inside_systemd.py",)),
    Part("scope", (f"{HERE}/inside_scope.py",)),
)


def main(phase: str) -> int:
    """Do a phase; the exit status is for init.c."""
    if phase == "systemd":
        run(*UNDER_SYSTEMD)
        finish()
        return 0
    prepare()
    run(ROOTS, USERS)
    run(ALONE)
    if SYSTEMD.exists():
        prepare_systemd()
        return BECOME_SYSTEMD
    finish()
    return 0


def run(*parts: Part) -> None:
    """Run parts side by side, each to its end or its deadline."""
    started = [(part, part.start()) for part in parts]
    for part, process in started:
        try:
            status = process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        report = RUN / part.name / "report.xml"
        if report.exists():
            (REPORTS / f"{part.name}.xml").write_bytes(report.read_bytes())
        (REPORTS / f"{part.name}.status").write_text(str(status))


def finish() -> None:
    """Say that the end was reached."""
    (REPORTS / "finished").write_text("all parts were run\n")
    os.sync()


def prepare() -> None:
    """Have an ordinary user who may read this checkout and was given cgroups to divide."""
    with Path("/etc/passwd").open("a") as users, Path("/etc/group").open("a") as groups:
        users.write(f"{NAME}:*:{USER}:{USER}::{HOME}:/bin/sh\n")
        groups.write(f"{NAME}:*:{USER}:\n")
    HOME.mkdir(parents=True)
    os.chown(HOME, USER, USER)
    python = Path(sys.executable)
    for folder in {*python.parents, *python.resolve().parents, *ROOT.parents}:
        folder.chmod(folder.stat().st_mode | 0o055)
    for folder in (TOP, GIVEN):
        folder.mkdir(exist_ok=True)
        (folder / "cgroup.subtree_control").write_text("+memory +pids")
    for folder in (GIVEN, GIVEN / "tests", GIVEN / "alone"):
        give(folder)


def prepare_systemd() -> None:
    """Write the units of the last part, and keep the host's own from doing what takes minutes."""
    for mark in (Path("/.dockerenv"), Path("/run/.containerenv")):
        mark.unlink(missing_ok=True)  # the host may be a container; this machine is none
    folder = Path("/etc/systemd/system")
    for name, text in UNITS.items():
        (folder / name).write_text(text)
    for name in MASKED:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to("/dev/null")


def give(folder: Path) -> None:
    """Delegate a cgroup, as systemd does for `Delegate=yes`."""
    folder.mkdir(exist_ok=True)
    files = [folder / f"cgroup.{one}" for one in ("procs", "subtree_control", "threads")]
    for path in (folder, *files):
        os.chown(path, USER, USER)
    os.setxattr(folder, "user.delegate", b"1")


def _becoming(user: int, cgroup: Path) -> list[str]:
    """Return words before a command: enter a cgroup, as only root may, then become that user."""
    drop = f"setpriv --reuid {user} --regid {user} --clear-groups"
    return ["/bin/sh", "-c", f'echo 0 > {cgroup}/cgroup.procs && exec {drop} "$@"', "sh"]


def _environment(user: int) -> dict[str, str]:
    own = {"HOME": str(HOME), "USER": NAME} if user else {"HOME": "/root", "USER": "root"}
    return {**os.environ, **own}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
