"""Whatever becomes of a zygote, its caller is told in time and in words, and its workers live."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from supervisor.host import processes
from supervisor.process import Command, ExitStatus, isolated_child
from supervisor.process.limits import Limits
from supervisor.process.zygote import Preload, Zygote, ZygoteFailed
from tests.process.zygotes import Home, drive, home, told  # noqa: F401 -- a fixture, by its name

WAITS = "import signal; print('here', flush=True)\nwhile True: signal.pause()"
UNFIT = {
    "gone": ("", "cannot import 'missing': ModuleNotFoundError: No module named 'missing'"),
    "fails": ("raise ValueError('no luck')", "cannot import 'fails': ValueError: no luck"),
    "leaves": ("import sys; sys.exit(3)", "cannot import 'leaves': SystemExit: 3"),
    "threads": (
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()",
        r"1 threads were started \(python\d*, python\d*\) by importing 'threads'",
    ),
    "cuda": (
        (
            "import sys, types; t = sys.modules['torch'] = types.ModuleType('torch')\n"
            "t.cuda = types.SimpleNamespace(is_initialized=lambda: True)"
        ),
        "CUDA was initialised by importing 'cuda'",
    ),
    "dies": (
        "import os; print('last words', flush=True); os._exit(5)",
        "(?s)the zygote died: exit code 5; its last words:\nlast words",
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_module_that_cannot_be_shared(name: str, home: Home) -> None:  # noqa: F811 -- the fixture
    """A failed import, a thread, CUDA or a death is told in words, and nothing is left."""
    text, reason = UNFIT[name]
    home.write(f"{name}.py", text)

    async def main() -> None:
        module = "missing" if name == "gone" else name
        with pytest.raises(ZygoteFailed, match=reason):
            await home.zygote("json", module, like=home.command("-m", "x"))

    drive(main)


def test_what_a_preload_builds_is_there(home: Home) -> None:  # noqa: F811 -- the fixture
    """A class builds once what all workers find; one that fails, or starts threads, says so."""
    home.write(
        "heavy.py",
        "import threading\nbuilt = []\n"
        "class Model:\n"
        "    @classmethod\n    def preload(cls, **args): built.append(args['size'] // args['by'])\n"
        "class Threaded:\n"
        "    preload = lambda: threading.Thread(target=threading.Event().wait, daemon=1).start()\n"
        "class Plain: pass\n",
    )
    command = home.command("-c", "import heavy; print(heavy.built)")

    async def main() -> None:
        zygote = await home.zygote(
            "json", like=command, preload=Preload("heavy:Model", {"size": 6, "by": 2})
        )
        assert await home.run(command, await zygote.fork()) == (ExitStatus(0, None), "[3]\n")
        await zygote.close()
        bad = Preload("heavy:Model", {"size": 6, "by": 0})
        with pytest.raises(ZygoteFailed, match=r"heavy:Model\.preload failed: ZeroDivisionError"):
            await home.zygote(like=command, preload=bad)
        with pytest.raises(ZygoteFailed, match=r"threads were started .* by heavy:Threaded\.pre"):
            await home.zygote(like=command, preload=Preload("heavy:Threaded"))
        zygote = await home.zygote(like=command, preload=Preload("heavy:Plain"))
        assert await home.run(command, await zygote.fork()) == (ExitStatus(0, None), "[]\n")
        await zygote.close()

    drive(main)


def test_an_import_without_end(home: Home) -> None:  # noqa: F811 -- the fixture
    """A zygote that does not become ready in time is ended."""
    home.write("endless.py", "import time\nwhile True: time.sleep(100)")

    async def main() -> None:
        command = home.command("-m", "x")
        with pytest.raises(ZygoteFailed, match=r"has not imported endless within 0\.5 s"):
            await Zygote.start(["endless"], command=command, limit_s=0.5)

    drive(main)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_zygote_that_is_struck(number: int, home: Home, eventually: Any) -> None:  # noqa: F811 -- the fixture
    """Dead or frozen, it fails the next fork in time; its launcher and its worker live on."""
    command = home.command("-c", WAITS)

    async def main() -> None:
        zygote = await home.zygote(like=command)
        zygote._fork_limit_s = 1.0
        waiting = await zygote.fork()
        async with isolated_child(command, launcher=await zygote.fork()) as child:
            os.kill(zygote.pid, number)
            with pytest.raises(ZygoteFailed, match=r"the zygote (died|is gone|did not fork)"):
                await zygote.fork()
            assert not zygote.alive
            with pytest.raises(ZygoteFailed, match="the zygote is gone"):
                await zygote.fork()
            await zygote.close()
            await zygote.close()
            assert child.status is None
            assert processes.stat(child.pid).ppid == os.getpid()
            eventually(lambda: Path(str(command.output)).read_text() == "here\n")
        later = home.command("-c", "print('later')")
        assert await home.run(later, waiting) == (ExitStatus(0, None), "later\n")

    drive(main)


def test_a_zygote_that_is_killed_again_and_again(home: Home) -> None:  # noqa: F811 -- the fixture
    """Killed at any moment of a fork: a launcher that works or a ZygoteFailed, and no leak."""
    command = home.command("-c", "print('ran')")
    forked = []

    async def main() -> None:
        for moment in range(12):
            zygote = await home.zygote(like=command)
            loop = asyncio.get_running_loop()
            loop.call_later(moment / 2000, os.kill, zygote.pid, signal.SIGKILL)
            try:
                launcher = await zygote.fork()
            except ZygoteFailed:
                forked.append(False)
            else:
                forked.append(True)
                assert await home.run(command, launcher) == (ExitStatus(0, None), "ran\n")
            await zygote.close()

    drive(main)


def test_a_fork_that_nobody_waits_for(home: Home) -> None:  # noqa: F811 -- the fixture
    """A cancelled fork leaves nobody behind, and the next one is not confused by its answer."""
    command = home.command("-c", "print('ran')")

    async def main() -> None:
        zygote = await home.zygote(like=command)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await zygote.fork()
        assert await home.run(command, await zygote.fork()) == (ExitStatus(0, None), "ran\n")
        await zygote.close()

    drive(main)


def test_the_channel_has_its_number(home: Home, pipe: Any) -> None:  # noqa: F811 -- the fixture
    """The worker finds the channel and what all inherit under the numbers they have here."""
    read_fd, write_fd = os.pipe()
    text = "import os, sys\nfor fd in map(int, sys.argv[1:]): os.write(fd, b'%d ' % fd)"
    words = ("-c", text, str(pipe.write_fd), str(write_fd))
    like = home.command(*words, inherit_fds=(pipe.write_fd,))

    async def main() -> None:
        zygote = await home.zygote(like=like)
        launcher = await zygote.fork(write_fd)
        assert launcher.inherit_fds == (pipe.write_fd, write_fd)
        command = replace(like, inherit_fds=launcher.inherit_fds)
        assert (await home.run(command, launcher))[0].ok
        await zygote.close()

    drive(main)
    assert pipe.read() == f"{pipe.write_fd} "
    os.close(write_fd)
    assert os.read(read_fd, 100) == b"%d " % write_fd
    os.close(read_fd)


def test_a_channel_whose_number_is_taken(home: Home) -> None:  # noqa: F811 -- the fixture
    """A module that holds a descriptor of that number is named as the obstacle; others work."""
    read_fd, write_fd = os.pipe()
    home.write("holds.py", f"import os; os.dup2(0, {write_fd})")
    command = home.command("-c", "")

    async def main() -> None:
        zygote = await home.zygote("holds", like=command)
        with pytest.raises(ZygoteFailed, match=rf"holds descriptor {write_fd}, the channel's"):
            await zygote.fork(write_fd)
        assert (await home.run(command, await zygote.fork()))[0].ok
        await zygote.close()

    drive(main)
    os.close(read_fd)
    os.close(write_fd)


def test_bounds_are_those_of_a_cold_worker(home: Home) -> None:  # noqa: F811 -- the fixture
    """Limits, processors and the signal at the runner's death hold in a warm worker, too."""
    limits = Limits(open_files=64, core_dumps=False, cpus=(0,), oom_score_adj=500)
    text = (
        "import os, resource, ctypes; n = ctypes.c_int()\n"
        "ctypes.CDLL(None).prctl(2, ctypes.byref(n))\n"
        "print(n.value, resource.getrlimit(7), resource.getrlimit(4), os.sched_getaffinity(0),\n"
        "      open('/proc/self/oom_score_adj').read())"
    )

    async def main() -> None:
        cold, warm = await home.both([], home.command("-c", text, limits=limits))
        assert warm == cold
        assert warm[1].startswith("9 (64, 64) (0, 0) {0} 500")

    drive(main)


