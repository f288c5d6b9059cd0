"""The behaviour of a crew: one handler for each word that it can be told.

`step(state, word, now)` answers with the next state, the facts to journal, and what to do once they
are journaled. An item is in one place only: pending, in a group of suspects, with one worker, done,
or quarantined; each handler moves items between these and loses none.
"""

from dataclasses import dataclass, replace

from supervisor.core.batch import blame, crew, leaving
from supervisor.core.batch.ranges import Pending, Range
from supervisor.core.batch.state import BatchState, Ending, Group, Rules, Worker
from supervisor.core.batch.words import (
    Dismiss,
    EndWorker,
    Failed,
    Fault,
    Gone,
    Instruction,
    Made,
    MemorySeen,
    Outgrown,
    Overdue,
    Ready,
    Reported,
    Revived,
    Word,
)
from supervisor.core.causes import Cause
from supervisor.core.events import Event


@dataclass(frozen=True, slots=True)
class Left:
    """What the ledger knows of a job's items when a crew begins."""

    total: int
    done: int = 0
    quarantined: int = 0
    todo: tuple[Range, ...] = ()
    suspects: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """What follows from a word: the state, the facts to journal first, and what to do then."""

    state: BatchState
    facts: tuple[Event, ...] = ()
    then: tuple[Instruction, ...] = ()


def begin(rules: Rules, attempt: int, left: Left, now: float) -> Turn:
    """A crew for what is left. Suspects of an earlier one are tried apart from all others."""
    state = BatchState(
        rules=rules,
        attempt=attempt,
        total=left.total,
        done=left.done,
        quarantined=left.quarantined,
        pending=Pending.of(left.todo),
        groups=tuple(Group((one,)) for one in left.suspects),
        size=rules.chunk,
    )
    return _settle(Turn(state), now)


def step(state: BatchState, word: Word, now: float) -> Turn:
    """What follows from a word. One of a worker that is no more changes nothing."""
    match word:
        case Made():
            turn = _made(state, word, now)
        case Ready():
            turn = _ready(state, word, now)
        case Reported():
            turn = _reported(state, word, now)
        case Failed():
            turn = _failed(state, word, now)
        case MemorySeen():
            turn = _memory(state, word, now)
        case Outgrown():
            turn = _outgrown(state, word)
        case Overdue():
            turn = _overdue(state, word)
        case Revived():
            turn = _revived(state, word, now)
        case Gone():
            turn = Turn(*leaving.gone(state, word))
        case _:  # StopAsked
            turn = Turn(crew.ends(state, Ending(None, word.reason)))
    return _settle(turn, now)


def _settle(turn: Turn, now: float) -> Turn:
    """Give work to whoever has too little, start who is missing, dismiss who is too many."""
    state, then = crew.arrange(turn.state, now)
    return Turn(state, turn.facts, (*turn.then, *then))


def _made(state: BatchState, word: Made, now: float) -> Turn:
    worker = state.worker(word.serial)
    return Turn(state if worker is None else crew.put(state, replace(worker, started_at=now)))


def _ready(state: BatchState, word: Ready, now: float) -> Turn:
    worker = state.worker(word.serial)
    if worker is None:
        return Turn(state)
    return Turn(crew.put(state, replace(worker, ready=True, ready_at=now, silent_since=now)))


def _reported(state: BatchState, word: Reported, now: float) -> Turn:
    """Items that are done leave the worker's hands; the call that began is where it is now."""
    worker = state.worker(word.serial)
    if worker is None:
        return Turn(state)
    held = frozenset(worker.chunk)
    finished = held.intersection(word.finished)
    begun = tuple(one for one in word.begun if one in held and one not in finished)
    if not finished and begun == worker.begun:
        return Turn(state)
    count = len(finished)
    cadence = replace(state.cadence, last=worker.silent_since).sign(now)
    worker = replace(
        worker,
        chunk=tuple(one for one in worker.chunk if one not in finished),
        begun=begun,
        finished=worker.finished + count,
        silent_since=now,
        item_since=now if begun else None,
    )
    worker = _in_its_chunk(worker, count, state.rules.chunk, now)
    state = replace(
        crew.put(state, worker),
        done=state.done + count,
        done_here=state.done_here + count,
        idle_ends=0 if count else state.idle_ends,
        cadence=cadence,
        strikes=tuple(one for one in state.strikes if one[0] not in finished),
    )
    return Turn(_grown_back(state, count))


