"""Who works at what: starting workers, handing out items, dismissing.

Owns the arrangement. Called after every word, it leaves no slot empty and no worker idle while
there is work that they may do; called again, it finds nothing more to do.
"""

from dataclasses import replace

from supervisor.core.batch.state import BatchState, Ending, Group, Worker
from supervisor.core.batch.words import CrewEnded, Dismiss, HandOut, Instruction, StartWorker
from supervisor.core.causes import Cause

AHEAD_S = 0.05  # so much work lies with a worker, so that it never waits for the runner
MOST_AHEAD = 1024
MOST_SUSPECTS = 500

NOTHING_LEFT = "nothing is left for it"


def put(state: BatchState, worker: Worker) -> BatchState:
    """The state with this worker as it is now."""
    workers = tuple(worker if one.serial == worker.serial else one for one in state.workers)
    return replace(state, workers=workers)


def without(state: BatchState, worker: Worker) -> BatchState:
    """The state without this worker."""
    workers = tuple(one for one in state.workers if one.serial != worker.serial)
    return replace(state, workers=workers)


def ends(state: BatchState, ending: Ending) -> BatchState:
    """The crew is not to go on; the first reason counts, but for a worker that does not die."""
    if state.ending is not None and ending.cause is not Cause.UNKILLABLE:
        return state
    return replace(state, ending=ending)


def arrange(state: BatchState, now: float) -> tuple[BatchState, tuple[Instruction, ...]]:
    """Give work, start, dismiss; end the crew when nobody is left and nothing is to come."""
    orders: list[Instruction] = []
    for worker in state.workers:
        state, more = _occupy(state, worker, now)
        orders += more
    state, more = _start(state, now)
    orders += more
    if not state.workers:
        orders.append(CrewEnded(state.ending))
    return state, tuple(orders)


def _occupy(state: BatchState, worker: Worker, now: float) -> tuple[BatchState, list[Instruction]]:
    """Keep one worker busy, or dismiss it; a spare one waits until it is its turn."""
    if worker.dismissed or worker.ended_for:
        return state, []
    reason = _why_to_leave(state, worker, now)
    if reason is None and worker.ready and (worker.chunk or _busy(state) < state.rules.parallel):
        state, handed = _hand_out(state, worker, now)
        if handed is not None:
            return state, [handed]
    if reason is None and not worker.chunk and not _has_a_future(state, worker):
        reason = NOTHING_LEFT
    if reason is None:
        return state, []
    return put(state, replace(worker, dismissed=reason)), [Dismiss(worker.serial)]


def _busy(state: BatchState) -> int:
    """How many workers have items in their hands."""
    return sum(bool(one.chunk) for one in state.workers)


def _has_a_future(state: BatchState, worker: Worker) -> bool:
    """Whether an idle worker may still get something, now or after the end of another."""
    if worker.fresh:
        return bool(state.pending or state.groups or _busy(state))
    if not state.rules.lives_on or (worker.tries is not None and worker.tries.fresh):
        return False
    # Suspects that killed a worker are not for it: it makes room for one that may try them.
    return bool(state.pending) or (not state.groups and _busy(state) > 0)


def _why_to_leave(state: BatchState, worker: Worker, now: float) -> str | None:
    """Why a worker's life is over before the job is."""
    rules = state.rules
    if state.ending is not None:
        return state.ending.reason or "the job stops"
    for growth, limit, memory, unit in (
        (worker.host, rules.host_growth_bytes, "host", "host_growth"),
        (worker.gpu, rules.gpu_growth_bytes, "GPU", "gpu_growth"),
    ):
        if limit is not None and growth.sustained_bytes > limit:
            return (
                f"its {memory} memory grew by {_mib(growth.sustained_bytes)} over "
                f"{growth.items - growth.baseline_items} items, chunks.recycle.{unit} is "
                f"{_mib(limit)}"
            )
    if rules.items is not None and worker.finished >= rules.items:
        return f"it finished {worker.finished} items, chunks.recycle.items is {rules.items}"
    age_s = now - worker.ready_at  # how long it took to get ready is no reason to do so again
    if rules.age_s is not None and worker.finished and age_s > rules.age_s:
        return f"it is {age_s:.0f} s old, chunks.recycle.age is {rules.age_s:g} s"
    return None


