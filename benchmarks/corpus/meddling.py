"""What is done to a case from outside while its phase lasts: stopped, traced, frozen, throttled.

Owns the ways. Each is a context: done on entering, undone on leaving, whatever happened between.
Raises OSError where this host does not allow it; `why_not` asks beforehand.
"""

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

CGROUPS = Path("/sys/fs/cgroup")
PROCESSES = "cgroup.procs"
GONE_S = 5.0
PTRACE_ATTACH, PTRACE_DETACH = 16, 17  # linux/ptrace.h
WAIT_ALL = 0x40000000  # __WALL: a traced process is waited for although it is no child
PULSE_OFF_S, PULSE_ON_S = 0.9, 0.1
PERIOD_US, QUOTA_US = 100_000, 12_000


@dataclass(frozen=True, slots=True)
class Target:
    """The processes of a case, as descriptors too: a number may be another's by now."""

    worker: int
    worker_fd: int
    runner_fd: int


def why_not(meddling: str) -> str:
    """Why this host does not allow it, or nothing."""
    try:
        with _PROBES.get(meddling, _nothing)():
            return ""
    except OSError as error:
        return str(error)


def meddled(meddling: str, target: Target) -> AbstractContextManager[None]:
    """Do it while the block lasts."""
    return _WAYS[meddling](target)


@contextmanager
def _stopped(*fds: int) -> Iterator[None]:
    with ExitStack() as stack:
        for fd in fds:
            stack.callback(_signal, fd, signal.SIGCONT)
            _signal(fd, signal.SIGSTOP)
        yield


@contextmanager
def _pulsed(target: Target) -> Iterator[None]:
    over = threading.Event()

    def pulse() -> None:
        while not over.wait(PULSE_ON_S):
            with _stopped(target.worker_fd):
                over.wait(PULSE_OFF_S)

    thread = threading.Thread(target=pulse)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def _traced(target: Target) -> Iterator[None]:
    _ptrace(PTRACE_ATTACH, target.worker)
    try:
        os.waitpid(target.worker, WAIT_ALL)
        yield
    finally:
        with suppress(OSError):  # it may be gone
            _ptrace(PTRACE_DETACH, target.worker)


def _ptrace(request: int, pid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(request, pid, None, None) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace({request}) of process {pid}: {os.strerror(number)}")


@contextmanager
def _can_trace() -> Iterator[None]:
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    allowed = int(scope.read_text()) if scope.exists() else 0
    if allowed > 1 and (allowed > 2 or os.geteuid()):  # noqa: PLR2004 - 3: nobody
        raise OSError(f"ptrace_scope is {allowed}")
    yield


@contextmanager
def _frozen(target: Target, version: int) -> Iterator[None]:
    """In a cgroup of its own; in v2 in the one it has, where that is its supervisor's for it."""
    hierarchy = _FREEZERS[version]
    file, on, off = _SWITCHES[version]
    with ExitStack() as stack:
        group = _own_leaf(target.worker, hierarchy)
        if group is None:
            group = stack.enter_context(_cgroup(hierarchy))
            stack.enter_context(_moved(target.worker, hierarchy, group))
        stack.callback((group / file).write_text, off)
        (group / file).write_text(on)
        yield


@contextmanager
def _throttled(target: Target) -> Iterator[None]:
    with _cgroup("cpu") as group, _moved(target.worker, "cpu", group):
        (group / "cpu.cfs_period_us").write_text(f"{PERIOD_US}")
        (group / "cpu.cfs_quota_us").write_text(f"{QUOTA_US}")
        yield


@contextmanager
def _cgroup(hierarchy: str) -> Iterator[Path]:
    """A new cgroup below this process's own, removed afterwards."""
    group = _cgroup_of(os.getpid(), hierarchy) / f"corpus-{uuid4().hex[:8]}"
    group.mkdir()
    try:
        yield group
    finally:
        _remove(group)


def _remove(group: Path) -> None:
    """Away with it; who was killed in there may need a moment to be gone."""
    deadline = time.monotonic() + GONE_S
    while True:
        try:
            group.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


@contextmanager
def _moved(pid: int, hierarchy: str, group: Path) -> Iterator[None]:
    """The process in another cgroup; afterwards whatever is in there goes where it came from."""
    before = _cgroup_of(pid, hierarchy)
    (group / PROCESSES).write_text(f"{pid}")
    try:
        yield
    finally:
        for one in (group / PROCESSES).read_text().split():
            with suppress(OSError):  # it is ending
                (before / PROCESSES).write_text(one)


def _own_leaf(pid: int, hierarchy: str) -> Path | None:
    group = _cgroup_of(pid, hierarchy)
    return group if group.name.startswith("supervise-") else None


def _cgroup_of(pid: int, hierarchy: str) -> Path:
    """Where a process is in a mounted hierarchy; the list of controllers is empty for v2."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if hierarchy in (controllers.split(",") if controllers else ("unified", ".")):
            group = CGROUPS / hierarchy / path.lstrip("/")
            if (group / PROCESSES).exists():
                return group
    raise FileNotFoundError(f"no cgroup of process {pid} in {CGROUPS / hierarchy}")


def _unified() -> str:
    """Where v2 is mounted: alone, or beside v1."""
    return "." if (CGROUPS / "cgroup.controllers").exists() else "unified"


def _signal(fd: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(fd, number)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


Way = Callable[[Target], AbstractContextManager[None]]
_FREEZERS = {1: "freezer", 2: _unified()}
_SWITCHES = {1: ("freezer.state", "FROZEN", "THAWED"), 2: ("cgroup.freeze", "1", "0")}
_WAYS: dict[str, Way] = {
    "": lambda _target: _nothing(),
    "stop": lambda target: _stopped(target.worker_fd),
    "stop-runner": lambda target: _stopped(target.runner_fd),
    "stop-both": lambda target: _stopped(target.runner_fd, target.worker_fd),
    "pulses": _pulsed,
    "trace": _traced,
    "freeze-v1": lambda target: _frozen(target, 1),
    "freeze-v2": lambda target: _frozen(target, 2),
    "throttle": _throttled,
}
_PROBES: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "trace": _can_trace,
    "freeze-v1": lambda: _cgroup(_FREEZERS[1]),
    "freeze-v2": lambda: _cgroup(_FREEZERS[2]),
    "throttle": lambda: _cgroup("cpu"),
}
