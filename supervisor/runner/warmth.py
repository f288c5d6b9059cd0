"""Launchers for the next worker: warm ones, forked from a zygote, where the job may have them.

Owns the job's zygote. A job without one, and one whose zygote fails, gets cold launchers: slower,
never wrong. Invariant: why a job starts cold is said once.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from supervisor.process import Command, Launcher
from supervisor.process.zygote import Preload, Zygote, ZygoteFailed
from supervisor.runner.environment import interpreter, worker_environment
from supervisor.runner.gpus import Gpus
from supervisor.runner.isolation import Isolation
from supervisor.runner.opening import OpenJob
from supervisor.runner.warm_modules import modules_of
from supervisor.spec.launch import first_launch

MOST_FAILURES = 3  # of a zygote that had worked, before the job goes on without


class Warmth:
    """Where the launchers of a job come from."""

    def __init__(
        self, job: OpenJob, gpus: Gpus, isolation: Isolation, warn: Callable[[str], None]
    ) -> None:
        self._job = job
        self._gpus = gpus
        self._isolation = isolation
        self._warn = warn
        self._turn = asyncio.Lock()
        self._zygote: Zygote | None = None
        self._ended: list[Zygote] = []
        self._wanted = bool(job.spec.warm)
        self._failures = 0
        self._told: set[str] = set()
        self._hurry = asyncio.Event()

    @property
    def warm(self) -> bool:
        """Whether the next launcher costs next to nothing."""
        return self._zygote is not None and self._zygote.alive

    async def launcher(self, fds: tuple[int, ...], channel: int | None = None) -> Launcher:
        """A launcher whose worker inherits these descriptors, and the channel. Raises SpawnFailed.

        The caller may close the channel when the worker runs.
        """
        if self._wanted and (self.warm or not self._hurry.is_set()):
            try:
                async with self._turn:
                    zygote = await self._started(fds)
                return await zygote.fork(channel)
            except ZygoteFailed as error:
                self._failed(str(error))
        return Launcher.start((*fds, *(() if channel is None else (channel,))))

    def hurry(self) -> None:
        """The job is to stop: nobody waits for imports any more."""
        self._hurry.set()

    def release(self) -> None:
        """End the zygote: others are to have what it inherited."""
        if self._zygote is not None:
            self._zygote.kill()
            self._ended.append(self._zygote)
            self._zygote = None

    async def close(self) -> None:
        """End the zygote, and wait until nothing is left of it."""
        self.release()
        while self._ended:
            await self._ended.pop().close()

    async def _started(self, fds: tuple[int, ...]) -> Zygote:
        """The zygote, started if there is none that can be used. Raises ZygoteFailed."""
        known = self._zygote
        if known is not None and known.alive and known.command.inherit_fds == fds:
            return known
        self.release()
        self._zygote = await self._unless_in_a_hurry(self._start(fds))
        return self._zygote

    async def _start(self, fds: tuple[int, ...]) -> Zygote:
        modules, preload = self._to_import()
        limit_s = self._job.spec.timeouts.startup_s
        return await Zygote.start(
            modules, command=self._command(fds), preload=preload, limit_s=limit_s
        )

    async def _unless_in_a_hurry(self, start: Coroutine[Any, Any, Zygote]) -> Zygote:
        """What comes of it. Raises ZygoteFailed, also when the job is to stop meanwhile."""
        starting = asyncio.ensure_future(start)
        hurry = asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait({starting, hurry}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                raise ZygoteFailed("the job is to stop, and its imports are not over yet")
            return starting.result()
        finally:
            hurry.cancel()
            if not starting.done():
                starting.cancel()
                await asyncio.wait({starting})

    def _failed(self, reason: str) -> None:
        """Go on cold: for good where it never worked, for now where it did."""
        worked = self._zygote is not None
        self._failures += 1
        if not worked or self._failures >= MOST_FAILURES:
            self._wanted = False
        self.release()
        if reason not in self._told:
            self._told.add(reason)
            self._warn(f"workers start cold, which takes longer: {reason}")

    def _to_import(self) -> tuple[tuple[str, ...], Preload | None]:
        """The modules to import ahead, and of a batch job what to build."""
        spec, batch = self._job.spec, self._job.settings.batch
        named = spec.warm if isinstance(spec.warm, tuple) else ()
        if batch is not None:
            return named, Preload(batch.plan.entry, dict(batch.plan.args))
        return named or modules_of(first_launch(spec).argv, self._job.settings.cwd), None

    def _command(self, fds: tuple[int, ...]) -> Command:
        """What the zygote has in common with the workers that come from it."""
        batch = self._job.settings.batch
        # A batch worker is run by its file, but finds modules as `python -m` does.
        argv = (
            first_launch(self._job.spec).argv
            if batch is None
            else (interpreter(self._job), "-m", "workers")
        )
        self._job.folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Command(
            argv=argv,
            cwd=self._job.settings.cwd,
            env=worker_environment(self._job, 0) | self._gpus.environment(),
            output=self._job.folder.zygote_log,
            inherit_fds=fds,
            limits=self._isolation.limits(),
        )
