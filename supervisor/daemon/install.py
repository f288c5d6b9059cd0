"""Makes the daemon a service of this host or of one user.

Owns the order of the steps and what may not be done. Each step is told in words as it is done.
Invariant: doing it twice is doing it once.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from supervisor.daemon.systemctl import Systemd, user_name
from supervisor.daemon.units import SERVICE, SOCKET, Layout, Program, Refused

LINGERING = Path("/var/lib/systemd/linger")
GROUP = "supervise"


@dataclass(frozen=True, slots=True)
class Wishes:
    """How to install. `dry`: only write the files, for a host that is not this one."""

    now: bool = False
    force: bool = False
    dry: bool = False


def install(layout: Layout, program: Program, wishes: Wishes) -> Iterator[str]:
    """Write the units and make them known; tells what was done, and what to type next.

    Raises:
        Refused: it cannot or should not be done.
        OSError: a file cannot be written.
    """
    systemd = Systemd(layout.user)
    if not wishes.dry:
        systemd.refuse_without()
    _refuse_program(layout, program, wishes)
    strangers = layout.strangers(program)
    if strangers and not wishes.force:
        raise Refused(
            "another installation is here: " + "; ".join(strangers) + ". Remove it first "
            "(supervise daemon uninstall), or replace it with --force. Its jobs go on either way."
        )
    changed = []
    for file, text in layout.rendered(program).items():
        is_new = _write(file, text)
        changed += [file.name] * is_new
        yield f"{'wrote' if is_new else 'unchanged:'} {file}"
    if wishes.dry:
        return
    yield from _make_known(layout, systemd)
    if wishes.now:
        yield from _start(layout, systemd, changed)
    yield from _next_steps(layout, systemd, wishes)


def _refuse_program(layout: Layout, program: Program, wishes: Wishes) -> None:
    if layout.user or wishes.dry:
        return
    if place := program.closed_to_others():
        raise Refused(
            f"{program.command} cannot be run by those who submit jobs: {place} is closed to them "
            f"(mode {place.stat().st_mode & 0o7777:04o}), and each job runs as its user. Install "
            "supervise where all may read it, for example: python3 -m venv /opt/supervise && "
            "/opt/supervise/bin/pip install 'gpu-supervise[daemon]'"
        )
    if not wishes.force and (place := program.open_to_change()):
        owner = place.stat().st_uid
        raise Refused(
            f"{place} can be changed by others than root (owner {user_name(owner)}, mode "
            f"{place.stat().st_mode & 0o7777:04o}); who changes it would be root here. Install "
            "supervise as root, for example in /opt/supervise, or say --force if that is meant."
        )


def _write(file: Path, text: str) -> bool:
    """Put a file there, whole; False where it is there already."""
    if file.is_file() and file.read_bytes() == text.encode():
        return False
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        new.write_text(text, encoding="utf-8")
        new.chmod(0o644)
        new.rename(file)
    finally:
        new.unlink(missing_ok=True)
    return True


def _make_known(layout: Layout, systemd: Systemd) -> Iterator[str]:
    if not layout.user:
        systemd.command("systemd-sysusers", str(layout.root / "etc/sysusers.d/supervise.conf"))
        systemd.command(
            "systemd-tmpfiles", "--create", str(layout.root / "etc/tmpfiles.d/supervise.conf")
        )
        yield "groups supervise and supervise-admin are there, and the folders in /run"
    systemd.do("daemon-reload")


def _start(layout: Layout, systemd: Systemd, changed: list[str]) -> Iterator[str]:
    systemd.do("enable", SERVICE)
    was_active = systemd.is_active(SERVICE)
    if SOCKET in changed and systemd.is_active(SOCKET):
        systemd.do("restart", SOCKET)  # and the daemon with it, which requires it
    systemd.do("restart" if was_active else "start", SERVICE)
    done = "was restarted; jobs went on" if was_active else "runs"
    yield f"the daemon {done}; it starts at every {'login' if layout.user else 'boot'}"


def _next_steps(layout: Layout, systemd: Systemd, wishes: Wishes) -> Iterator[str]:
    if not wishes.now:
        if systemd.is_active(SERVICE):
            yield f"next: {systemd.typed('restart', SERVICE)}    (the new program; jobs go on)"
        else:
            yield f"next: {systemd.typed('enable', '--now', SERVICE)}"
    if not layout.user:
        yield f"next: usermod -aG {GROUP} USER    (for each who may submit; from their next login)"
    elif not (LINGERING / user_name()).exists():
        yield (
            f"next: loginctl enable-linger {user_name()}    (else your jobs are stopped when you "
            "log out, and go on at your next login)"
        )
