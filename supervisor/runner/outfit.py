"""What a job's workers are given besides their command: session, memory tier, scratch folder.

Owns when each is made, how the worker learns of it, and what becomes of it when the run ends.
Invariant: a run leaves no snapshot in memory that is newer than what lies on disk, or it leaves the
memory tier alone and says so.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress

from supervisor.core.causes import State
from supervisor.runner.disk import DiskThread
from supervisor.runner.opening import OpenJob
from supervisor.runner.scratch import Scratch
from supervisor.runner.session.session import NoSession, Session, open_session
from supervisor.runner.tiers import MemoryTier, sweep
from workers import protocol


class Outfit:
    """One job's. `warn` is told what a worker has to do without."""

    def __init__(self, job: OpenJob, warn: Callable[[str], None], *, keep_scratch: bool) -> None:
        self._job = job
        self._warn = warn
        self._told: set[str] = set()
        self._scratch = Scratch(job.folder.scratch, keep=keep_scratch)
        self._tier = MemoryTier.of(job)

    def begin(self) -> None:
        """Take away what jobs that are no more have left in memory."""
        with suppress(OSError):
            sweep(self._job)

    def open_session(self, number: int) -> Session | None:
        """The socket of an attempt; a worker goes on without one."""
        try:
            return open_session(self._job.folder.attempt(number).session, self._warn)
        except NoSession as error:
            self._say_once(str(error))
            return None

    def environment(self, session: Session | None) -> Mapping[str, str]:
        """What tells a worker of all that."""
        told = {} if session is None else {protocol.ENV_SESSION: str(session.path)}
        layout = self._job.settings.layout
        if layout is not None:
            told[protocol.ENV_CHECKPOINTS] = str(layout.root)
        try:
            self._scratch.make()
            told[protocol.ENV_SCRATCH] = str(self._scratch.folder)
        except OSError as error:
            self._say_once(f"there is no scratch folder: {error}")
        if self._tier is not None:
            try:
                told |= self._tier.environment()
            except OSError as error:
                self._say_once(f"there are no snapshots in memory: {error}")
        return told

    async def put_away(self, state: State, disk: DiskThread) -> None:
        """The run ends in this state: nothing of it stays in memory, nor what success makes idle.

        What the worker saved last may lie in memory alone: then it is copied to the disk first.
        """
        done = state is State.SUCCEEDED
        layout = self._job.settings.layout
        try:
            if self._tier is not None:
                if not done and layout is not None:
                    await disk.run(self._tier.promote, layout)
                await disk.run(self._tier.clean)
        except OSError as error:
            folder = "" if self._tier is None else self._tier.folder
            self._warn(f"the newest snapshot stays in memory, in {folder}: {error}")
        if done:
            try:
                await disk.run(self._scratch.purge)
            except OSError as error:
                self._warn(f"the scratch folder is not removed: {error}")

    def _say_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._warn(text)
