"""The installed service in a container: installing it, replacing its program, asking it."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.systemd.container import ROOT, Container

STANDIN = Path(__file__).with_name("standin.py")
SUPERVISE = Path(sys.executable).with_name("supervise")
SOCKET = "/run/supervise/supervise.sock"
SERVICE = "supervise.service"
TARGET = "supervise-jobs.target"
ALL = (SERVICE, "supervise.socket", "supervise.slice")

ASK = """
import socket, sys
asking = socket.socket(socket.AF_UNIX)
asking.settimeout(30)
asking.connect(sys.argv[1])
asking.sendall(sys.argv[2].encode() + b"\\n")
print(asking.makefile().read())
"""


@dataclass(frozen=True)
class Service:
    """One installation; `user` has a service manager of their own, which then is meant."""

    container: Container
    user: str = ""

    def install(self, *options: str) -> str:
        """Install the units; what was said. The checkout may be anybody's: hence --force."""
        which = ["--user"] if self.user else []
        words = [SUPERVISE, "daemon", "install", "--force", *which, *options]
        return self.container.check(*words, user=self.user, cwd=ROOT)

    def ctl(self, *words: object) -> str:
        """Have systemctl do something."""
        done = self.container.run("systemctl", *self._scope, *words, user=self.user)
        told = f"{words}: {done.stderr}\n{self.container.journal(SERVICE)[-3000:]}"
        assert done.returncode == 0, told
        return str(done.stdout)

    def shows(self, *names: str, unit: str = SERVICE) -> dict[str, str]:
        """Properties of a unit."""
        return self.container.shows(unit, *names, user=self.user)

    def pid(self, unit: str = SERVICE) -> int:
        """Its main process, by the number that it has in the container; 0: none."""
        return int(self.shows("MainPID", unit=unit)["MainPID"])

    def is_active(self, unit: str = SERVICE) -> bool:
        """Whether it is up."""
        return self.shows("ActiveState", unit=unit)["ActiveState"] == "active"

    def drop_in(self, *lines: str) -> None:
        """Change the service, and make systemd know."""
        folder = f"{self._units}/{SERVICE}.d"
        self.container.check("mkdir", "-p", folder, user=self.user)
        text = "\n".join(["[Service]", *lines, ""])
        self.container.check("tee", f"{folder}/test.conf", user=self.user, input=text)
        self.ctl("daemon-reload")

    def stand_in(self, *lines: str) -> None:
        """Let the stand-in be its program."""
        self.drop_in("ExecStart=", f"ExecStart={sys.executable} {STANDIN}", *lines)

    def ask(self, question: str, user: str = "") -> Any:
        """What the stand-in answers; None where it could not be asked."""
        done = self.container.run(sys.executable, "-c", ASK, SOCKET, question, user=user)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def runner(self, name: str, *command: str) -> int:
        """Start what stands for a runner, in a unit of its own; its pid."""
        unit = f"supervise-job-{name}.service"
        words = ["systemd-run", *self._scope, f"--unit={unit}", "--slice=supervise.slice"]
        words += ["--quiet", "--service-type=exec", f"--property=Before={TARGET}"]
        self.container.check(*words, *(command or ("sleep", "1000")), user=self.user)
        return self.pid(unit)

    def clear(self) -> None:
        """End all of it, and take the drop-in away."""
        run = self.container.run
        self.container.run("rm", "-f", "/run/supervise/slow")
        scope = (*self._scope, "--quiet")
        run("systemctl", *scope, "stop", *reversed(ALL), user=self.user)
        run("systemctl", *scope, "reset-failed", user=self.user)
        run("rm", "-rf", f"{self._units}/{SERVICE}.d", "/run/supervise/saved", user=self.user)
        run("systemctl", *scope, "daemon-reload", user=self.user)

    @property
    def _scope(self) -> list[str]:
        return ["--user"] if self.user else []

    @property
    def _units(self) -> str:
        home = f"/home/{self.user}/.config/systemd/user"
        return home if self.user else "/etc/systemd/system"