@pytest.mark.parametrize(
    "words", [["-O", "-c", "print(1)"], ["missing.py"], ["-c"], ["folder"]], ids=" ".join
)
def test_what_cannot_be_run_here_is_executed(words: list[str], home: Home) -> None:  # noqa: F811 -- the fixture
    """Other flags, no script or a folder: a warm launcher leaves that to a fresh interpreter."""
    home.write("folder/__main__.py", "print('of a folder')")

    async def main() -> None:
        command = home.command(*words)
        zygote = await home.zygote(like=home.command("-c", ""))
        for changed in (command, replace(command, env={**home.env, "PYTHONOPTIMIZE": "2"})):
            cold = await home.run(changed, None)
            assert await home.run(changed, await zygote.fork()) == cold
        other = Command(argv=["/bin/echo", "hello"], env=home.env, output=command.output)
        assert await home.run(other, await zygote.fork()) == (ExitStatus(0, None), "hello\n")
        await zygote.close()

    drive(main)


def test_a_command_that_can_never_be_warm(home: Home) -> None:  # noqa: F811 -- the fixture
    """No zygote is started for it, and the reason is told."""

    async def main() -> None:
        with pytest.raises(ZygoteFailed, match="run warm: it names no script"):
            await Zygote.start([], command=Command(argv=[sys.executable]))

    drive(main)


