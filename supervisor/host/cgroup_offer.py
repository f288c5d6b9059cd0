"""What of cgroups this process may use.

Owns the survey of this host's hierarchies. It moves nobody but this very process, and that only
inside a cgroup that was delegated to it. Invariant: what the offer names was tried, and what it
lacks has a reason that a person can act on.
"""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from supervisor.host import cgroup_files as files
from supervisor.host.cgroup_mounts import Hierarchy, hierarchies

TREE = "supervise"
"""Folder at the top of a hierarchy that holds the leaves of every runner that is root."""

_RUNNER = "supervise-runner-"
_OURS = re.compile(rf"{_RUNNER}\d+|supervise-.+-\d+-[0-9a-f]{{8}}")
_TRIES = 3
_WANTED = ("memory", "pids")
_LACK = {"kill": "no kill of a whole cgroup", "memory": "no memory limit", "pids": "no pids limit"}

_SCOPE = "run it under `systemd-run --user --scope -p Delegate=yes supervise run …`"
_NO_V2 = (
    "no cgroup v2 hierarchy is mounted: boot with systemd.unified_cgroup_hierarchy=1, or as root"
    " `mount -t cgroup2 none /sys/fs/cgroup/unified`"
)
_READ_ONLY = (
    "{} is mounted read-only: start the container with --cgroupns=private and a writable cgroup"
    " (--privileged, or security options that leave it writable), or start `supervise` outside"
)
_NOT_YOURS = "this user may not make cgroups in {}: " + _SCOPE
_NOT_SEEN = "the cgroup of this process is not among the mounted ones: " + _SCOPE
_NO_CGROUP_KILL = "this kernel has no cgroup.kill (Linux 5.14 has): members are killed one by one"
_SHARED = (
    "other processes are in {0} beside this one, so it cannot hand controllers to cgroups below:"
    " give it a cgroup of its own (" + _SCOPE + ", or make it the container's first process)"
)
_NOT_GIVEN = "the {0} controller does not reach {1}: delegate it (`-p Delegate={0}`)"
_SWITCHED_OFF = (
    "the {0} controller is not at {1}: take `cgroup_disable={0}` off the kernel's command line"
)
_OCCUPIED = (
    "processes are in {1} itself, so the {0} controller cannot be handed to cgroups below: move"
    " them into one (`mkdir {1}/rest`, then write each pid to {1}/rest/cgroup.procs)"
)


@dataclass(frozen=True)
class Offer:
    """What this process may use of cgroups. Found out once per runner.

    `kill`, `memory` and `pids` are folders in which leaves may be made; None where that lever is
    missing. A version is 0 where there is none. `freezer` is where version 1 freezes processes.
    """

    kill: Path | None = None
    memory: Path | None = None
    pids: Path | None = None
    version_memory: int = 0
    version_pids: int = 0
    reasons: tuple[str, ...] = ()
    freezer: Path | None = None


@dataclass(frozen=True, slots=True)
class _Place:
    """A folder of version 2 for leaves; `why` tells what each lever that is missing would take."""

    base: Path | None
    levers: frozenset[str]
    why: dict[str, str]


def survey() -> Offer:
    """Find out what this process may use. Never raises.

    Ask before the first child is started: where a cgroup was delegated to this process, it moves
    into one below, which works only as long as it is alone.
    """
    return look(Path("/proc"), os.geteuid())


def look(proc: Path, user: int) -> Offer:
    """Do what `survey` does for a process of this user that `proc` shows as `self`."""
    mounted = hierarchies(proc)
    unified = next((one for one in mounted if one.version == 2), None)  # noqa: PLR2004 -- cgroup v2
    place = _unified(unified, user)
    found: dict[str, tuple[Path | None, int]] = {}
    for lever in _LACK:
        if place.base is not None and lever in place.levers:
            found[lever] = (place.base, 2)
            continue
        legacy = next((one for one in mounted if lever in one.controllers), None)
        base = _legacy(legacy, user) if legacy is not None else None
        found[lever] = (base, 1 if base is not None else 0)
    missing = {lever: place.why.get(lever, "") for lever, (base, _) in found.items() if not base}
    return Offer(
        kill=found["kill"][0],
        memory=found["memory"][0],
        pids=found["pids"][0],
        version_memory=found["memory"][1],
        version_pids=found["pids"][1],
        reasons=_sentences(missing),
        freezer=next((one.point for one in mounted if "freezer" in one.controllers), None),
    )


def _sentences(missing: dict[str, str]) -> tuple[str, ...]:
    """Join what is missing for the same reason into one sentence."""
    joined: dict[str, list[str]] = {}
    for lever, why in missing.items():
        joined.setdefault(why, []).append(_LACK[lever])
    return tuple(f"{', '.join(lacks)}: {why}" for why, lacks in joined.items())


def _unified(hierarchy: Hierarchy | None, user: int) -> _Place:
    if hierarchy is None:
        return _nothing(_NO_V2)
    if hierarchy.read_only:
        return _nothing(_READ_ONLY.format(hierarchy.point))
    home = _home(hierarchy)
    if home is not None and _delegated(home, hierarchy, user):
        return _in_our_own(home)
    if user == 0:
        return _at_the_top(hierarchy.point)
    if home is not None and _may_write(home):
        return _place(home, home, {})
    return _nothing(_NOT_YOURS.format(home) if home is not None else _NOT_SEEN)


