"""Why this daemon is asked to end: for a moment, or together with its jobs.

Owns the questions to systemd about that. A restart leaves the runners alone; a stop, and the end of
the host, stop the jobs so that they can be resumed. Without systemd the jobs go on.
"""

import asyncio
import os
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

ANSWER_S = 2.0
ASK_AGAIN_S, ASK_TIMES = 1.0, 10
SYSTEMD = Path("/run/systemd/system")


class Leaving(StrEnum):
    """What becomes of the jobs."""

    GO_ON = "go_on"
    STOP = "stop"


class Hosting:
    """systemd, where it started this daemon; else nobody. `unit` is the daemon's own."""

    def __init__(self, *, user: bool, unit: str = "supervise.service") -> None:
        self._call = ("systemctl", "--user") if user else ("systemctl",)
        self._unit = unit
        self._is_booted = SYSTEMD.exists()
        self.is_unit = "INVOCATION_ID" in os.environ and self._is_booted

    async def leaving(self) -> Leaving:
        """What SIGTERM means to the jobs."""
        if not self.is_unit:
            return Leaving.GO_ON
        if (await self._ask("is-system-running")).strip() == "stopping":
            return Leaving.STOP
        # `12 supervise.service restart running`: what systemd is about to do with the unit.
        jobs = await self._ask("list-jobs", "--no-legend", "--plain", self._unit)
        words = next((line.split() for line in jobs.splitlines() if self._unit in line), [])
        return Leaving.STOP if "stop" in words else Leaving.GO_ON

    async def going_down(self) -> bool:
        """Whether the host, or the user's session manager, is shutting down.

        A service that gets no answer takes that for a yes: a host that goes down may be too busy to
        say so, and its jobs are to go on after the reboot.
        """
        if not self._is_booted:
            return False
        for _ in range(ASK_TIMES if self.is_unit else 1):
            said = (await self._ask("is-system-running")).strip()
            if said:
                return said == "stopping"
            await asyncio.sleep(ASK_AGAIN_S)
        return self.is_unit

    async def _ask(self, *words: str) -> str:
        try:
            child = await asyncio.create_subprocess_exec(
                *self._call,
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
        except OSError:
            return ""
        try:
            async with asyncio.timeout(ANSWER_S):
                out, _ = await child.communicate()
        except TimeoutError:
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()
            return ""
        return out.decode(errors="replace")
