"""What tests of the zygote share: a subreaper for the time of one test, and both ways of running.

Imported by name into the test files that need it; `home` is the fixture.
"""

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from supervisor.host import processes
from supervisor.process import Command, ExitStatus, Launcher, isolated_child, orphans
from supervisor.process.zygote import Preload, Zygote
from tests.process.conftest import DEADLINE_S
from workers.protocol import ENV_TREE


class Home:
    """A folder of programs, and the ways to run them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Measured for coverage, a process has signal handlers and modules that no user's has.
        self.env = {name: text for name, text in os.environ.items() if "COVERAGE" not in name}
        self._runs = 0

    def write(self, name: str, text: str) -> None:
        """Make a file of it."""
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def command(self, *words: str, **changes: Any) -> Command:
        """Return the command that runs Python with these words here."""
        self._runs += 1
        values = {"cwd": self.path, "env": self.env, "output": self.path / f"{self._runs}.log"}
        return Command(argv=(sys.executable, *words), **(values | changes))

    async def zygote(self, *modules: str, like: Command, preload: Preload | None = None) -> Zygote:
        """Start a zygote for commands like this; its log is a file of its own."""
        self._runs += 1
        log = self.path / f"{self._runs}.zygote.log"
        command = Command(
            argv=like.argv, cwd=like.cwd, env=like.env, output=log,
            inherit_fds=like.inherit_fds, leaf=like.leaf, limits=like.limits,
        )  # fmt: skip
        return await Zygote.start(modules, command=command, preload=preload)

    async def run(self, command: Command, launcher: Launcher | None) -> tuple[ExitStatus, str]:
        """Run it to its end; how it ended, and what it printed."""
        output = Path(str(command.output))
        _forget(output)
        async with asyncio.timeout(DEADLINE_S), isolated_child(command, launcher=launcher) as child:
            status = await child.wait()
        return status, _content(output)

    async def both(
        self, modules: Sequence[str], command: Command
    ) -> tuple[tuple[ExitStatus, str], tuple[ExitStatus, str]]:
        """Run it cold, while a zygote starts, and then warm."""
        starting = asyncio.ensure_future(self.zygote(*modules, like=command))
        try:
            cold = await self.run(command, None)
            return cold, await self.run(command, await (await starting).fork())
        finally:
            await (await starting).close()


def _forget(file: Path) -> None:
    file.unlink(missing_ok=True)


def _content(file: Path) -> str:
    return file.read_text()


@pytest.fixture
def home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unleaked: None, eventually: Any
) -> Iterator[Home]:
    """Give a home, in a process that orphans come to while the test lasts."""
    monkeypatch.setattr(orphans, "_adopting", False)
    monkeypatch.setenv(ENV_TREE, "")
    monkeypatch.delenv(ENV_TREE)
    before = set(processes.children(os.getpid()))
    orphans.become_subreaper()
    yield Home(tmp_path)
    reaper = orphans.Orphans()
    monkeypatch.setattr(orphans, "PATIENCE_S", 0.1)  # nobody else waits for them any more

    def nobody() -> bool:
        reaper.reap(time.monotonic())
        return set(processes.children(os.getpid())) == before

    eventually(nobody)
    ctypes.CDLL(None).prctl(orphans.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def drive(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test's coroutine, for as long as a test may take."""

    async def bounded() -> None:
        async with asyncio.timeout(3 * DEADLINE_S):
            await main()

    asyncio.run(bounded())


def told(pid: int, name: str) -> str:
    """Return a field of /proc/PID/status."""
    lines: Mapping[str, str] = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return lines[name].strip()