def _nothing(why: str) -> _Place:
    return _Place(None, frozenset(), dict.fromkeys(_LACK, why))


def _home(hierarchy: Hierarchy) -> Path | None:
    """Return our cgroup, or the one above when we made it: for us, or for a worker we are in."""
    home = hierarchy.own
    while home is not None and home != hierarchy.point and _OURS.fullmatch(home.name):
        home = home.parent
    return home


def _may_write(folder: Path) -> bool:
    needed = (folder, folder / "cgroup.procs")
    return all(os.access(one, os.W_OK, effective_ids=True) for one in needed)


def _delegated(home: Path, hierarchy: Hierarchy, user: int) -> bool:
    """Tell whether a cgroup was given to us to divide; cgroups(7), systemd's Delegate=."""
    if not _may_write(home):
        return False
    for name in ("user.delegate", "trusted.delegate"):
        with suppress(OSError):
            if os.getxattr(home, name) == b"1":
                return True
    if user == 0:
        return home == hierarchy.point and not _kernels_root(home)  # the top of a container
    with suppress(OSError):
        owned = (home / "cgroup.procs", home / "cgroup.subtree_control")
        return all(one.stat().st_uid == user for one in owned)
    return False


def _in_our_own(home: Path) -> _Place:
    """Divide a cgroup that was delegated: leaves, and one for this process beside them."""
    why = {}
    _clear_away(home)
    available = files.words(home / "cgroup.controllers")
    wanted = available.intersection(_WANTED) - files.words(home / "cgroup.subtree_control")
    # Version 2 has processes at the ends of the tree only, once a controller is handed down.
    if wanted and (obstacle := _step_aside(home)):
        why = dict.fromkeys(wanted, obstacle)
    elif wanted:
        hand_down(home)
    return _place(home, home, why)


def _clear_away(home: Path) -> None:
    """Remove the cgroups of runners that are gone; one with a process in it stays."""
    with suppress(OSError):
        for folder in home.glob(f"{_RUNNER}*"):
            if _OURS.fullmatch(folder.name):
                with suppress(OSError):
                    folder.rmdir()


def _step_aside(home: Path) -> str:
    """Move this process below its cgroup; return what stands in the way of an empty one, or ""."""
    listed = set(files.content(home / "cgroup.procs").split())
    if listed - {str(os.getpid())}:
        return _SHARED.format(home)
    problem: OSError | None = None
    for _ in range(_TRIES if listed else 0):
        folder = home / f"{_RUNNER}{os.getpid()}"
        try:
            folder.mkdir(exist_ok=True)
            files.write(folder / "cgroup.procs", "0")
        except OSError as error:  # another runner may clear it away before we are in it
            problem = error
        else:
            return ""
    return f"this process cannot move below {home} ({problem}): {_SCOPE}" if problem else ""


def _at_the_top(point: Path) -> _Place:
    """Look at a tree of our own at the top of the hierarchy, for root."""
    base = point / TREE
    try:
        base.mkdir(exist_ok=True)
    except OSError as error:
        return _nothing(f"{base} could not be made ({error.strerror}): {_SCOPE}")
    hand_down(point)
    place = _place(base, point, {})
    with suppress(OSError):  # in use by another runner
        base.rmdir()
    return place


def hand_down(folder: Path) -> None:
    """Give memory and pids to the cgroups below, one by one, as far as the kernel lets us."""
    given = files.words(folder / "cgroup.subtree_control")
    available = files.words(folder / "cgroup.controllers")
    for controller in sorted(available.intersection(_WANTED) - given):
        with suppress(OSError):  # other processes stand in the way; who asks sees what came of it
            files.write(folder / "cgroup.subtree_control", f"+{controller}")


def _place(base: Path, above: Path, why: dict[str, str]) -> _Place:
    """Tell what leaves in `base` have, when `above` is what hands them controllers."""
    levers = set(files.words(above / "cgroup.subtree_control").intersection(_WANTED))
    if files.there(base / "cgroup.kill"):
        levers.add("kill")
    reasons = {one: _obstacle(above, one).format(one, above) for one in _WANTED}
    reasons["kill"] = _NO_CGROUP_KILL
    return _Place(base, frozenset(levers), reasons | why)


def _obstacle(above: Path, controller: str) -> str:
    """Tell why a controller does not reach the cgroups below."""
    if controller in files.words(above / "cgroup.controllers"):
        return _OCCUPIED
    return _SWITCHED_OFF if _kernels_root(above) else _NOT_GIVEN


def _kernels_root(folder: Path) -> bool:
    """Tell the hierarchy's own root from the top of a container's: only the root has no type."""
    return not files.there(folder / "cgroup.type")


def _legacy(hierarchy: Hierarchy, user: int) -> Path | None:
    """Return where leaves of a version 1 hierarchy may be made."""
    if hierarchy.read_only:
        return None
    if user == 0:
        base = hierarchy.point / TREE
        with suppress(OSError):
            base.mkdir(exist_ok=True)
            with suppress(OSError):  # in use by another runner
                base.rmdir()
            return base
    home = _home(hierarchy)
    return home if home is not None and _may_write(home) else None
