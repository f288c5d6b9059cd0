"""What is asked of systemd by its own tools, for the system or for one user.

Owns how its tools are called and how their failures read; knows no unit but by name. Changes
nothing of itself.
"""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path

from supervisor.daemon.units import SERVICE, Refused

BOOTED = Path("/run/systemd/system")  # sd_booted(3)
COMMAND_S = 900.0  # a start waits for the daemon to be ready, a stop for the jobs to be saved


@dataclass(frozen=True, slots=True)
class Systemd:
    """The service manager of the system, or of this user."""

    user: bool

    def refuse_without(self) -> None:
        """Raises Refused where it does not run, or would not listen to us."""
        if not BOOTED.is_dir():
            raise Refused(
                f"systemd does not run this host (there is no {BOOTED}). Start `supervise daemon "
                "run` by whatever starts services here."
            )
        if self.user:
            runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
            if not (Path(runtime) / "systemd/private").exists():
                raise Refused(
                    f"you have no service manager (there is no {runtime}/systemd/private): su and "
                    "sudo do not start one. Log in as this user, or let it start without a login: "
                    f"loginctl enable-linger {user_name()}"
                )
        elif os.geteuid() != 0:
            raise Refused(
                "the system's service is installed by root: sudo supervise daemon install. "
                "For a daemon of your own, which needs no root: supervise daemon install --user"
            )

    def ask(self, *words: str) -> str:
        """What systemctl answers; "" where it fails."""
        return self._run(["systemctl", *self._scope, *words]).stdout.strip()

    def do(self, *words: str) -> None:
        """Have it done. Raises Refused: it was not."""
        self.command("systemctl", *self._scope, *words)

    def command(self, *words: str) -> None:
        """Run one of systemd's tools. Raises Refused: it failed."""
        done = self._run(list(words))
        if done.returncode != 0:
            said = done.stderr.strip() or f"exit code {done.returncode}"
            hint = f"\nSee: {self.typed('status', SERVICE)}" if words[0] == "systemctl" else ""
            raise Refused(f"{' '.join(words)} failed: {said}{hint}")

    def is_active(self, unit: str) -> bool:
        """Whether it runs, or is about to."""
        return self.ask("is-active", unit) in {"active", "activating", "reloading"}

    def typed(self, *words: str) -> str:
        """The command as a person types it."""
        return " ".join(["systemctl", *self._scope, *words])

    @property
    def _scope(self) -> list[str]:
        return ["--user"] if self.user else []

    def _run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=COMMAND_S,
                check=False,
            )
        except FileNotFoundError as error:
            raise Refused(f"{words[0]} is not installed on this host") from error
        except subprocess.TimeoutExpired as error:
            raise Refused(f"{' '.join(words)} has not ended in {COMMAND_S:.0f} s") from error


def user_name(uid: int | None = None) -> str:
    """The name of a user, this one by default; the number where there is none."""
    number = os.getuid() if uid is None else uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
