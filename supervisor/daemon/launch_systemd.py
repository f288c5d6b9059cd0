"""Runners as transient units of systemd: `supervise-job-<id>.service` in `supervise.slice`.

Owns the unit's properties and its name. systemd is spoken to by its own tools (`systemd-run`, then
`systemctl show`: about 40 ms together), in threads, since it may be slow to answer. A unit does
not belong to the daemon's: nothing that happens to that one reaches it.

What the unit says: SIGTERM at a stop goes to the runner alone, which has its worker save
(KillMode=mixed); a worker that is killed for memory does not end the runner (OOMPolicy=continue);
the runner may make control groups of its own (Delegate=yes); the daemon, not systemd, starts a new
one (Restart=no). A job that was stopped (75) or holds (3) is no failed unit; one that failed (1),
and a runner that was used wrongly (2), is.
"""

import asyncio
import os
import pwd
import shutil
import socket
import string
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from supervisor.daemon.accounts import Lookup, account, shared
from supervisor.daemon.contracts import Launch, LaunchFailed
from supervisor.daemon.launch_command import PYTHON, runner_command, somebody_else
from supervisor.runner.exits import Exit

SLICE = "supervise.slice"
PREFIX = "supervise-job-"
PLAIN = frozenset(string.ascii_letters + string.digits + "._-")
LONGEST_NAME = 255  # of a unit, UNIT_NAME_MAX
BEYOND_STOP_S = 30.0  # the runner's own time after its worker's
ANSWER_S = 30.0
AT_ONCE = 4
BOOTED = Path("/run/systemd/system")  # sd_booted(3)
SYSTEM_SOCKET = Path("/run/systemd/private")
LINGERING = Path("/var/lib/systemd/linger")
CONNECT_S = 1.0


class SystemdLauncher:
    """Starts each runner as a transient unit, of the system or (`user`) of this user's manager."""

    def __init__(
        self, *, user: bool, lookup: Lookup = account, python: Sequence[str] = PYTHON
    ) -> None:
        self.name = "systemd --user" if user else "systemd"
        self._scope = ["--user"] if user else []
        self._lookup = lookup
        self._python = python
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="systemd")

    async def available(self) -> str | None:
        """Say why runners cannot be units here; None: they can."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._missing)

    def _missing(self) -> str | None:
        missing = [tool for tool in ("systemd-run", "systemctl") if shutil.which(tool) is None]
        if missing:
            return f"{' and '.join(missing)} is not installed"
        if not BOOTED.is_dir():
            return f"systemd does not run this host (there is no {BOOTED})"
        if self._scope:
            return _no_systemd_of_user()
        return _unanswered(SYSTEM_SOCKET) if os.geteuid() == 0 else "only root's daemon may"

    async def launch(self, launch: Launch) -> int:
        """Start a runner; its pid. One that runs already as this unit is that runner.

        Raises:
            LaunchFailed: systemd refused, or did not answer in time, or the runner ended at once.
        """
        running = asyncio.get_running_loop()
        return await running.run_in_executor(self._threads, self._start, launch)

    def close(self) -> None:
        """Let go; no runner ends."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _start(self, launch: Launch) -> int:
        unit = unit_name(launch.job_id)
        somebody_else(launch.uid, self._lookup, self._python[0])  # whether they could run it
        command = [
            *("systemd-run", *self._scope, "--no-ask-password", "--quiet", "--collect"),
            *(f"--unit={unit}", f"--slice={SLICE}", "--service-type=exec"),
            f"--description=supervise: job {launch.job_id}",
            *(f"--property={one}" for one in self._properties(launch)),
            *(f"--setenv={name}={value}" for name, value in shared(os.environ).items()),
            *("--", *map(_unexpanded, runner_command(launch, self._python))),
        ]
        said = _asked(command)
        if said.returncode != 0:
            if pid := self._main_pid(unit):
                self._refuse_others(unit, launch.uid)
                return pid  # an earlier launch that seemed to fail, or that another daemon made
            _asked(["systemctl", *self._scope, "reset-failed", unit])
            said = _asked(command)
        if said.returncode != 0:
            raise LaunchFailed(f"systemd did not start {unit}: {_words(said)}")
        if pid := self._main_pid(unit):
            return pid
        raise LaunchFailed(f"the runner ended at once; see: {self._journal_command(unit)}")

    def _properties(self, launch: Launch) -> list[str]:
        success = " ".join(str(int(code)) for code in (Exit.STOPPED, Exit.HOLDING))
        properties = [
            "Delegate=yes",
            "KillMode=mixed",
            f"TimeoutStopSec={launch.stop_s + BEYOND_STOP_S:.0f}",
            "OOMPolicy=continue",  # the runner says what a worker's death means
            "Restart=no",
            "TasksMax=infinity",  # data loaders are many; the job's own limit is its runner's
            "IgnoreSIGPIPE=no",  # workers inherit it
            "Before=supervise-jobs.target",  # at shutdown the daemon asks first, see there
            "UMask=0077",
            "WorkingDirectory=/",
            f"SuccessExitStatus={success}",
        ]
        if not self._scope:  # also for root: only then systemd sets HOME, and the groups
            properties += [
                f"User={launch.uid}",
                "LimitMEMLOCK=infinity",  # pinned memory; the submitter's soft limit holds
                "After=network.target remote-fs.target nss-user-lookup.target",
            ]
        return properties

    def _main_pid(self, unit: str) -> int:
        digits = self._property(unit, "MainPID")
        return int(digits) if digits.isdigit() else 0

    def _refuse_others(self, unit: str, uid: int) -> None:
        """Raise LaunchFailed where a unit that runs is not this user's: its job is another one."""
        if self._scope:
            return  # all units of a user's own systemd are theirs
        owner = self._property(unit, "User")
        if owner != str(uid) and _uid(owner) != uid:
            raise LaunchFailed(
                f"{unit} runs already as {owner or 'another user'}, and not as uid {uid}: it is "
                "the runner of somebody else's job of that id"
            )

    def _property(self, unit: str, name: str) -> str:
        show = ["systemctl", *self._scope, "show", f"--property={name}", "--value", unit]
        said = _asked(show)
        return said.stdout.strip() if said.returncode == 0 else ""

    def _journal_command(self, unit: str) -> str:
        return " ".join(["journalctl", *self._scope, "-u", unit])


