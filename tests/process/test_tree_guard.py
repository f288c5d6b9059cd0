"""The runner is killed: the launcher that was started ahead ends its tree, and nobody else's."""

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from supervisor.host.processes import ProcessId, living
from supervisor.process import Command, ExitStatus, Launcher, isolated_child
from workers import guard, launch

pytestmark = pytest.mark.usefixtures("unleaked")

FLEEING = ("loader", "session", "daemon", "deaf", "stopped", "traced", "scrubbed", "bare", "hare")

# Holds one child in a cgroup that was made for it, guarded by a launcher.
RUNNER = """
import asyncio, sys
from supervisor.host.cgroup import Leaf, survey
from supervisor.process import Command, Launcher, isolated_child
fd, name = int(sys.argv[1]), sys.argv[2]
async def main():
    leaf = Leaf(survey(), name) if name else None
    ahead = Launcher.start()
    command = Command(argv=sys.argv[3:], inherit_fds=[fd], leaf=leaf)
    async with isolated_child(command) as child:
        assert child.guard_by(ahead)
        print(child.pid, ahead.pid, flush=True)
        await child.wait()
asyncio.run(main())
"""

# Has a launcher guard a tree that is not its own, takes it back if asked to, and waits.
GUARDS = """
import signal, sys
from supervisor.process import Launcher
ahead = Launcher.start()
assert ahead.guard(None, sys.argv[1])
if sys.argv[2] == "relieved":
    assert ahead.guard(None, "")
print(ahead.pid, flush=True)
signal.pause()
"""


