import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from supervisor.process import Command, ExitStatus, isolated_child

pytestmark = pytest.mark.usefixtures("unleaked")

# Saves on SIGTERM, which takes a moment, and says so. argv: the pipe, the file it saves to.
SAVES = """
import os, signal, sys
def save(*_):
    os.write(int(sys.argv[1]), b"saving\\n")
    with open(sys.argv[2], "w") as file:
        file.write("x" * 100_000)
    os._exit(7)
signal.signal(signal.SIGTERM, save)
os.write(int(sys.argv[1]), b"ready\\n")
while True:
    signal.pause()
"""

# Writes each signal it gets; leaves on the last.
LISTENS = """
import os, signal, sys
fd, last = int(sys.argv[1]), int(sys.argv[2])
def hear(number, _):
    os.write(fd, b"%d\\n" % number)
    if number == last:
        os._exit(0)
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, hear)
os.write(fd, b"ready\\n")
while True:
    signal.pause()
"""


def python(code: str, *words: object) -> list[str]:
    """Return the command that runs a piece of Python."""
    return [sys.executable, "-ISc", code, *map(str, words)]


def test_stop_gives_time_to_save(tmp_path: Path, pipe: Any) -> None:
    """A child that saves on SIGTERM has saved when stop returns, and its own exit code is kept."""
    saved = tmp_path / "saved"

    async def main() -> ExitStatus:
        command = Command(argv=python(SAVES, pipe.write_fd, saved), inherit_fds=[pipe.write_fd])
        async with isolated_child(command) as child:
            await pipe.heard()
            return await child.stop()

    assert asyncio.run(main()) == ExitStatus(7, None)
    assert saved.stat().st_size == 100_000


def test_a_shell_between_us_and_the_program(tmp_path: Path, pipe: Any) -> None:
    """When a shell dies of SIGTERM, the program under it gets the signal and the time to save."""
    saved = tmp_path / "saved"
    words = python(SAVES, pipe.write_fd, saved)

    async def main() -> None:
        # The `:` keeps the shell from replacing itself by the program.
        argv = ["sh", "-c", '"$@"; :', "sh", *words]
        async with isolated_child(Command(argv=argv, inherit_fds=[pipe.write_fd])) as child:
            await pipe.heard()
            assert await child.stop() == ExitStatus(None, signal.SIGTERM)

    asyncio.run(main())
    assert saved.stat().st_size == 100_000


# A data loader that inherits a blocked SIGTERM: one that reaches it stays pending, to be seen.
LOADER = """
import os, signal, sys
os.write(int(sys.argv[1]), b"ready")
signal.sigwait([signal.SIGUSR1])
"""
HAS_LOADER = f"""
import os, pathlib, signal, subprocess, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
fd = sys.argv[1]
loader = subprocess.Popen([sys.executable, "-ISc", {LOADER!r}, fd], pass_fds=[int(fd)])
signal.sigwait([signal.SIGTERM])
status = pathlib.Path(f"/proc/{{loader.pid}}/status").read_text()
fields = dict(line.split(":", 1) for line in status.splitlines())
loader.kill()
os._exit(6 if int(fields["ShdPnd"], 16) else 5)
"""


def test_only_the_main_process_is_asked(pipe: Any) -> None:
    """While the main process lives, its own children (data loaders) get no stop signal."""

    async def main() -> ExitStatus:
        command = Command(argv=python(HAS_LOADER, pipe.write_fd), inherit_fds=[pipe.write_fd])
        async with isolated_child(command) as child:
            assert await pipe.heard() == "ready"
            return await child.stop()

    assert asyncio.run(main()) == ExitStatus(5, None)


def test_stop_signals_come_in_order_with_shared_grace(pipe: Any) -> None:
    """Each stop signal is tried in turn; the child that hears the second one ends by it."""
    argv = python(LISTENS, pipe.write_fd, int(signal.SIGTERM))
    signals = (signal.SIGUSR1, signal.SIGTERM)

    async def main() -> ExitStatus:
        command = Command(argv=argv, inherit_fds=[pipe.write_fd], stop_signals=signals, grace_s=1)
        async with isolated_child(command) as child:
            assert await pipe.heard() == "ready\n"
            return await child.stop(grace_s=0.2)

    assert asyncio.run(main()) == ExitStatus(0, None)
    assert pipe.read() == f"{int(signal.SIGUSR1)}\n{int(signal.SIGTERM)}\n"


def test_a_stopped_process_hears_the_stop_signal(tmp_path: Path, pipe: Any) -> None:
    """A child under SIGSTOP is continued, so that it can save like any other."""
    saved = tmp_path / "saved"

    async def main() -> ExitStatus:
        command = Command(argv=python(SAVES, pipe.write_fd, saved), inherit_fds=[pipe.write_fd])
        async with isolated_child(command) as child:
            await pipe.heard()
            child.signal(signal.SIGSTOP)
            return await child.stop()

    assert asyncio.run(main()) == ExitStatus(7, None)


def test_kill_during_a_stop_ends_it(pipe: Any) -> None:
    """The second Ctrl-C: a kill while another task waits out the grace ends both at once."""
    deaf = "trap '' TERM; echo ready >/dev/fd/$0; while :; do sleep 1000; done"

    async def main() -> None:
        argv = ["sh", "-c", deaf, str(pipe.write_fd)]
        async with isolated_child(Command(argv=argv, inherit_fds=[pipe.write_fd])) as child:
            await pipe.heard()
            stopping = asyncio.create_task(child.stop(grace_s=1000))
            await asyncio.sleep(0)
            killed = ExitStatus(None, signal.SIGKILL)
            assert await child.kill() == killed
            assert await stopping == killed

    asyncio.run(main())


def test_stop_of_a_child_that_has_ended() -> None:
    """Stopping what has ended returns its status, at once and as often as asked."""

    async def main() -> list[ExitStatus]:
        async with isolated_child(Command(argv=["sh", "-c", "exit 4"])) as child:
            await child.wait()
            return [await child.stop(), await child.stop(), await child.kill()]

    assert asyncio.run(main()) == [ExitStatus(4, None)] * 3


@pytest.mark.parametrize("grace_s", [-1.0, float("nan"), float("inf")])
def test_impossible_grace(grace_s: float) -> None:
    """A grace that is no finite duration is refused before anything is signalled."""

    async def main() -> None:
        async with isolated_child(Command(argv=["sleep", "1000"])) as child:
            with pytest.raises(ValueError, match="grace_s is a finite number"):
                await child.stop(grace_s)
            assert child.status is None

    asyncio.run(main())