def unit_name(job_id: str) -> str:
    """Name the unit of a job. What no unit's name may hold is escaped as systemd-escape does.

    Raises:
        LaunchFailed: the id is too long.
    """
    letters = [chr(byte) for byte in os.fsencode(job_id)]
    escaped = "".join(one if one in PLAIN else f"\\x{ord(one):02x}" for one in letters)
    name = f"{PREFIX}{escaped}.service"
    if len(name) > LONGEST_NAME:
        raise LaunchFailed(f"the job's id is too long for the name of a unit: {job_id[:60]}...")
    return name


def _uid(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def _unexpanded(argument: str) -> str:
    """Write an argument so that systemd hands it over as it is: it replaces $NAME in commands."""
    return argument.replace("$", "$$")


def _asked(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Raises LaunchFailed when systemd does not answer."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ANSWER_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LaunchFailed(f"systemd did not answer {command[0]} in {ANSWER_S:.0f} s") from error
    except OSError as error:
        raise LaunchFailed(f"{command[0]} cannot be started: {error.strerror}") from error


def _words(said: subprocess.CompletedProcess[str]) -> str:
    lines = said.stderr.strip().splitlines() or [f"exit code {said.returncode}"]
    return lines[-1]


def _no_systemd_of_user() -> str | None:
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    if reason := _unanswered(Path(runtime) / "systemd/private"):
        return f"this user's systemd does not answer: {reason}"
    name = account(os.getuid()).name
    lingers = (LINGERING / name).exists()
    within = f"/user@{os.getuid()}.service/" in Path("/proc/self/cgroup").read_text("ascii")
    if not lingers and not within:
        # Own sessions survive the end of a login; the user's manager, and all its units, do not.
        return f"units of {name} end when they log out: loginctl enable-linger {name} changes that"
    return None


def _unanswered(path: Path) -> str | None:
    """Whether somebody listens at a socket: None, or why not."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(CONNECT_S)
        try:
            asking.connect(str(path))
        except OSError as error:
            return f"{path}: {error.strerror or error}"
    return None
