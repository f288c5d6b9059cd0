"""Starts the worker of an attempt and holds it while it lives.

Owns the command line and environment that a worker gets, and the launcher that is kept ready for
the next one. Knows nothing of why a worker is started or ended.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from supervisor.core.effects import SpawnAttempt
from supervisor.process import Child, Command, Launcher, SpawnFailed, isolated_child
from supervisor.process.command import SpawnFailure
from supervisor.runner.environment import worker_environment
from supervisor.runner.gpus import Gpus
from supervisor.runner.hang_evidence import save_evidence
from supervisor.runner.home import AttemptFolder
from supervisor.runner.isolation import Enclosure
from supervisor.runner.opening import OpenJob
from supervisor.runner.outfit import Outfit
from supervisor.runner.session.session import Session
from supervisor.runner.warmth import Warmth
from supervisor.spec.launch import Launch, ResumePoint, first_launch, resume_launch
from workers import protocol

TOLD_SHARE = 0.75  # of the grace, for a worker that was told on its session
STOP_SLACK_S = 5.0  # the core's own deadline decides when grace is over; this one is its backstop


class LiveWorker:
    """The worker of the running attempt."""

    def __init__(self, child: Child, folder: AttemptFolder, session: Session | None = None) -> None:
        self.child = child
        self.gone = asyncio.Event()
        self._folder = folder
        self._session = session
        self._stopping: asyncio.Task[object] | None = None

    async def stop(self, grace_s: float) -> None:
        """Begin the graceful stop; returns when the worker is gone or grace is over."""
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._stop(grace_s))
        await asyncio.wait({self._stopping})

    async def _stop(self, grace_s: float) -> None:
        """Whoever listens on its session is told; who does not leave then gets the signals too.

        A signal would end what stands between us and the training: torchrun kills its ranks.
        """
        left_s = grace_s
        if self._session is not None and self._session.ask_stop("stop", grace_s, self.child.pid):
            self.child.signal(signal.SIGCONT)  # a stopped process could not hear it
            left_s = grace_s * (1 - TOLD_SHARE)
            exited = asyncio.ensure_future(self.child.wait())
            await asyncio.wait({exited}, timeout=grace_s * TOLD_SHARE)
            exited.cancel()
        await self.child.stop(left_s + STOP_SLACK_S)

    async def see_out(self) -> None:
        """Let what is left of the tree use the grace that it was given."""
        if self._stopping is not None:
            await asyncio.wait({self._stopping})

    async def save_evidence(self, gpu_lines: list[str], log: Path | None = None) -> bool:
        """Write down where it stands, as evidence of a hang; whether it is unharmed by that.

        `log` is its output, where that is not in its folder.
        """
        pids = [one.pid for one in self.child.members() if one.pid != self.child.pid]
        tree = [self.child.pid, *pids]
        return await save_evidence(self.child, self._folder, gpu_lines, tree, log)


class Workers:
    """Spawns one job's workers, one after the other."""

    def __init__(self, job: OpenJob, gpus: Gpus, warmth: Warmth, outfit: Outfit) -> None:
        self._job = job
        self._gpus = gpus
        self._warmth = warmth
        self._outfit = outfit
        self._ahead: Launcher | None = None

    @asynccontextmanager
    async def spawn(
        self, effect: SpawnAttempt, enclosure: Enclosure, session: Session | None = None
    ) -> AsyncIterator[LiveWorker]:
        """The worker of this attempt; it and its whole tree are gone when the block ends.

        Raises:
            SpawnFailed: there is no worker, and why.
        """
        folder = self._job.folder.attempt(effect.number)
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            command = self._command(effect, enclosure, session)
        except OSError as error:
            argv = _launch(self._job, effect).argv
            failure = SpawnFailure("output", error.errno or 0, str(folder.path), argv)
            raise SpawnFailed(failure) from error
        launcher, self._ahead = self._ahead, None
        if launcher is not None and launcher.inherit_fds != command.inherit_fds:
            launcher.close()  # it was started before the job got other GPUs
            launcher = None
        if launcher is None:
            launcher = await self._warmth.launcher(self._fds())
        async with isolated_child(command, launcher=launcher) as child:
            yield LiveWorker(child, folder, session)

    async def start_ahead(self, live: LiveWorker) -> int:
        """Have the next worker's launcher ready, so that a restart does not wait for it; its pid.

        Meanwhile it guards the running worker: when this process dies, it ends the whole tree.
        Raises SpawnFailed.
        """
        if self._ahead is None:
            self._ahead = await self._warmth.launcher(self._fds())
        live.child.guard_by(self._ahead)
        return self._ahead.pid

    def close(self) -> None:
        """End the launcher that was not needed, and what the next ones would come from."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None
        self._warmth.release()

    def _fds(self) -> tuple[int, ...]:
        return (self._job.worker_lock.fd, *self._gpus.fds)

    def _command(
        self, effect: SpawnAttempt, enclosure: Enclosure, session: Session | None
    ) -> Command:
        settings = self._job.settings
        launch = _launch(self._job, effect)
        given = {**self._gpus.environment(), **self._outfit.environment(session)}
        return Command(
            argv=launch.argv,
            cwd=settings.cwd,
            env=_environment(self._job, effect, launch, given),
            output=self._job.folder.attempt(effect.number).log,
            inherit_fds=self._fds(),
            leaf=enclosure.leaf,
            limits=enclosure.limits,
            tracer_pid=os.getpid(),
            stop_signals=settings.stop_signals,
            grace_s=settings.timeouts.stop_s,
        )


def _launch(job: OpenJob, effect: SpawnAttempt) -> Launch:
    """The attempt's command line, and what resuming adds to its environment."""
    if effect.path is None or effect.step is None:
        return first_launch(job.spec)
    return resume_launch(job.spec, ResumePoint(Path(effect.path), effect.step))


def _environment(
    job: OpenJob, effect: SpawnAttempt, launch: Launch, given: Mapping[str, str]
) -> dict[str, str]:
    """The attempt's whole environment: that of every worker, what resuming adds, what it has."""
    resumed = {}
    if effect.path is not None:
        resumed[protocol.ENV_RESUME_PATH] = effect.path
        resumed[protocol.ENV_RESUME_STEP] = str(effect.step)
    base = worker_environment(job, effect.number)
    return {**resumed, **base, **launch.env, **given}