def test_only_a_subreaper_has_a_zygote() -> None:
    """Elsewhere the launchers would become children of init: that is a mistake of the program."""

    async def main() -> None:
        with pytest.raises(RuntimeError, match="call become_subreaper"):
            await Zygote.start([], command=Command(argv=[sys.executable, "-c", ""]))

    drive(main)


PARENT = """
import asyncio, os, signal, sys
from supervisor.process import Command, isolated_child, orphans
from supervisor.process.zygote import Zygote
orphans.become_subreaper()

async def main():
    command = Command(argv=[sys.executable, "-c", "import signal\\nwhile True: signal.pause()"])
    zygote = await Zygote.start([], command=command)
    waiting = await zygote.fork()
    async with isolated_child(command, launcher=await zygote.fork()) as child:
        print(zygote.pid, waiting.pid, child.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def test_all_die_with_the_runner(home: Home, gone: Callable[[int], bool]) -> None:  # noqa: F811 -- the fixture
    """A runner killed with SIGKILL takes zygote, waiting launcher and warm worker with it."""

    async def main() -> None:
        env = {**home.env, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = home.command("-c", PARENT, env=env)
        status, output = await home.run(command, None)
        assert status == ExitStatus(None, signal.SIGKILL)
        pids = [int(word) for word in output.split()]
        assert len(pids) == 3
        assert all(gone(pid) for pid in pids)

    drive(main)


def _shown(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")


def test_the_kernel_shows_whose_it_is(home: Home, eventually: Any) -> None:  # noqa: F811 -- the fixture
    """A worker's command line is its own, its session too, and the zygote is not its parent."""
    command = home.command("-c", WAITS, "a word")

    async def main() -> None:
        zygote = await home.zygote(like=command)
        async with isolated_child(command, launcher=await zygote.fork()) as child:
            output = Path(str(command.output))
            eventually(lambda: output.exists() and output.read_text() == "here\n")
            assert _shown(child.pid) == list(command.argv)
            assert told(child.pid, "PPid") == str(os.getpid())
            assert os.getsid(child.pid) == child.pid
            started = time.monotonic()
            assert await child.stop(5) == ExitStatus(None, signal.SIGTERM)
            assert time.monotonic() - started < 5
        await zygote.close()

    drive(main)