def _in_its_chunk(worker: Worker, count: int, size: int, now: float) -> Worker:
    """Where in its chunk it is: a new one begins when it is through with the one before."""
    through = worker.chunk_finished + count
    if through < size:
        return replace(worker, chunk_finished=through)
    return replace(worker, chunk_finished=through % size, chunk_since=now)


def _grown_back(state: BatchState, count: int) -> BatchState:
    """After many items without a shortage of GPU memory, more are tried at a time again."""
    if state.size >= state.rules.chunk:
        return state
    clean = state.clean_since_oom + count
    if clean < blame.CLEAN_CHUNKS * state.size:
        return replace(state, clean_since_oom=clean)
    return replace(state, clean_since_oom=0, size=min(state.rules.chunk, 2 * state.size))


def _failed(state: BatchState, word: Failed, now: float) -> Turn:
    """A call raised: its items are tried again apart, or have had their second chance."""
    worker = state.worker(word.serial)
    if worker is None:
        return Turn(state)
    items = tuple(one for one in word.items if one in worker.chunk)
    fatal = f"its last call was fatal: {word.reason}" if word.fatal else ""
    worker = replace(
        worker,
        begun=(),
        failed=worker.failed + len(items),
        chunk=tuple(one for one in worker.chunk if one not in items),
        dismissed=worker.dismissed or fatal,
        silent_since=now,
        item_since=None,
    )
    worker = _in_its_chunk(worker, len(items), state.rules.chunk, now)
    state = replace(crew.put(state, worker), idle_ends=0)
    if word.fault is Fault.DISK_FULL:
        state = replace(state, pending=state.pending.give_back(items))
        return Turn(crew.ends(state, Ending(Cause.DISK_FULL, word.reason, word.serial)))
    causes = {Fault.CUDA_OOM: Cause.CUDA_OOM, Fault.CUDA_ERROR: Cause.CUDA_ERROR}
    cause = causes.get(word.fault, Cause.POISON_ITEM)
    if cause in state.rules.fatal:
        state = replace(state, pending=state.pending.give_back(items))
        return Turn(crew.ends(state, Ending(cause, word.reason, word.serial)))
    charge = blame.Charge(
        worker,
        items,
        cause,
        word.reason,
        word.detail,
        fresh=word.fatal or word.fault is Fault.MEMORY,
    )
    return Turn(*blame.charge(state, charge))


def _memory(state: BatchState, word: MemorySeen, _now: float) -> Turn:
    """Growth that stays ends a worker's life in time; the report says how much each item leaves."""
    worker = state.worker(word.serial)
    if worker is None:
        return Turn(state)
    host = worker.host.seen(word.host_bytes, word.items)
    gpu = worker.gpu.seen(word.gpu_bytes, word.items)
    return Turn(crew.put(state, replace(worker, host=host, gpu=gpu)))


def _outgrown(state: BatchState, word: Outgrown) -> Turn:
    """A worker that uses too much leaves after the call that it is in."""
    worker = state.worker(word.serial)
    if worker is None or worker.dismissed or worker.ended_for:
        return Turn(state)
    state = crew.put(state, replace(worker, dismissed=word.reason))
    return Turn(state, then=(Dismiss(word.serial),))


def _overdue(state: BatchState, word: Overdue) -> Turn:
    """A worker that hangs is ended; whom that is to blame for, its end will tell."""
    worker = state.worker(word.serial)
    if worker is None or worker.ended_for:
        return Turn(state)
    state = crew.put(state, replace(worker, ended_for=word.seen))
    return Turn(state, then=(EndWorker(word.serial),))


def _revived(state: BatchState, word: Revived, now: float) -> Turn:
    """It goes on, and all that it does has its time again."""
    worker = state.worker(word.serial)
    if worker is None:
        return Turn(state)
    item_since = now if worker.begun else None
    return Turn(
        crew.put(
            state,
            replace(
                worker,
                ended_for="",
                silent_since=now,
                item_since=item_since,
                chunk_since=now if worker.chunk else None,
            ),
        )
    )