def _mib(count: float) -> str:
    return f"{count / (1 << 20):.1f} MiB"


def _hand_out(state: BatchState, worker: Worker, now: float) -> tuple[BatchState, HandOut | None]:
    """More items for a worker that has too few, as far as it may have any."""
    if worker.tries is not None:
        if worker.chunk:
            return state, None
        worker = replace(worker, tries=None)
    group = _group_for(state, worker)
    if group is not None:
        return _try(state, worker, group, now)
    items, left = state.pending.take(_appetite(state, worker, now))
    if not items:
        return state, None
    state = _given(replace(state, pending=left), worker, items, now)
    return state, HandOut(worker.serial, items, _batch(state))


def _batch(state: BatchState) -> int | None:
    """How many items a call takes at present."""
    return None if state.rules.batch is None else min(state.rules.batch, state.size)


def _group_for(state: BatchState, worker: Worker) -> Group | None:
    """The suspects that it may try now, if any.

    A new worker may try any, but as long as nothing ever worked there is little sense in it: the
    others come first. One that lives on tries those that killed nobody, when all else is given or
    too many wait.
    """
    if state.pending and not (worker.fresh and state.done) and not _crowded(state):
        return None
    if not worker.fresh and (worker.chunk or not state.rules.lives_on):
        return None
    return next((one for one in state.groups if worker.fresh or not one.fresh), None)


def _crowded(state: BatchState) -> bool:
    """Whether so many suspects wait that some must be tried before more can come."""
    crowd = state.done and len(state.groups) >= MOST_SUSPECTS
    return bool(crowd) and any(not one.fresh for one in state.groups)


def _appetite(state: BatchState, worker: Worker, now: float) -> int:
    """How many items to give it now, 0 for none.

    One that lives for a chunk gets one. Others are given the next before they have finished the
    last: as many as they do in a moment, and no more than their share of what is left.
    """
    rules = state.rules
    if not rules.lives_on:
        return state.size if worker.fresh else 0
    if worker.chunk and _crowded(state):
        return 0
    age_s = max(now - worker.ready_at, AHEAD_S)
    ahead = min(MOST_AHEAD, max(state.size, int(worker.finished / age_s * AHEAD_S)))
    if rules.parallel > 1:
        ahead = min(ahead, -(-len(state.pending) // rules.parallel))
    if rules.items is not None:
        ahead = min(ahead, rules.items - worker.finished)
    if 2 * len(worker.chunk) > ahead:
        return 0
    room, batch = ahead - len(worker.chunk), _batch(state) or 1
    return room if room < batch else room - room % batch  # a call that is not full wastes a GPU


def _try(state: BatchState, worker: Worker, group: Group, now: float) -> tuple[BatchState, HandOut]:
    """Suspects for a worker: for a new one any, for another only those that killed nobody."""
    groups = list(state.groups)
    groups.remove(group)
    batch = None if state.rules.batch is None else len(group.items)
    tried = replace(worker, tries=group)
    state = _given(replace(state, groups=tuple(groups)), tried, group.items, now)
    return state, HandOut(worker.serial, group.items, batch)


def _given(state: BatchState, worker: Worker, items: tuple[int, ...], now: float) -> BatchState:
    if not worker.chunk:
        worker = replace(worker, chunk_since=now, chunk_finished=0, silent_since=now)
    return put(state, replace(worker, fresh=False, chunk=worker.chunk + items))


def _start(state: BatchState, now: float) -> tuple[BatchState, list[Instruction]]:
    """Start workers in the empty slots, as many as there is work for."""
    orders: list[Instruction] = []
    taken = {one.slot for one in state.workers}
    share = 1 if state.rules.lives_on else state.size
    wanted = -(-len(state.pending) // share) + len(state.groups)
    wanted -= sum(one.fresh and not one.dismissed for one in state.workers)
    for slot in range(state.rules.parallel + state.rules.spare):
        if state.ending is not None or wanted <= 0:
            break
        if slot in taken:
            continue
        serial = state.serial + 1
        worker = Worker(serial, slot, started_at=now, silent_since=now)
        state = replace(state, serial=serial, workers=(*state.workers, worker))
        orders.append(StartWorker(serial, slot))
        wanted -= 1
    return state, orders