@contextmanager
def runner(fugitives: Any, leaf: Any) -> Iterator["subprocess.Popen[str]"]:
    """Run a program that holds the fugitives' worker."""
    fd = fugitives.pipe.write_fd
    name = leaf.name if leaf is not None else ""
    argv = [sys.executable, "-c", RUNNER, str(fd), name, *fugitives.argv]
    with subprocess.Popen(argv, pass_fds=[fd], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def bystander(mark: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a process that bears a mark, in a session of its own."""
    env = {**os.environ, "SUPERVISE_TREE": mark}
    with subprocess.Popen(["sleep", "1000"], env=env, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


def told(process: "subprocess.Popen[str]") -> list[int]:
    """Return the numbers in the next line that a program prints."""
    assert process.stdout is not None
    return [int(word) for word in process.stdout.readline().split()]


def test_the_tree_of_a_killed_runner_is_gone(
    flee: Any, bounds: Any, eventually: Any, gone: Callable[[int], bool]
) -> None:
    """SIGKILL to the runner: within seconds nobody of its tree is left, nor the guard itself."""
    fugitives, others = flee(*FLEEING), flee("session", "daemon")
    with (
        bystander(f"{uuid.uuid4().hex}/other") as stranger,
        subprocess.Popen(others.argv, pass_fds=[others.pipe.write_fd]) as unmarked,
        runner(fugitives, bounds) as process,
    ):
        child, ahead = told(process)
        fugitives.read()
        others.read()
        process.kill()
        eventually(lambda: fugitives.alive() == [] and fugitives.groups() == [])
        assert gone(child)
        assert gone(ahead)
        assert stranger.poll() is None
        assert unmarked.poll() is None
        assert len(others.alive()) == 2
        unmarked.kill()


def test_who_keeps_nothing_is_found_in_the_cgroup(flee: Any, leaf: Any, eventually: Any) -> None:
    """A process without parent, session and environment does not survive a killed runner."""
    fugitives = flee("lost", "hare")
    with runner(fugitives, leaf) as process:
        told(process)
        fugitives.read()
        process.kill()
        eventually(lambda: fugitives.alive() == [] and fugitives.groups() == [])


def test_a_guard_does_not_hear_polite_signals(flee: Any, eventually: Any) -> None:
    """Ctrl-C, a hangup and SIGTERM to everything in sight leave the guard at its post."""
    fugitives = flee("daemon")
    with runner(fugitives, None) as process:
        _, ahead = told(process)
        fugitives.read()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            os.kill(ahead, number)
        process.kill()
        eventually(lambda: fugitives.alive() == [])


@pytest.mark.parametrize(("order", "survives"), [("guarding", False), ("relieved", True)])
def test_a_guard_that_was_relieved(
    order: str, gone: Callable[[int], bool], *, survives: bool
) -> None:
    """Told to guard nothing any more, it ends nobody when its parent dies; else it would have."""
    mark = uuid.uuid4().hex
    argv = [sys.executable, "-c", GUARDS, mark, order]
    with (
        bystander(f"outer/{mark}") as marked,
        subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process,
    ):
        (ahead,) = told(process)
        process.kill()
        assert gone(ahead)
        assert (marked.poll() is None) == survives


def test_the_end_of_a_child_relieves_its_guard(gone: Callable[[int], bool]) -> None:
    """Once the child is gone, its mark is nobody's business any more."""
    mark = uuid.uuid4().hex
    program = f"""
import asyncio, signal
from supervisor.process import Command, Launcher, isolated_child
ahead = Launcher.start()
async def main():
    async with isolated_child(Command(argv=["true"], mark={mark!r})) as child:
        assert child.guard_by(ahead)
        await child.wait()
asyncio.run(main())
print(ahead.pid, flush=True)
signal.pause()
"""
    argv = [sys.executable, "-c", program]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        (ahead,) = told(process)
        with bystander(mark) as later:
            process.kill()
            assert gone(ahead)
            assert later.poll() is None


def test_closing_a_guard_ends_nobody(gone: Callable[[int], bool]) -> None:
    """A launcher that is closed in good order leaves the tree it guarded alone."""
    mark = uuid.uuid4().hex
    with bystander(mark) as guarded:
        launcher = Launcher.start()
        assert launcher.guard(None, mark)
        launcher.close()
        assert gone(launcher.pid)
        assert guarded.poll() is None
        assert not launcher.guard(None, mark)


def test_a_lost_socket_is_no_dead_parent() -> None:
    """The guard acts on the end of its very parent alone, which it holds by a descriptor."""
    parent = launch.hold_parent(os.getppid())
    assert parent is not None
    assert launch.ready(10, parent) == []
    os.close(parent)
    assert launch.hold_parent(os.getpid()) is None  # not the parent (any more)
    with bystander("x") as process:
        ended = os.pidfd_open(process.pid)
        process.kill()
        assert launch.ready(10_000, ended) == [ended]
        os.close(ended)


def test_a_guard_becomes_a_worker() -> None:
    """What was sent to the guard is not for the worker, which dies with its parent like any."""

    async def main() -> None:
        launcher = Launcher.start()
        assert launcher.guard(None, "nobody")
        for number in (signal.SIGTERM, signal.SIGUSR1):
            os.kill(launcher.pid, number)
        show = "import ctypes; n = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(n))"
        argv = [sys.executable, "-ISc", f"{show}; raise SystemExit(n.value)"]
        async with isolated_child(Command(argv=argv), launcher=launcher) as child:
            assert child.pid == launcher.pid
            assert await child.wait() == ExitStatus(signal.SIGKILL, None)  # PR_GET_PDEATHSIG

    asyncio.run(main())


def test_a_dead_guard_says_so() -> None:
    """Asking a launcher that died to guard is answered with no."""
    launcher = Launcher.start()
    os.kill(launcher.pid, signal.SIGKILL)
    os.waitid(os.P_PID, launcher.pid, os.WEXITED | os.WNOWAIT)
    assert not launcher.guard(None, "mark")
    launcher.close()


@pytest.mark.parametrize("lever", [True, False])
def test_a_tree_is_ended_by_its_cgroup_alone(
    flee: Any, leaf: Any, monkeypatch: pytest.MonkeyPatch, *, lever: bool
) -> None:
    """With cgroup.kill alone, and one by one where there is no such file (version 1)."""
    if lever:
        monkeypatch.setattr(guard, "kill_members", lambda *_: None)
    entries = [entry for entry in leaf.entries if entry.with_name("cgroup.kill").exists() == lever]
    if not entries:
        pytest.skip("there is no cgroup of this kind here")
    fugitives = flee("daemon", "session", "stopped", "lost")
    enter = 'for entry in "$1"; do echo 0 >"$entry"; done; shift; exec "$@"'
    argv = ["sh", "-c", enter, "sh", str(entries[0]), *fugitives.argv]
    with subprocess.Popen(argv, pass_fds=[fugitives.pipe.write_fd]) as process:
        fugitives.read()
        guard.Tree(b"nobody", 0, 0).end([os.fsencode(entries[0])])
        assert fugitives.alive() == []
        process.wait()


def test_a_tree_is_ended_by_mark_session_and_descent(flee: Any) -> None:
    """Without a cgroup; an entry that is gone is no obstacle."""
    fugitives = flee(*FLEEING)
    env = {**os.environ, "SUPERVISE_TREE": "outer/this"}
    words: dict[str, Any] = {"pass_fds": [fugitives.pipe.write_fd], "start_new_session": True}
    with subprocess.Popen(fugitives.argv, env=env, **words) as process:
        fugitives.read()
        main = living(process.pid)
        assert isinstance(main, ProcessId)
        order = {b"guard": [b""], b"main": [b"%d %d" % main], b"cgroup": [b"/none/cgroup.procs"]}
        guard.end(order)
        assert fugitives.alive()
        guard.end({**order, b"guard": [b"this"]})
        assert fugitives.alive() == []
        process.wait()


def test_a_tree_whose_main_process_died_is_ended_by_its_session(flee: Any) -> None:
    """Who lost its environment and its parent is still of the main process's session."""
    fugitives = flee("scrubbed")
    words: dict[str, Any] = {"pass_fds": [fugitives.pipe.write_fd], "start_new_session": True}
    with subprocess.Popen(fugitives.argv, **words) as process:
        fugitives.read()
        main = living(process.pid)
        assert main is not None
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert fugitives.alive()
        guard.Tree(b"this", *main).end([])
        assert fugitives.alive() == []


def test_an_end_that_takes_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard does not wait for ever for a process that does not die."""
    monkeypatch.setattr(guard, "LIMIT_S", 0.05)
    for name in ("send", "signal_group"):
        monkeypatch.setattr(guard, name, lambda *_: None)
    with bystander("undying") as process:
        guard.Tree(b"undying", 0, 0).end([])
        assert process.poll() is None


def test_what_cannot_be_read_or_reached() -> None:
    """A process that is gone has no state, no mark, and takes no signal."""
    with bystander("x") as process:
        one = guard.stat(process.pid)
        assert one is not None
        assert guard.chain(one) == b"x"
        process.kill()
    assert guard.stat(process.pid) is None
    assert guard.chain(one) == b""
    with suppress(ProcessLookupError):
        guard.send(one, signal.SIGKILL)
    assert not Path(f"/proc/{process.pid}").exists()
