"""Launchers for the next worker: warm ones, forked from a zygote, where the job may have them.

Owns the job's zygote. A job without one, and one whose zygote fails, gets cold launchers: slower,
never wrong. Invariant: why a job starts cold is said once.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any

from supervisor.process import ChildUnkillable, Command, Launcher
from supervisor.process.zygote import Preload, Zygote, ZygoteFailed
from supervisor.runner.environment import worker_environment
from supervisor.runner.gpus import Gpus
from supervisor.runner.isolation import Isolation
from supervisor.runner.opening import OpenJob
from supervisor.runner.warm_modules import modules_of
from supervisor.spec.launch import first_launch
from supervisor.spec.paths import interpreter
from workers import protocol

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
        zygote = await self._usable(fds)
        if zygote is not None:
            try:
                return await zygote.fork(channel)
            except ZygoteFailed as error:
                self._failed(zygote, str(error))
        return Launcher.start((*fds, *(() if channel is None else (channel,))))

    def hurry(self) -> None:
        """The job is to stop: nobody waits for imports any more."""
        self._hurry.set()

    def take_time(self) -> None:
        """Another attempt begins: its imports are waited for again."""
        self._hurry.clear()

    def release(self) -> None:
        """End the zygote: others are to have what it inherited."""
        if self._zygote is not None:
            self._drop(self._zygote)

    async def close(self) -> None:
        """End the zygote, and wait until nothing is left of it."""
        self.release()
        while self._ended:
            try:
                await self._ended.pop().close()
            except ChildUnkillable as error:
                self._warn(f"what imported the modules does not end: {error}")

    async def _usable(self, fds: tuple[int, ...]) -> Zygote | None:
        """The zygote, started if there is none that can be used; None where workers start cold."""
        async with self._turn:  # whoever waited here may find that another has failed at it
            known = self._zygote
            if known is not None and known.alive and known.command.inherit_fds == fds:
                return known
            if not self._wanted or self._hurry.is_set():
                return None
            await self.close()  # also what the last one's modules had started
            try:
                self._zygote = await self._unless_in_a_hurry(self._start(fds))
            except ZygoteFailed as error:
                self._wanted = self._hurry.is_set()  # it never worked, unless it had no time to
                self._say_once(str(error))
            return self._zygote

    async def _start(self, fds: tuple[int, ...]) -> Zygote:
        modules, preload = self._to_import()
        limit_s = self._job.spec.timeouts.startup_s
        try:
            command = self._command(fds)
        except OSError as error:
            raise ZygoteFailed(f"the job's folder cannot be written: {error}") from error
        return await Zygote.start(modules, command=command, preload=preload, limit_s=limit_s)

    async def _unless_in_a_hurry(self, start: Coroutine[Any, Any, Zygote]) -> Zygote:
        """What comes of it. Raises ZygoteFailed, also when the job is to stop meanwhile."""
        starting = asyncio.ensure_future(start)
        hurry = asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait({starting, hurry}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                raise ZygoteFailed("the job is to stop, and its imports are not over yet")
            return starting.result()
        except asyncio.CancelledError:
            if starting.done() and not starting.cancelled() and starting.exception() is None:
                self._drop(starting.result())
            raise
        finally:
            hurry.cancel()
            if not starting.done():
                starting.cancel()
                await asyncio.wait({starting})

    def _failed(self, zygote: Zygote, reason: str) -> None:
        """One that had worked does no more: another may, some times. It is only counted once."""
        if zygote is not self._zygote:
            return
        self._failures += 1
        self._wanted = self._failures < MOST_FAILURES
        self._drop(zygote)
        self._say_once(reason)

    def _drop(self, zygote: Zygote) -> None:
        zygote.kill()
        self._ended.append(zygote)
        if zygote is self._zygote:
            self._zygote = None

    def _say_once(self, reason: str) -> None:
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
        spec = self._job.spec
        python = interpreter(spec, os.environ)
        batch = self._job.settings.batch
        argv = first_launch(spec).argv if batch is None else (python, protocol.WORKERS_FILE, "map")
        self._job.folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Command(
            argv=argv,
            cwd=self._job.settings.cwd,
            env=worker_environment(self._job, 0) | self._gpus.environment(),
            output=self._job.folder.zygote_log,
            inherit_fds=fds,
            limits=self._isolation.limits(),
        )
