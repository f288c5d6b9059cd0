"""A warm worker's tree is its own: nobody of it is missed, and nobody of another's is taken."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from supervisor.process import Child, ExitStatus, isolated_child, marks
from supervisor.process.zygote import Zygote
from tests.process.conftest import Pipe
from tests.process.zygotes import Home, drive, home  # noqa: F401 -- a fixture, by its name
from workers.protocol import ENV_TREE

ROOT = Path(__file__).parents[2]

# Forks twice, with a session between; the last one stays as it is, or executes another program.
FLEES = """
import os, signal, sys
fd = int(sys.argv[1])
for kind in ("stays", "executes"):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.setsid()
        if kind == "executes":
            os.execvp("sh", ["sh", "-c", "echo $$ >/dev/fd/%d; sleep 1000" % fd])
        os.write(fd, b"%d\\n" % os.getpid())
        while True: signal.pause()
    os.wait()
while True: signal.pause()
"""


async def _fled(pipe: Pipe) -> set[int]:
    text = ""
    while text.count("\n") < 2:
        text += await pipe.heard()
    return set(map(int, text.split()))


def _pids(child: Child) -> set[int]:
    return {one.pid for one in child.members()}


def test_two_workers_of_one_zygote(home: Home, gone: Callable[[int], bool]) -> None:  # noqa: F811 -- the fixture
    """A sweep finds whoever fled from its worker, by fork alone or by exec, and only those."""

    async def main() -> None:
        pipes = Pipe(), Pipe()
        fds = tuple(pipe.write_fd for pipe in pipes)
        commands = [home.command("-c", FLEES, str(fd), inherit_fds=fds) for fd in fds]
        zygote = await home.zygote(like=commands[0])
        first = isolated_child(commands[0], launcher=await zygote.fork())
        second = isolated_child(commands[1], launcher=await zygote.fork())
        async with second as other:
            strangers = await _fled(pipes[1])
            async with first as child:
                fugitives = await _fled(pipes[0])
                assert fugitives < _pids(child)
                assert strangers < _pids(other)
                assert not _pids(child) & _pids(other)
                assert zygote.pid not in _pids(child) | _pids(other)
            assert all(gone(pid) for pid in fugitives)
            assert strangers < _pids(other)
            await zygote.close()  # by a sweep, too: its workers are none of its own
            assert strangers < _pids(other)
        assert all(gone(pid) for pid in strangers)
        for pipe in pipes:
            pipe.close()

    drive(main)


def test_a_waiting_launcher_has_its_own_mark(home: Home) -> None:  # noqa: F811 -- the fixture
    """From its first moment in our care it bears its own mark, then that of its command."""
    command = home.command("-c", "import os; os.read(0, 1); print(os.environ['SUPERVISE_TREE'])")

    async def main() -> None:
        zygote = await home.zygote(like=command)
        launcher = await zygote.fork()
        assert launcher._worker is not None
        own = marks.chain_with(launcher._worker.mark)
        assert marks.chain_of(launcher.pid) == own
        assert marks.chain_of(zygote.pid) != own
        named = replace(command, mark="a-longer-name-than-usual-0123456789")
        status, output = await home.run(named, launcher)
        assert (status, output) == (ExitStatus(0, None), marks.chain_with(str(named.mark)) + "\n")
        await zygote.close()

    drive(main)


def test_the_mark_of_a_command_shows(home: Home, eventually: Any) -> None:  # noqa: F811 -- the fixture
    """The kernel shows the mark that the command names; one without room is executed with it."""
    for mark in ("short", "x" * 40, "y" * 500):
        command = replace(home.command("-c", "import signal; signal.pause()"), mark=mark)

        async def main(command: Any = command) -> None:
            zygote = await home.zygote(like=command)
            async with isolated_child(command, launcher=await zygote.fork()) as child:
                chain = marks.chain_with(command.mark)
                eventually(lambda: marks.chain_of(child.pid) == chain)
            await zygote.close()

        drive(main)


def test_a_warm_launcher_guards(home: Home, gone: Callable[[int], bool]) -> None:  # noqa: F811 -- the fixture
    """While it waits, it ends another worker's tree, fugitives too, when the runner is killed."""
    program = f"""
import asyncio, os, signal, sys
from supervisor.process import Command, isolated_child, orphans
from supervisor.process.zygote import Zygote
orphans.become_subreaper()
FLEES = {FLEES!r}

async def main():
    read, write = os.pipe()
    command = Command(argv=[sys.executable, "-c", FLEES, str(write)], inherit_fds=[write])
    zygote = await Zygote.start([], command=command)
    ahead = await zygote.fork()
    async with isolated_child(command, launcher=await zygote.fork()) as child:
        assert child.guard_by(ahead)
        text = b""
        while text.count(b"\\n") < 2:
            text += os.read(read, 100)
        print(text.decode(), ahead.pid, child.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""

    async def main() -> None:
        env = {**home.env, "PYTHONPATH": str(ROOT)}
        command = home.command("-c", program, env=env)
        async with isolated_child(command) as child:
            status = await child.wait()
            output = await asyncio.to_thread((home.path / "1.log").read_text)
            assert status.signal == 9, output
            pids = [int(word) for word in output.split()]
            assert len(pids) == 4
            # Asked before this block ends, which would sweep what is left.
            for pid in pids:
                assert await asyncio.to_thread(gone, pid)

    drive(main)


def test_the_leaf_of_the_command_is_entered(home: Home, leaf: Any) -> None:  # noqa: F811 -- the fixture
    """A warm worker moves to its own cgroup and is ended with it; the zygote stays outside."""
    command = home.command("-c", "import signal; signal.pause()", leaf=leaf)

    async def main() -> None:
        zygote = await Zygote.start([], command=replace(command, leaf=None))
        async with isolated_child(command, launcher=await zygote.fork()) as child:
            assert [one.pid for one in leaf.members()] == [child.pid]
        assert leaf.members() == []
        assert zygote.alive
        await zygote.close()

    drive(main)


@pytest.mark.parametrize("value", [b"a", b"", b"x" * 64])
def test_the_mark_in_place(value: bytes, home: Home) -> None:  # noqa: F811 -- the fixture
    """A variable is overwritten in place, again and again, and its neighbours stay as they are."""
    program = f"""
import os, sys
from workers.warm import rewrite_mark
name = {ENV_TREE.encode()!r}
before = open("/proc/self/environ", "rb").read()
room = 64
for new in ({value!r}, b"y" * room, {value!r}):
    assert rewrite_mark(name, new)
    after = open("/proc/self/environ", "rb").read()
    assert after == before.replace(b"o" * room, new.ljust(room, b"\\0"))
assert not rewrite_mark(name, b"z" * (room + 1))
assert not rewrite_mark(b"NOT_THERE", b"")
assert open("/proc/self/environ", "rb").read() == after
"""

    async def main() -> None:
        for env in ({ENV_TREE: "o" * 64}, {"A": "1", ENV_TREE: "o" * 64, "B": "2"}):
            argv = (*home.command("-c", program).argv[:1], "-c", program)
            process = await asyncio.create_subprocess_exec(*argv, env=env, cwd=str(ROOT))
            assert await process.wait() == 0

    drive(main)
