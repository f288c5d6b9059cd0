"""What a crew works with: where its workers come from, where results go, what the host gives.

Owns what lives as long as the run. Knows how a worker of a batch job is started, never why.
"""

import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from supervisor.batch.quarantine import write_quarantine
from supervisor.batch.results import Results
from supervisor.batch.sheet import SheetTitle, write_sheet
from supervisor.core.batch.words import StartWorker, Word
from supervisor.journal import Journal, JournalError
from supervisor.process import Command, Launcher, SpawnFailed
from supervisor.process.command import SpawnFailure
from supervisor.runner.crew.member import Birth, Member
from supervisor.runner.crew.settling import Settling
from supervisor.runner.crew.standby import Standbys
from supervisor.runner.disk import DiskThread
from supervisor.runner.environment import worker_environment
from supervisor.runner.gpus import Gpus
from supervisor.runner.isolation import Isolation
from supervisor.runner.loop import Loop
from supervisor.runner.settings import BatchSettings
from supervisor.runner.space import Disks
from supervisor.runner.warmth import Warmth
from supervisor.spec.paths import interpreter
from workers import protocol
from workers.lines import encode_setup
from workers.messages import Setup

SHOWN: Final = 1001  # quarantined items on a contact sheet; one more than are listed
OURS: Final = "results"  # what the journal remembers of a file that this job has made


@dataclass(frozen=True, slots=True)
class Host:
    """What of the run's belongings a crew uses."""

    gpus: Gpus
    isolation: Isolation
    disks: Disks
    warmth: Warmth
    thread: DiskThread


class CrewTools:
    """All that the crews of one batch job need."""

    def __init__(self, loop: Loop, settings: BatchSettings, host: Host) -> None:
        self._loop = loop
        self._job = loop.job
        self._host = host
        self._settling: Settling | None = None
        self.settings = settings
        self.gpus = host.gpus
        self.isolation = host.isolation
        self.standbys = Standbys(host.warmth, host.isolation)

    @property
    def warm(self) -> bool:
        """Whether the next worker costs next to nothing to start."""
        return self._host.warmth.warm

    @property
    def settling(self) -> Settling:
        """Where results go; `open_results` comes first."""
        if self._settling is None:
            raise RuntimeError("the results are not open")
        return self._settling

    def open_results(self) -> None:
        """Open the file of results behind what is settled. Raises ResultsProblem, OSError."""
        if self._settling is not None:
            if self._settling.usable:
                return
            self._settling.close()
            self._settling = None
        path, journal = self.settings.plan.results, self._job.journal
        settled = journal.ledger(self._job.id).results_bytes()
        if not settled and journal.recall(self._job.id, str(path), OURS) is None:
            kept = keep_apart(path)
            if kept is not None:
                self._loop.listener.warned(f"results that are not this job's are kept as {kept}")
            journal.remember(self._job.id, str(path), OURS, OURS)
        results = Results(path, settled)
        warn, start = self._loop.listener.warned, self._loop.tasks.start
        self._settling = Settling(self._job, results, warn, start)

    async def member(
        self, order: StartWorker, attempt: int, tell: Callable[[Word], Awaitable[None]]
    ) -> Member:
        """The worker of this order, ready to be started. Raises SpawnFailed."""
        folder = self._job.folder.attempt(attempt)
        log = folder.log_of(order.slot)
        share = self.gpus.share(order.slot, self.settings.gpus)
        python = interpreter(self._job.spec, os.environ)
        if share and (refused := await self.gpus.given_back(share)):
            reason = "; ".join(one.reason for one in refused)
            raise SpawnFailed(SpawnFailure("gpu", 0, reason, [python]))
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            failure = SpawnFailure("output", error.errno or 0, str(folder.path), [python])
            raise SpawnFailed(failure) from error
        standby = await self.standbys.take(order.slot, order.serial, self._fds())
        enclosure = self.isolation.enclose(order.serial, standby.waiting)
        channel = {protocol.ENV_CHANNEL_FD: str(standby.theirs.fileno())}
        gpus = self.gpus.environment(share or None)
        command = Command(
            argv=(python, protocol.WORKERS_FILE, "map"),
            cwd=self._job.settings.cwd,
            env={**worker_environment(self._job, attempt), **gpus, **channel},
            output=log,
            inherit_fds=standby.launcher.inherit_fds,
            leaf=enclosure.leaf,
            limits=enclosure.limits,
            tracer_pid=os.getpid(),
            stop_signals=self._job.settings.stop_signals,
            grace_s=self._job.settings.timeouts.stop_s,
        )
        birth = Birth(
            order.serial, order.slot, command, standby, enclosure, self._setup(order), log
        )
        return Member(birth, self.settling, tell)

    def forget(self, member: Member) -> None:
        """Its end is over, or it never began."""
        if member.child is None:
            member.birth.standby.close()

    async def prepare(self, member: Member) -> Launcher | None:
        """Have the worker after this one ready, and let it guard this one. Raises SpawnFailed."""
        serial = member.serial + self.settings.rules.parallel
        return await self.standbys.prepare(member.birth.slot, serial, self._fds())

    async def no_room(self, member: Member) -> str:
        """Which of the job's disks is full; only asked where a worker did not end well."""
        end = member.end
        well = end.left and end.status is not None and end.status.code == 0
        return "" if well else await self._host.disks.full()

    async def publish(self, *, whole: bool) -> None:
        """Write what people read: the quarantined items, and at the very end the contact sheet."""
        try:
            await self._host.thread.run(self._publish, whole=whole)
        except (OSError, JournalError) as error:  # the journal has it all
            self._loop.listener.warned(f"{self.settings.plan.out} cannot be written: {error}")

    def _publish(self, *, whole: bool) -> None:
        """In the disk thread, with a connection of its own. Raises OSError, JournalError."""
        plan, journal = self.settings.plan, Journal.open(self._job.state_dir)
        try:
            ledger = journal.ledger(self._job.id)
            write_quarantine(plan.quarantine, ledger.each_quarantined())
            if whole and plan.contact_sheet:
                counts = ledger.counts()
                title = SheetTitle(self._job.spec.name, counts.done, counts.quarantined)
                write_sheet(plan.out, plan.results, ledger.quarantined(limit=SHOWN), title)
        finally:
            journal.close()

    def release(self) -> None:
        """End the workers that wait: others are to have the GPUs."""
        self.standbys.close()
        self._host.warmth.release()

    def close(self) -> None:
        """Let go of everything."""
        self.release()
        if self._settling is not None:
            self._settling.close()

    def _fds(self) -> tuple[int, ...]:
        return (self._job.worker_lock.fd, *self.gpus.fds)

    def _setup(self, order: StartWorker) -> bytes:
        plan = self.settings.plan
        return encode_setup(
            Setup(plan.entry, dict(plan.args), str(plan.out), plan.batch, order.serial)
        )


def keep_apart(path: Path) -> str | None:
    """Give the results of an earlier job another name, which is returned; None if there are none.

    Raises OSError.
    """
    with suppress(FileNotFoundError):
        if path.is_symlink() or not path.is_file() or not path.stat().st_size:
            return None  # what else is there, the next one who opens it will say
        number = 1
        while (kept := path.with_name(f"{path.stem}.before-{number}{path.suffix}")).exists():
            number += 1
        path.rename(kept)
        return kept.name
    return None
