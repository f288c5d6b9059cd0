"""Who starts next, and what everybody else waits for. Pure: no clock, no file, no driver.

Owns the order of jobs. Each is looked at once, in order of turn, and starts when all that it needs
is free; one that does not fit is passed by those behind it (backfill). Two rules keep that fair. A
job rises by one level of priority with every hour, so nobody waits for ever behind more important
ones; all rise alike, so two waiting jobs never change places. And one that has waited for
PATIENCE_S is passed no more: what it lacks goes to nobody behind it, and what it has no need to
wait for is kept for it. Only a job that could start once others end may ask for that: one that
waits for a repair holds up nobody.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from supervisor.core.causes import State
from supervisor.queue import words
from supervisor.queue.model import Entry, Needs, Wish

AGING_S = 3600.0  # so long a wait counts as one level of priority
PATIENCE_S = 1800.0  # so long a job may be passed by those behind it


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the host has for jobs, apart from GPUs."""

    cpus: int
    memory_bytes: int


class OutOfReach(str):
    """Why GPUs are not to be had where no end of a job would help: an outage, a stranger's work."""

    __slots__ = ()


class GpuTaker(Protocol):
    """Gives GPUs for the length of one plan."""

    def take(self, needs: Needs) -> tuple[str, ...] | str:
        """The uuids, which are then nobody else's in this plan, or why not (see OutOfReach)."""


