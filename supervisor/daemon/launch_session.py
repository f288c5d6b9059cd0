"""Runners in sessions of their own, where there is no systemd to give them to.

Owns starting them; signals and reaps none. They are children of this process, and whoever watches
one by a pidfd reaps it. A runner has its own session, its own user, none of the daemon's
descriptors, and no parent-death signal: whatever becomes of the daemon, it goes on.
"""

import asyncio
import os
import subprocess
from collections.abc import Sequence

from supervisor.daemon.accounts import Account, Lookup, account, as_user, environment
from supervisor.daemon.contracts import Launch, LaunchFailed
from supervisor.daemon.launch_command import PYTHON, runner_command, somebody_else

UMASK = 0o077
LET_GO = 0  # says to subprocess that the exit status is somebody else's to collect


class SessionLauncher:
    """Starts each runner as a child in a new session."""

    name = "session"

    def __init__(self, lookup: Lookup = account, python: Sequence[str] = PYTHON) -> None:
        self._lookup = lookup
        self._python = python

    async def launch(self, launch: Launch) -> int:
        """Start a runner; its pid. Raises LaunchFailed."""
        who = None
        if launch.uid != os.geteuid():  # the user database may be behind a network
            who = await asyncio.to_thread(somebody_else, launch.uid, self._lookup, self._python[0])
        # Not in a thread: this takes a few milliseconds, and is done or not when it is cancelled.
        try:
            child = _started(runner_command(launch, self._python), who)
        except (OSError, subprocess.SubprocessError) as error:
            raise LaunchFailed(f"the runner of {launch.job_id} was not started: {error}") from error
        child.returncode = LET_GO
        return child.pid

    def close(self) -> None:
        """Nothing is held; no runner ends."""


def _started(command: Sequence[str], who: Account | None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        close_fds=True,
        start_new_session=True,
        cwd="/",
        umask=UMASK,
        env=environment(who, os.environ),
        **as_user(who),
    )
