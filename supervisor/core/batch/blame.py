"""Whom to suspect when a call failed, and when an item is given up: the poison rules.

Owns three rules. A call of several items is split in halves until the guilty one is found. One that
failed in company is tried once more, alone; one that failed alone is quarantined. What may be no
fault of an item (a signal from elsewhere, a GPU that is too small for so many) is not held against
it at once.
"""

from dataclasses import dataclass, replace

from supervisor.core.batch import crew
from supervisor.core.batch.state import BatchState, Ending, Group, Rules, Worker
from supervisor.core.causes import Cause
from supervisor.core.events import Event
from supervisor.core.item_events import ItemQuarantined, ItemsSuspected

CLEAN_CHUNKS = 8  # of the size that fits, before more are tried at a time again
OUTSIDE_STRIKES = 8  # times that a signal from elsewhere may strike an item that is tried alone
ALL_FAIL = 10  # failures before the first success: the function is broken, not the items

# Ends that say nothing about the item that a worker was at.
NOT_THE_ITEMS = frozenset(
    {
        Cause.STOPPED,
        Cause.TOTAL_TIMEOUT,
        Cause.GPU_HARDWARE,
        Cause.DISK_FULL,
        Cause.SPAWN_FAILED,
        Cause.UNKILLABLE,
        Cause.STARTUP_TIMEOUT,
        Cause.RUNNER_LOST,
        Cause.HOST_REBOOTED,
    }
)

AT_START = frozenset({Cause.SPAWN_FAILED, Cause.STARTUP_TIMEOUT})


@dataclass(frozen=True, slots=True)
class Charge:
    """What is held against the items of a call, and how it came out.

    `fresh` says that their next try needs a worker of its own.
    """

    worker: Worker
    items: tuple[int, ...]
    cause: Cause
    reason: str
    detail: str = ""
    fresh: bool = True
    outside: bool = False


def ends_all(rules: Rules, cause: Cause) -> bool:
    """Whether this end of a worker is no item's fault, or is to be left to the job's own rule."""
    return cause in NOT_THE_ITEMS or cause in rules.fatal


def charge(state: BatchState, one: Charge) -> tuple[BatchState, tuple[Event, ...]]:
    """The state and the facts after a call failed."""
    if not one.items:
        return state, ()
    if one.cause is Cause.CUDA_OOM and state.rules.shrinks:
        state = _shrunk(state, len(one.items))
        if len(one.items) > 1:  # together they were too many: that is nobody's fault
            return replace(state, pending=state.pending.give_back(one.items)), ()
    tries = one.worker.tries
    alone = tries is not None and len(tries.items) == 1
    if alone and not _excused(state, one):
        return _quarantined(state, one)
    state = _struck(state, one) if alone else state
    state = replace(state, groups=(*_halves(one), *state.groups))
    suspected = ItemsSuspected(state.attempt, one.worker.serial, one.items, one.cause, one.reason)
    return _unless_all_fail(state, one), (suspected,)


def _shrunk(state: BatchState, at_once: int) -> BatchState:
    """The state after so many items in a call were too many for a GPU, or one was."""
    most = state.size if at_once == 1 else min(state.size, at_once)
    return replace(state, size=max(1, most // 2), clean_since_oom=0)


def _halves(one: Charge) -> tuple[Group, ...]:
    """How the items are tried next: two halves of a call, or the one item alone."""
    middle = (len(one.items) + 1) // 2
    halves = (one.items[:middle], one.items[middle:])
    return tuple(Group(half, one.fresh) for half in halves if half)


def _excused(state: BatchState, one: Charge) -> bool:
    """Whether what struck an item that was alone may have been no fault of it."""
    return one.outside and dict(state.strikes).get(one.items[0], 0) + 1 < OUTSIDE_STRIKES


def _struck(state: BatchState, one: Charge) -> BatchState:
    strikes = dict(state.strikes)
    strikes[one.items[0]] = strikes.get(one.items[0], 0) + 1
    return replace(state, strikes=tuple(strikes.items()))


def _quarantined(state: BatchState, one: Charge) -> tuple[BatchState, tuple[Event, ...]]:
    item = one.items[0]
    fact = ItemQuarantined(
        state.attempt, one.worker.serial, item, one.cause, one.reason, one.detail
    )
    state = replace(
        state,
        quarantined=state.quarantined + 1,
        strikes=tuple(pair for pair in state.strikes if pair[0] != item),
    )
    if state.rules.poison_fails:
        words = f"item {item} is poison, and chunks.poison is fail: {one.reason}"
        state = crew.ends(state, Ending(Cause.POISON_ITEM, words, one.worker.serial))
    elif not state.done and state.quarantined >= ALL_FAIL:
        words = f"no item ever worked, and {state.quarantined} failed twice: {one.reason}"
        state = crew.ends(state, Ending(Cause.BAD_CONFIG, words, one.worker.serial))
    return state, (fact,)


def _unless_all_fail(state: BatchState, one: Charge) -> BatchState:
    """Give up where nothing ever worked: a typing error must not quarantine a million items."""
    if state.done or one.worker.tries is not None:
        return state
    failed = state.failed_first + 1
    if failed < ALL_FAIL:
        return replace(state, failed_first=failed)
    words = f"the first {failed} calls all failed, the last one with: {one.reason}"
    return crew.ends(state, Ending(Cause.BAD_CONFIG, words, one.worker.serial))
