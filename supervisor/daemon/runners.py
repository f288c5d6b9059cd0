"""The runners that live, whoever started them: this daemon, or the one before it.

Owns the watch over their processes. Starts and signals nobody. Invariant: a runner is one process
of one boot, held by a pidfd; its pid alone is never asked for anything.
"""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Runner:
    """A living runner of a job."""

    job_id: str
    pid: int
    since: float
    pidfd: int


class Runners:
    """Tells `ended(job_id, lived_s)` once for each runner that is gone."""

    def __init__(self, ended: Callable[[str, float], None]) -> None:
        self._ended = ended
        self._live: dict[str, Runner] = {}

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._live

    def __len__(self) -> int:
        return len(self._live)

    def pid(self, job_id: str) -> int | None:
        """The process of a job's runner."""
        runner = self._live.get(job_id)
        return None if runner is None else runner.pid

    def watch(self, job_id: str, pid: int, lived_s: float = 0.0) -> None:
        """Watch a process until it ends; one that is gone already is told as such.

        `lived_s`: how long it is known to have lived before.
        """
        loop = asyncio.get_running_loop()
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:  # it ended, and somebody else reaped it
            loop.call_soon(self._ended, job_id, lived_s)
            return
        self._live[job_id] = Runner(job_id, pid, loop.time() - lived_s, pidfd)
        loop.add_reader(pidfd, self._gone, job_id)

    def close(self) -> None:
        """Look away; no runner ends."""
        loop = asyncio.get_running_loop()
        for runner in self._live.values():
            loop.remove_reader(runner.pidfd)
            os.close(runner.pidfd)
        self._live.clear()

    def _gone(self, job_id: str) -> None:
        loop = asyncio.get_running_loop()
        runner = self._live.pop(job_id)
        loop.remove_reader(runner.pidfd)
        with suppress(ChildProcessError):  # only a runner that we started is ours to reap
            os.waitid(os.P_PIDFD, runner.pidfd, os.WEXITED | os.WNOHANG)
        os.close(runner.pidfd)
        self._ended(job_id, loop.time() - runner.since)
