"""Promise 1, attacked: whatever a worker's processes do, none of them outlives its attempt."""

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from supervisor.host.cgroup import survey
from supervisor.host.processes import ProcessId
from supervisor.process import Child, Command, isolated_child, tree
from supervisor.process.marks import marked

pytestmark = pytest.mark.usefixtures("unleaked")

FLEEING = ("loader", "session", "daemon", "deaf", "stopped", "traced", "scrubbed", "bare")
BOMB_PROCESSES = 120

# Limits the processes of a user, becomes one to whom that applies, and goes off.
BOMB = """
import collections.abc, ctypes, os, pathlib, resource, signal, sys, typing  # while it may read
script, limit = pathlib.Path(sys.argv[1]).read_text(), int(sys.argv[2])
del sys.argv[1:3]
resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
exec(compile(script, "fugitives", "exec"))
"""

# Holds an inner child with fugitives in it, then waits.
OUTER = """
import asyncio, sys
from supervisor.process import Command, isolated_child
async def main():
    async with isolated_child(Command(argv=sys.argv[2:], inherit_fds=[int(sys.argv[1])])) as child:
        await child.wait()
asyncio.run(main())
"""

# A process that adopts orphans; its children are gone, and reaped, when it says so.
SUBREAPER = """
import asyncio, os, sys
from supervisor.process import Command, isolated_child
from supervisor.process.orphans import Orphans, become_subreaper
become_subreaper()
async def main(fd):
    async with isolated_child(Command(argv=sys.argv[2:], inherit_fds=[fd])) as child:
        await asyncio.to_thread(sys.stdin.readline)
    print(open(f"/proc/self/task/{os.getpid()}/children").read(), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
asyncio.run(main(int(sys.argv[1])))
"""

# Adopts orphans and has three children of its own, while a fourth is held and ended.
PARENT_OF_OTHERS = """
import asyncio, os, subprocess
from supervisor.process import Command, Launcher, isolated_child
from supervisor.process.orphans import Orphans, become_subreaper
become_subreaper()
async def main():
    async with isolated_child(Command(argv=["sleep", "1000"])):
        near = subprocess.Popen(["sleep", "1000"])
        far = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        launcher = Launcher.start()
    status = os.waitid(os.P_PID, launcher.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    print([near.poll(), far.poll(), status])
    launcher.close()
    for one in (near, far):
        one.kill()
        one.wait()
asyncio.run(main())
"""


async def ended(child: Child, how: str) -> None:
    """End a child in one of the ways there are."""
    if how == "stop":
        await child.stop(grace_s=0.05)
    elif how == "kill":
        await child.kill()


@pytest.mark.parametrize("how", ["leave", "stop", "kill"])
def test_who_flees_is_gone_with_the_block(flee: Any, bounds: Any, how: str) -> None:
    """Sessions, daemons, stopped, traced, deaf and unmarked ones are gone when the block is left.

    The stopped one would hold up whoever waits for it; the tracer dies before its tracee.
    """
    fugitives = flee(*FLEEING)

    async def main() -> Child:
        fds = [fugitives.pipe.write_fd]
        async with isolated_child(
            Command(argv=fugitives.argv, inherit_fds=fds, leaf=bounds)
        ) as child:
            await fugitives.heard()
            assert len(fugitives.alive()) == fugitives.count
            await ended(child, how)
        return child

    child = asyncio.run(main())
    assert fugitives.alive() == []
    assert child.survivors() == []


def test_who_flees_after_the_main_process_ended(flee: Any, bounds: Any) -> None:
    """The same when the main process dies first and takes with it what proved where they belong."""
    fugitives = flee(*FLEEING)

    async def main() -> None:
        command = Command(argv=fugitives.argv, inherit_fds=[fugitives.pipe.write_fd], leaf=bounds)
        async with isolated_child(command) as child:
            await fugitives.heard()
            child.members()  # looked at once, the unmarked one is remembered
            child.signal(9)
            await child.wait()
            assert fugitives.alive()

    asyncio.run(main())
    assert fugitives.alive() == []


def test_who_is_of_the_session_alone(flee: Any) -> None:
    """One without environment whose parent has ended, before anybody looked."""
    fugitives = flee("scrubbed")

    async def main() -> None:
        command = Command(argv=fugitives.argv, inherit_fds=[fugitives.pipe.write_fd])
        async with isolated_child(command) as child:
            await fugitives.heard()
            child.signal(9)
            await child.wait()
            assert fugitives.alive()

    asyncio.run(main())
    assert fugitives.alive() == []