@dataclass(frozen=True, slots=True)
class Situation:
    """All that is known when it is planned.

    `states` has the final state of each ended job that is named in somebody's `after`.
    `held_groups` are pairs of uid and name; `failures` of them in a row, where known.
    """

    waiting: Sequence[Entry]
    started: Sequence[Entry]
    states: Mapping[str, State]
    held_groups: Collection[tuple[int, str]]
    capacity: Capacity
    now_s: float
    failures: Mapping[tuple[int, str], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Start:
    """A job to start, and the GPUs that it may have."""

    id: str
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Who starts, in order of turn; `waits` has, in the same order, why each other one does not."""

    starts: tuple[Start, ...]
    waits: Mapping[str, str]


def plan(situation: Situation, gpus: GpuTaker) -> Plan:
    """Decide about every waiting job."""
    turn = _Turn(situation, gpus)
    starts, waits = [], {}
    for entry in sorted(situation.waiting, key=lambda one: order(one, situation.now_s)):
        found = turn.give(entry)
        if isinstance(found, str):
            waits[entry.id] = found
        else:
            starts.append(Start(entry.id, found))
    return Plan(tuple(starts), waits)


def order(entry: Entry, now_s: float) -> tuple[float, int]:
    """What waiting jobs are sorted by: priority with age, then the order of submission.

    One that began to wait in the future (the clock was set back) begins to wait now.
    """
    return min(entry.queued_s, now_s) - entry.priority * AGING_S, entry.seq


def fits_ever(needs: Needs, capacity: Capacity) -> str | None:
    """Why a job can never run with this capacity; None if it can. Says nothing about GPUs."""
    if needs.cpus > capacity.cpus:
        return words.too_few_cpus(needs, capacity.cpus)
    if needs.memory_bytes is not None and needs.memory_bytes > capacity.memory_bytes:
        return words.too_little_memory(needs.memory_bytes, capacity.memory_bytes)
    return None


class _Thing(Enum):
    """What there is too little of."""

    CPUS = "cpus"
    MEMORY = "memory"
    GPUS = "gpus"


@dataclass(frozen=True, slots=True)
class _Refused:
    """Why a job of certain needs cannot start. `settled`: waiting longer changes nothing for it."""

    why: str
    settled: bool


class _Turn:
    """What is left while one job after the other is looked at.

    It only becomes less, so what was refused once in this plan is refused to all alike.
    """

    def __init__(self, situation: Situation, gpus: GpuTaker) -> None:
        self._situation = situation
        self._capacity = situation.capacity
        self._gpus = gpus
        self._patient_since_s = situation.now_s - PATIENCE_S
        self._cpus = self._capacity.cpus
        self._memory = self._capacity.memory_bytes
        self._claimed: dict[tuple[int, str], str] = {}
        self._kept: dict[_Thing, str] = {}
        self._refused: dict[Needs, _Refused] = {}
        self._running = {one.id for one in situation.started}
        self._waiting: set[str] | None = None
        for entry in situation.started:
            self._start(entry)

    def give(self, entry: Entry) -> tuple[str, ...] | str:
        """The GPUs of a job that starts (which may be none), or why it does not."""
        if entry.after or entry.group is not None or entry.claims or entry.wish is not Wish.RUN:
            why = self._unready(entry)
            if why is not None:
                return why
        refused = self._refused.get(entry.needs)
        if refused is None:
            found = self._try(entry.needs)
            if isinstance(found, tuple):
                self._start(entry)
                return found
            refused = self._refused[entry.needs] = found
        if not refused.settled and entry.queued_s <= self._patient_since_s:
            self._keep(entry)
            self._refused[entry.needs] = _Refused(refused.why, settled=True)
        return refused.why

    def _start(self, entry: Entry) -> None:
        self._cpus -= entry.needs.cpus
        self._memory -= entry.needs.memory_bytes or 0
        for folder in entry.claims:
            self._claimed.setdefault((entry.uid, folder), entry.id)

    def _unready(self, entry: Entry) -> str | None:
        """Why a job would not start on an empty host either."""
        if entry.wish is not Wish.RUN:
            return words.unwanted(entry.wish)
        if entry.group is not None:
            group = (entry.uid, entry.group)
            if group in self._situation.held_groups:
                return words.held(entry.group, self._situation.failures.get(group, 0))
        states = self._situation.states
        missing = [one for one in entry.after if states.get(one) is not State.SUCCEEDED]
        if missing:
            return words.first_of([(one, self._what_of(one, entry)) for one in missing])
        for folder in entry.claims:
            # Of one's own: nobody keeps others from their work by naming their folders.
            other = self._claimed.get((entry.uid, folder))
            if other is not None:
                return words.same_folder(folder, other)
        return None

    def _what_of(self, job_id: str, entry: Entry) -> str:
        """What a job does that has not succeeded."""
        state = self._situation.states.get(job_id)
        if state is not None:
            return words.NOT_DONE.get(state, words.LEFT)
        if job_id in self._running:
            return words.RUNNING
        if job_id == entry.id:
            return words.ITSELF
        if self._waiting is None:  # only where somebody waits for somebody
            self._waiting = {one.id for one in self._situation.waiting}
        return words.WAITING if job_id in self._waiting else words.UNKNOWN

    def _try(self, needs: Needs) -> tuple[str, ...] | _Refused:
        """The GPUs for a job of these needs, for which there is room now, or what is in the way."""
        never = fits_ever(needs, self._capacity)
        if never is not None:
            return _Refused(words.never(never), settled=True)
        for thing, what in _wanted(needs).items():
            if thing in self._kept:
                return _Refused(words.goes_first(what, self._kept[thing]), settled=True)
        lacking = self._lacking(needs)
        if lacking:
            return _Refused(next(iter(lacking.values())), settled=False)
        if not needs.gpus:
            return ()
        found = self._gpus.take(needs)
        if isinstance(found, str):
            settled = isinstance(found, OutOfReach)
            return _Refused(words.lacks_gpus(needs, found), settled=settled)
        return found

    def _lacking(self, needs: Needs) -> dict[_Thing, str]:
        """Of what there is too little now, GPUs apart, each in words."""
        lacking, have, wanted = {}, self._capacity, needs.memory_bytes or 0
        if needs.cpus > self._cpus:
            lacking[_Thing.CPUS] = words.lacks_cpus(needs, self._cpus, have.cpus)
        if wanted > max(self._memory, 0):
            free = words.lacks_memory(wanted, self._memory, have.memory_bytes)
            lacking[_Thing.MEMORY] = free
        return lacking

    def _keep(self, entry: Entry) -> None:
        """See that a job, which has waited for long, is passed no more."""
        needs = entry.needs
        lacking = set(self._lacking(needs))
        if needs.gpus:
            found = self._gpus.take(needs)
            if isinstance(found, OutOfReach):
                return
            if isinstance(found, str):
                lacking.add(_Thing.GPUS)
        for thing in lacking:
            self._kept.setdefault(thing, entry.id)
        if _Thing.CPUS not in lacking:
            self._cpus -= needs.cpus
        if _Thing.MEMORY not in lacking:
            self._memory -= needs.memory_bytes or 0


def _wanted(needs: Needs) -> dict[_Thing, str]:
    """What a job takes, each in words."""
    wanted = {_Thing.CPUS: words.cpus(needs.cpus)}
    if needs.memory_bytes:
        wanted[_Thing.MEMORY] = words.memory(needs.memory_bytes)
    if needs.gpus:
        wanted[_Thing.GPUS] = words.gpus(needs.gpus)
    return wanted
