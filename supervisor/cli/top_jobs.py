"""Which jobs run on this host: those of this person's journals, and what a daemon says of others'.

Owns the list, and asking the daemon beside the view. Only reads. Invariants: a job is listed once;
where no daemon answers, one's own jobs are listed as the journals have them; the view never waits
for a daemon.
"""

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from supervisor.cli.jobs import opened
from supervisor.client.errors import ClientError
from supervisor.client.find import daemon_or_none, own_shelves
from supervisor.core.causes import Cause, State
from supervisor.host.processes import ProcessId, Stat, descendants
from supervisor.journal import AttemptRecord, JobRecord, Journal
from supervisor.runner.alive import ATTENDED, runner_process
from supervisor.runner.home import JobFolder
from supervisor.views.fields import Fields

if TYPE_CHECKING:
    from supervisor.client.calls import Daemon

EVERY_S = 1.5
MOST = 200  # of one state, that are asked for
_NO_FAULT = frozenset({Cause.COMPLETED, Cause.STOPPED})
_WITH_RUNNER = tuple(str(one) for one in sorted(ATTENDED - {State.QUEUED}))


@dataclass(frozen=True, slots=True)
class Running:
    """A job and its runner. None: not known, or not there.

    Of a worker whose start is unknown, a pid is believed if it descends from the runner. `log` is
    where the running attempt prints to.
    """

    id: str
    name: str
    state: str
    runner: int
    runner_ticks: int | None = None
    user: str | None = None
    created_s: float = 0.0
    attempt: int | None = None
    restarts: int | None = None
    step: int | None = None
    total: int | None = None
    worker: int | None = None
    worker_ticks: int | None = None
    log: Path | None = None

    def tree(self, everybody: Mapping[int, Stat]) -> list[int]:
        """The worker and its descendants, the worker first; none when it is gone."""
        main = None if self.worker is None else everybody.get(self.worker)
        if self.worker is None or main is None or main.ended:
            return []
        if self.worker_ticks is None:
            ours = self.worker in descendants(everybody, [self.runner])
        else:
            ours = main.start_ticks == self.worker_ticks
        return [self.worker, *sorted(descendants(everybody, [self.worker]))] if ours else []


@dataclass(frozen=True, slots=True)
class Told:
    """What a daemon says: documents of jobs that have a runner, and how many wait for their turn.

    `waiting` is None where no daemon runs on this host. `problem`: why one says nothing.
    """

    running: tuple[Fields, ...] = ()
    waiting: int | None = None
    problem: str = ""


NO_DAEMON = Told()


@dataclass(frozen=True, slots=True)
class Roll:
    """Jobs that have a runner, oldest first; how many wait for one, and how many lost theirs."""

    running: tuple[Running, ...]
    waiting: int
    lost: int