def test_a_group_is_ended_at_one_blow(flee: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals to groups are enough for whoever has made one: that is what no fork escapes."""
    monkeypatch.setattr(tree, "send", lambda *_: None)
    fugitives = flee("loader", "session", "daemon", "deaf", "stopped")

    async def main() -> None:
        command = Command(argv=fugitives.argv, inherit_fds=[fugitives.pipe.write_fd])
        async with isolated_child(command):
            await fugitives.heard()

    asyncio.run(main())
    assert fugitives.alive() == []


def test_a_group_of_strangers_is_spared(eventually: Any, gone: Callable[[int], bool]) -> None:
    """One that bears our mark in somebody else's group dies alone."""
    mark = uuid.uuid4().hex
    script = f"SUPERVISE_TREE={mark} sleep 1000 & wait; read x"
    hosts: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        argv = ["sh", "-c", script]
        hosts.append(subprocess.Popen(argv, stdin=subprocess.PIPE, start_new_session=True))

    async def main() -> int:
        async with isolated_child(Command(argv=["sleep", "1000"], mark=mark)) as child:
            start()  # later than the child, or it could not be of its tree

            def guests() -> list[int]:
                return [one.pid for one in marked(mark) if one.pid != child.pid]

            guest: int = (await asyncio.to_thread(eventually, guests))[0]
            return guest

    try:
        assert gone(asyncio.run(main()))
        assert hosts[0].poll() is None
    finally:
        for host in hosts:
            host.communicate()


class Late(tree.Sweep):
    """A tree whose first kill misses all but the main process."""

    __slots__ = ("kills",)

    def kill(self) -> Collection[ProcessId]:
        """Kill the main process, and the next time everybody."""
        self.kills = getattr(self, "kills", 0) + 1
        if self.kills > 1:
            return super().kill()
        self._main.signal(9)
        return []


def test_who_appears_after_the_kill(flee: Any) -> None:
    """A process that shows up while the others die is struck, too."""
    fugitives = flee("session", "daemon")

    async def main() -> None:
        command = Command(argv=fugitives.argv, inherit_fds=[fugitives.pipe.write_fd])
        async with isolated_child(command) as child:
            await fugitives.heard()
            worker = child._worker
            worker.tree = Late(worker.main, worker.mark)

    asyncio.run(main())
    assert fugitives.alive() == []


def test_who_keeps_nothing_is_gone_with_its_cgroup(flee: Any, leaf: Any) -> None:
    """No parent, no session, no environment, no descriptor: the cgroup still knows it."""
    fugitives = flee("lost")

    async def main() -> None:
        command = Command(argv=fugitives.argv, inherit_fds=[fugitives.pipe.write_fd], leaf=leaf)
        async with isolated_child(command):
            await fugitives.heard()

    asyncio.run(main())
    assert fugitives.alive() == []


def test_who_keeps_nothing_comes_to_a_subreaper(flee: Any) -> None:
    """The same without a cgroup, in a process that adopts orphans; and it is reaped."""
    fugitives = flee("lost", "daemon", "session")
    fd = fugitives.pipe.write_fd
    argv = [sys.executable, "-c", SUBREAPER, str(fd), *fugitives.argv]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(argv, pass_fds=[fd], **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        fugitives.read()
        assert len(fugitives.alive()) == 3
        print("end it", file=process.stdin, flush=True)
        assert process.stdout.readline().split() == []  # no child left, no zombie
        assert fugitives.alive() == []


def test_a_subreapers_own_children_are_no_orphans() -> None:
    """What such a process started itself lives on: in its session, in their own, as a launcher."""
    done = subprocess.run(
        [sys.executable, "-c", PARENT_OF_OTHERS], check=True, capture_output=True, text=True
    )
    assert done.stdout == "[None, None, None]\n"


def test_who_leaves_the_cgroup_is_swept(flee: Any, leaf: Any) -> None:
    """A worker that moves itself to another cgroup, as root may, is ended none the less."""
    fugitives = flee("daemon", "session")
    homes = [path.parents[2] / "cgroup.procs" for path in leaf.entries]
    move = 'while [ "$1" != -- ]; do echo 0 >"$1"; shift; done; shift; exec "$@"'
    argv = ["sh", "-c", move, "sh", *map(str, homes), "--", *fugitives.argv]

    async def main() -> None:
        fds = [fugitives.pipe.write_fd]
        async with isolated_child(Command(argv=argv, inherit_fds=fds, leaf=leaf)) as child:
            await fugitives.heard()
            assert leaf.members() == []
            assert {one.pid for one in child.members()}.issuperset(fugitives.alive())

    asyncio.run(main())
    assert fugitives.alive() == []


@pytest.mark.parametrize("count", [1, 5])
def test_who_forks_and_ends_for_ever(flee: Any, bounds: Any, eventually: Any, count: int) -> None:
    """A process that lives for half a millisecond, and so do its heirs, does not get away.

    Nobody can list such processes, but the kernel knows whether their group has members.
    """
    fugitives = flee(*["hare"] * count)

    async def main() -> None:
        fds = [fugitives.pipe.write_fd]
        async with isolated_child(Command(argv=fugitives.argv, inherit_fds=fds, leaf=bounds)):
            await fugitives.heard()
            assert len(fugitives.groups()) == count

    asyncio.run(main())
    eventually(lambda: fugitives.groups() == [])  # who ended is reaped by whoever adopted it


def test_a_fork_bomb_under_a_limit_of_the_cgroup(flee: Any, leaf: Any, eventually: Any) -> None:
    """A bomb that filled its cgroup is gone at one blow."""
    if survey().pids is None:
        pytest.skip("no cgroup here limits the number of processes")
    leaf.limit(memory_bytes=None, pids=BOMB_PROCESSES)
    mark = uuid.uuid4().hex
    fugitives = flee("bomb")
    fds = [fugitives.pipe.write_fd]
    command = Command(argv=fugitives.argv, inherit_fds=fds, leaf=leaf, mark=mark)
    asyncio.run(_explode(command, fugitives, eventually))


def test_a_fork_bomb_under_a_limit_of_the_user(flee: Any, eventually: Any) -> None:
    """A bomb without a cgroup, in processes of another user where we are root, is gone too."""
    mark = uuid.uuid4().hex
    fugitives = flee("bomb")
    limit = BOMB_PROCESSES + _threads_of(os.getuid() or 65534)
    python, *options, script, fd, kind = fugitives.argv
    argv = [python, *options, "-c", BOMB, script, str(limit), fd, kind]
    command = Command(argv=argv, inherit_fds=[fugitives.pipe.write_fd], mark=mark)
    asyncio.run(_explode(command, fugitives, eventually))


async def _explode(command: Command, fugitives: Any, eventually: Any) -> None:
    async with isolated_child(command) as child:
        await fugitives.heard()
        await asyncio.to_thread(eventually, lambda: len(child.members()) > BOMB_PROCESSES * 0.9)
    assert child.survivors() == []
    assert command.mark
    assert marked(command.mark) == []
    assert fugitives.alive() == []


def _threads_of(user: int) -> int:
    """Return how many threads the user has: that is what RLIMIT_NPROC counts."""
    count = 0
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdigit() and folder.stat().st_uid == user:
                count += len(list((folder / "task").iterdir()))
    return count


def test_children_of_a_workers_own_children(flee: Any, bounds: Any) -> None:
    """A worker that holds isolated children itself takes their fugitives with it."""
    fugitives = flee("daemon", "session", "deaf")
    fd = fugitives.pipe.write_fd
    argv = [sys.executable, "-c", OUTER, str(fd), *fugitives.argv]

    async def main() -> None:
        async with isolated_child(Command(argv=argv, inherit_fds=[fd], leaf=bounds)):
            await fugitives.heard()

    asyncio.run(main())
    assert fugitives.alive() == []


def test_strangers_are_left_alone(flee: Any, bounds: Any, gone: Callable[[int], bool]) -> None:
    """The same program, in a tree with another mark or in none, lives on."""
    env = {**os.environ, "SUPERVISE_TREE": "another/one"}
    fugitives = flee("daemon", "session")
    other = flee("daemon", "session")
    mark = uuid.uuid4().hex
    others = subprocess.Popen(
        other.argv, pass_fds=[other.pipe.write_fd], env=env, start_new_session=True
    )
    try:
        other.read()

        async def main() -> None:
            fds = [fugitives.pipe.write_fd]
            command = Command(argv=fugitives.argv, inherit_fds=fds, leaf=bounds, mark=mark)
            async with isolated_child(command):
                await fugitives.heard()

        asyncio.run(main())
        assert fugitives.alive() == []
        assert len(other.alive()) == 2
        assert others.poll() is None
    finally:
        others.kill()
        others.wait()
