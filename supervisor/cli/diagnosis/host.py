"""Checks of the surroundings: containers, systemd, limits of this user, time, versions.

Owns the findings that explain others. Asks no service: files tell.
"""

import os
import platform
import pwd
import re
import resource
import time
from contextlib import suppress

from supervisor import __version__
from supervisor.cli.diagnosis.facts import Check, Facts
from supervisor.cli.diagnosis.finding import Finding, ok, weak
from supervisor.core.amounts import seconds

ENOUGH_FILES = 4096
SLEPT_S = 1.0
MANAGER = "sys/fs/cgroup/user.slice/user-{uid}.slice/user@{uid}.service/cgroup.controllers"
LOGIND = ("usr/lib/systemd/logind.conf", "etc/systemd/logind.conf")
SCOPE = "systemd-run --user --scope -p Delegate=yes supervise run job.yaml"

# A file that says which container this is, or what the cgroup of a process in one is called.
_FILES = (
    (".dockerenv", "docker"),
    ("run/.containerenv", "podman"),
    ("var/run/secrets/kubernetes.io", "kubernetes"),
)
_NAMES = re.compile(r"kubepods|docker|libpod|containerd|lxc|machine\.slice")


def _container(facts: Facts) -> Finding:
    found = {name: f"/{file}" for file, name in _FILES if facts.path(file).exists()}
    says = facts.says("run/systemd/container")
    if says:
        found[says] = "/run/systemd/container"
    standing = _NAMES.search(facts.says("proc/self/cgroup") or "")
    if standing and not found:
        found[standing[0]] = "its control group"
    if "microsoft" in (facts.says("proc/version") or "").lower():
        found["WSL"] = "/proc/version"
    if not found:
        return ok("none")
    return ok(", ".join(f"{name} (says {file})" for name, file in found.items()))


def _systemd(facts: Facts) -> Finding:
    offer = facts.offer()
    if not facts.path("run/systemd/system").is_dir():
        if offer.kill is not None and offer.memory is not None:
            return ok("does not run here, and is not needed: control groups can be used without")
        return weak(
            "does not run here",
            "Nobody gives this user a control group of his own.",
            "Run supervise as root, or on a host with systemd.",
        )
    if os.geteuid() == 0:
        return ok("runs; root needs no delegation")
    handed = set((facts.says(MANAGER.format(uid=os.geteuid())) or "").split())
    lacking = sorted({"memory", "pids"} - handed)
    if lacking:
        return weak(
            f"runs, but does not hand {' and '.join(lacking)} to this user",
            "Without root, limits on these are not kept by the kernel.",
            "As root, in /etc/systemd/system/user@.service.d/delegate.conf: [Service]"
            " Delegate=cpu cpuset io memory pids. Log in again, then: " + SCOPE,
        )
    if offer.kill is None:
        return weak(
            "runs, and this user has control groups, but this process is not in one of its own",
            "A job started like this is swept instead of killed at once.",
            f"Start jobs so: {SCOPE}",
        )
    return ok("runs, and hands memory and pids to this user")


def _logout(facts: Facts) -> Finding | None:
    if not facts.path("run/systemd/system").is_dir():
        return None
    standing = facts.says("proc/self/cgroup") or ""
    user = _user_name()
    if "/user@" in standing and not facts.path(f"var/lib/systemd/linger/{user}").exists():
        return weak(
            "jobs started here belong to the user's service manager, which ends with the last"
            " session",
            "A logout stops the job.",
            f"loginctl enable-linger {user}",
        )
    in_session = re.search(r"/session-[^/]+\.scope", standing)
    if in_session and os.geteuid() != 0 and _kills_at_logout(facts):
        return weak(
            "systemd ends what a session leaves behind (KillUserProcesses)",
            "A logout stops the job, also in tmux and behind nohup.",
            f"loginctl enable-linger {user}, and start jobs so: {SCOPE}",
        )
    return ok("leaves a job alone in tmux or behind nohup; a terminal that closes stops its job")


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _kills_at_logout(facts: Facts) -> bool:
    """What logind.conf(5) says of KillUserProcesses; the last one that says it counts."""
    said = "no"
    files = [facts.path(one) for one in LOGIND]
    for folder in ("usr/lib", "run", "etc"):
        files += sorted(facts.path(f"{folder}/systemd/logind.conf.d").glob("*.conf"))
    for file in files:
        with suppress(OSError):
            text = file.read_text(encoding="utf-8", errors="replace")
            for found in re.finditer(r"^\s*KillUserProcesses\s*=\s*(\w+)", text, re.MULTILINE):
                said = found[1].lower()
    return said in {"yes", "true", "on", "1"}


def _open_files(_facts: Facts) -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = "no limit" if hard == resource.RLIM_INFINITY else str(hard)
    if soft == resource.RLIM_INFINITY or soft >= ENOUGH_FILES:
        return ok(f"{soft} for each process (at most {most})")
    do = "In job.yaml: resources: {open_files: 65536}"
    if hard != resource.RLIM_INFINITY and hard < ENOUGH_FILES:
        do = "Raise the hard limit: `nofile` in /etc/security/limits.conf; in a container, --ulimit"
    return weak(
        f"{soft} for each process (at most {most})",
        "Data loaders with many workers end with 'Too many open files'.",
        do,
    )


def _sleep(_facts: Facts) -> Finding:
    behind_s = time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
    if behind_s < SLEPT_S:
        return ok("this host has not slept since it was booted")
    return weak(
        f"this host has slept {seconds(behind_s)} since it was booted",
        "Jobs stand still meanwhile, and a GPU may lose what was in its memory.",
        "systemctl mask sleep.target suspend.target hibernate.target hybrid-sleep.target",
    )


def _versions(_facts: Facts) -> Finding:
    return ok(f"supervise {__version__}, Python {platform.python_version()}")


CHECKS = (
    Check("versions", _versions),
    Check("container", _container),
    Check("systemd", _systemd),
    Check("logout", _logout),
    Check("open files", _open_files),
    Check("sleep", _sleep),
)