class Asker:
    """Asks the daemon of a state folder what runs, again and again."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._workers: dict[tuple[str, Any], int] = {}

    def ask(self) -> Told:
        """What the daemon says now."""
        try:
            found = daemon_or_none(self._state_dir)
            if found is None:
                return NO_DAEMON
            with found.connection:
                if found.far:  # its processes are not those of this host
                    return NO_DAEMON
                from supervisor.client.calls import Daemon  # noqa: PLC0415 - HTTP takes a while

                return self._told(Daemon(found.connection))
        except ClientError as error:
            return Told(problem=str(error))

    def _told(self, daemon: "Daemon") -> Told:
        # By id: one that changed its state meanwhile is in two lists.
        told = {
            str(one["id"]): one
            for state in _WITH_RUNNER
            for one in daemon.jobs(state=state, limit=MOST)
        }
        others = [one for one in told.values() if one.get("uid") != os.getuid()]
        known = {(str(one["id"]), one.get("attempt")) for one in others}
        self._workers = {key: pid for key, pid in self._workers.items() if key in known}
        for key in known - self._workers.keys():
            if (pid := _worker(daemon.document(key[0]))) is not None:
                self._workers[key] = pid
        pids = {job: pid for (job, _), pid in self._workers.items()}
        running = tuple(one | {"worker_pid": pids.get(job)} for job, one in told.items())
        return Told(running, int(daemon.status().get("jobs", {}).get("waiting", 0)))


def _worker(document: Fields) -> int | None:
    """The process of the last attempt, if that has not ended."""
    last = (document.get("attempts") or [{}])[-1]
    return None if last.get("ended_at") else last.get("pid")


class DaemonFeed:
    """Asks for as long as it is entered; `latest` never waits."""

    def __init__(self, asker: Asker, every_s: float = EVERY_S) -> None:
        self.latest = NO_DAEMON
        self._asker = asker
        self._every_s = every_s
        self._over = threading.Event()

    def __enter__(self) -> Self:
        # A question that nobody answers is left behind with its thread.
        threading.Thread(target=self._work, name="daemon", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()

    def _work(self) -> None:
        while True:
            self.latest = self._asker.ask()
            if self._over.wait(self._every_s):
                return


def roll(state_dir: Path, told: Told) -> Roll:
    """The jobs that run, of every journal that this person may have on this host, and others'.

    Raises:
        JournalError: a journal cannot be used.
    """
    users = {str(one["id"]): one.get("user") for one in told.running}
    own: list[Running] = []
    waiting = lost = 0
    for place in own_shelves(state_dir):
        with opened(place) as journal:
            for record in _attended(journal):
                process = runner_process(record)
                if journal is not None and process is not None:
                    own.append(_own(journal, record, process, place, users.get(record.id)))
                elif JobFolder.of(place, record.id).surroundings.exists():
                    waiting += 1  # for the daemon
                else:
                    lost += 1
    here = {(one.id, one.runner) for one in own}
    others = [one for one in _others(told.running) if (one.id, one.runner) not in here]
    running = sorted([*own, *others], key=lambda one: one.created_s)
    return Roll(tuple(running), waiting if told.waiting is None else told.waiting, lost)


def _attended(journal: Journal | None) -> Iterable[JobRecord]:
    every = [] if journal is None else journal.tally().jobs()
    return (one for one in every if one.state in ATTENDED)


def _own(
    journal: Journal, record: JobRecord, process: ProcessId, place: Path, user: str | None
) -> Running:
    attempts = journal.attempts(record.id)
    last = attempts[-1] if attempts else None
    going = last if last is not None and last.ended_s is None else None
    return Running(
        id=record.id,
        name=record.name,
        state=record.state,
        runner=process.pid,
        runner_ticks=process.start_ticks,
        user=user or _me(),
        created_s=record.created_s,
        attempt=last.number if last else None,
        restarts=sum(one.cause not in _NO_FAULT for one in attempts[:-1]),
        step=record.step,
        total=record.total,
        worker=going.pid if going else None,
        worker_ticks=going.start_ticks if going else None,
        log=_log(place, going),
    )


def _log(place: Path, attempt: AttemptRecord | None) -> Path | None:
    return JobFolder.of(place, attempt.job_id).attempt(attempt.number).log if attempt else None


def _others(documents: Iterable[Fields]) -> Iterator[Running]:
    """Jobs that only the daemon knows, and that have a runner."""
    for one in documents:
        if one.get("runner_pid") is None or one.get("runner_alive") is False:
            continue
        created = one.get("created_at")
        yield Running(
            id=str(one["id"]),
            name=str(one.get("name")),
            state=str(one["state"]),
            runner=int(one["runner_pid"]),
            user=str(one.get("user") or one.get("uid")),
            created_s=datetime.fromisoformat(created).timestamp() if created else 0.0,
            attempt=one.get("attempt"),
            step=one.get("step"),
            total=one.get("total"),
            worker=one.get("worker_pid"),
        )


def _me() -> str:
    import pwd  # noqa: PLC0415 - only where a job runs

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
