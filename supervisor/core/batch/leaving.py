"""What the end of a worker means: for its items, for the crew, and for whoever reads of it.

Owns this one handler of `machine.step`. What a worker had not begun goes back; what it had is to
blame, unless the end was no item's fault.
"""

from dataclasses import replace

from supervisor.core.batch import blame, crew
from supervisor.core.batch.state import BatchState, Ending, Group, Worker
from supervisor.core.batch.words import Gone
from supervisor.core.causes import Cause
from supervisor.core.events import Event
from supervisor.core.item_events import WorkerReplaced

Outcome = tuple[BatchState, tuple[Event, ...]]

IDLE_ENDS = 3  # workers in a row that die between two items: it is not the items


def gone(state: BatchState, word: Gone) -> Outcome:
    """A worker ended. What it had not begun goes back; what it had is to blame, or nobody is."""
    worker = state.worker(word.serial)
    if worker is None:
        return state, ()
    facts = (_replaced(state, worker, word),) if _is_news(state, worker, word) else ()
    had_to_go = state.ending is not None and not worker.ended_for
    to_blame = () if had_to_go or blame.ends_all(state.rules, word.cause) else worker.begun
    back = tuple(one for one in worker.chunk if one not in to_blame)
    state = _given_back(crew.without(state, worker), worker, back)
    if not to_blame:
        return _unblamed(state, worker, word), facts
    charge = blame.Charge(
        worker, to_blame, word.cause, word.reason, word.detail, outside=word.outside
    )
    state, more = blame.charge(state, charge)
    return state, (*facts, *more)


def _given_back(state: BatchState, worker: Worker, items: tuple[int, ...]) -> BatchState:
    """The state with these of its items to be handed out again; suspects are still tried apart."""
    if worker.tries is None or not items:
        return replace(state, pending=state.pending.give_back(items))
    return replace(state, groups=(Group(items, worker.tries.fresh), *state.groups))


def _unblamed(state: BatchState, worker: Worker, word: Gone) -> BatchState:
    """What the end of a worker means that was at no item, or ended for no fault of any.

    One that nobody needs may end as it likes, and one that was killed from outside is replaced; but
    one that cannot begin ends the crew, and so do several in a row that come to nothing.
    """
    served = worker.finished or worker.failed
    unneeded = worker.dismissed == crew.NOTHING_LEFT or bool(
        served and (worker.dismissed or word.in_order)
    )
    ending = Ending(word.cause, word.reason, word.serial)
    if blame.ends_all(state.rules, word.cause):
        harmless = unneeded and word.cause in blame.AT_START
        return state if harmless else crew.ends(state, ending)
    if unneeded:
        return state
    if not (worker.ready or word.in_order or word.outside):
        return crew.ends(state, ending)
    state = replace(state, idle_ends=state.idle_ends + 1)
    if state.idle_ends < IDLE_ENDS:
        return state
    if word.in_order:
        why = worker.dismissed or "nobody had asked them to"
        words = f"{IDLE_ENDS} workers in a row left before their first item: {why}"
        ending = Ending(Cause.INCOMPLETE, words, word.serial)
    return crew.ends(state, ending)


def _is_news(state: BatchState, worker: Worker, word: Gone) -> bool:
    """Whether a person should read of it: not of one that left because nothing was left to do."""
    if state.ending is not None and not worker.ended_for:
        return False
    return not word.in_order or worker.dismissed not in {"", crew.NOTHING_LEFT}


def _replaced(state: BatchState, worker: Worker, word: Gone) -> WorkerReplaced:
    return WorkerReplaced(
        number=state.attempt,
        worker=worker.serial,
        cause=Cause.COMPLETED if word.in_order else word.cause,
        reason=worker.dismissed if word.in_order else word.reason,
        items=worker.finished,
        ran_s=word.ran_s,
        host_growth_bytes=worker.host.sustained_bytes,
        gpu_growth_bytes=worker.gpu.sustained_bytes,
    )
