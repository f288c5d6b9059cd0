"""What is known of the end of a worker, and of a whole crew, as evidence.

Owns what is looked at; the cause is found by `core.classify`, as for any other worker.
"""

from contextlib import suppress
from dataclasses import dataclass, replace

from supervisor.core.batch.state import BatchState, Ending, Worker
from supervisor.core.batch.words import Gone
from supervisor.core.causes import Cause
from supervisor.core.classify import classify
from supervisor.core.evidence import DeadlineName, Evidence, GpuUse, Oom
from supervisor.core.signatures import RootError, error_line, first_root_error
from supervisor.core.state import JobState
from supervisor.runner.crew.member import Member
from supervisor.runner.crew.settling import Settling

TAIL_BYTES = 256 << 10
DETAIL_LINES = 40
DETAIL_CHARS = 16 << 10
OUTSIDE = frozenset({1, 2, 9, 15})  # SIGHUP SIGINT SIGKILL SIGTERM: no program's own fault


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the host knows of a worker's end."""

    oom: Oom | None = None
    oom_kills: int = 0
    no_room: str = ""
    ran_s: float = 0.0


def evidence_of(member: Member, worker: Worker | None, around: Surroundings) -> Evidence:
    """The facts of one worker's end."""
    end, lines = member.end, member.output(TAIL_BYTES)
    code = None if end.status is None else end.status.code
    ended_for = "" if worker is None else worker.ended_for
    whole = code == 0 and end.left
    words = end.broken or _unfinished(worker)
    return Evidence(
        exit_code=code,
        signal=None if end.status is None else end.status.signal,
        spawn_error=end.spawn_error,
        deadline=_deadline(worker),
        survivors=end.survivors,
        oom=around.oom,
        oom_kills=around.oom_kills,
        breach=end.breach,
        hang=ended_for,
        no_room=around.no_room,
        done=None if whole or code != 0 else False,
        done_detail="" if whole else words,
        root_error=None if whole else first_root_error(lines),
        error_line=None if whole else _error_line(member, lines),
        progressed=bool(worker and worker.finished),
        nothing_works=_no_entry(member),
    )


def _deadline(worker: Worker | None) -> DeadlineName | None:
    """For which of its deadlines it was ended; one of an item or a chunk counts as a hang."""
    if worker is None or not worker.ended_for:
        return None
    return DeadlineName.HEARTBEAT if worker.ready else DeadlineName.STARTUP


def _unfinished(worker: Worker | None) -> str:
    if worker is None or not worker.begun:
        return "it left without a word"
    items = ", ".join(map(str, worker.begun[:8]))
    return f"it left without a word, in the midst of item {items}"


def _no_entry(member: Member) -> str:
    """Why there is nothing to call, where no other try could change that."""
    failure = member.end.unready
    if failure is None or failure.kind != "bad_config":
        return ""
    own = failure.type_name.startswith("workers.")  # our own words need no name of a class
    return (failure.message if own else f"{failure.type_name}: {failure.message}").split("\n", 1)[0]


def _error_line(member: Member, lines: list[str]) -> str | None:
    failure = member.end.unready
    if failure is not None:
        return f"{failure.type_name}: {failure.message}".split("\n", 1)[0]
    return error_line(lines)


def gone(member: Member, seen: Evidence, around: Surroundings) -> Gone:
    """The word that tells the crew of a worker's end."""
    in_order = member.end.dismissed or (member.end.left and seen.exit_code == 0)
    cause, reason = classify(seen)
    if in_order:
        cause = Cause.COMPLETED
    elif member.end.broken:  # that it was killed for it is not what ended it
        cause, reason = Cause.INCOMPLETE, member.end.broken
    return Gone(
        member.serial,
        cause,
        reason,
        _detail(member),
        in_order=in_order,
        outside=cause is Cause.SIGNAL and seen.signal in OUTSIDE,
        ran_s=around.ran_s,
    )


def _detail(member: Member) -> str:
    """Where it stood when it hung, else the last that it printed."""
    if member.end.stack is not None:
        with suppress(OSError):
            return member.end.stack.read_text(encoding="utf-8", errors="replace")[:DETAIL_CHARS]
    return "\n".join(member.output(TAIL_BYTES)[-DETAIL_LINES:])[-DETAIL_CHARS:]


def crew_status(state: BatchState | None, by: Evidence | None) -> tuple[int | None, int | None]:
    """Exit code and signal of a crew, as if it were one process: those of whom is to blame."""
    if by is not None:
        return by.exit_code, by.signal
    ending = None if state is None else state.ending
    return int(ending is not None and ending.cause is Cause.DISK_FULL), None


def crew_evidence(
    job: JobState, state: BatchState, by: Evidence | None, curve: tuple[GpuUse, ...]
) -> Evidence:
    """The facts of an attempt whose crew ended: of its last state, and of who is to blame."""
    ending = state.ending
    counts = f"{state.done} of {state.total} items done"
    if state.quarantined:
        counts += f", {state.quarantined} quarantined"
    if ending is not None and ending.cause in {Cause.INCOMPLETE, Cause.POISON_ITEM}:
        counts += f": {ending.reason}"
    base = by or Evidence(exit_code=job.exit_code)
    return Evidence(
        exit_code=base.exit_code,
        signal=base.signal,
        spawn_error=base.spawn_error,
        stop_requested=job.stop_requested,
        deadline=job.fired or base.deadline,
        deadline_s=None if job.fired is None else job.timeouts.of(job.fired),
        survivors=base.survivors,
        oom=base.oom,
        oom_kills=base.oom_kills,
        breach=job.breach or base.breach,
        hang=job.seen or base.hang,
        no_room=base.no_room,
        gpus=job.gpus,
        gpu_troubles=job.troubles,
        gpu_curve=curve,
        done=_done(state),
        done_detail=counts,
        root_error=base.root_error or _root_error(ending),
        error_line=base.error_line,
        step=state.done,
        progressed=state.done_here > 0,
        items_done=state.done_here,
        items_quarantined=state.quarantined if _is_over(state) else 0,
        nothing_works="" if state.done_here else base.nothing_works or _nothing_works(ending),
    )


def only_settled(seen: Evidence, state: BatchState, settling: Settling) -> Evidence:
    """The same, but for what was finished and could not be acknowledged: that is done again."""
    if not settling.unsettled:
        return seen
    done = state.done - settling.unsettled
    return replace(
        seen,
        done=None if settling.problem else False,
        done_detail=f"{done} of {state.total} items done",
        step=done,
        items_done=max(0, state.done_here - settling.unsettled),
        items_quarantined=0,
        nothing_works=seen.nothing_works or settling.problem,
    )


def _is_over(state: BatchState) -> bool:
    """Whether nothing is left that could be done, or a poison item is to end it all."""
    poisoned = state.ending is not None and state.ending.cause is Cause.POISON_ITEM
    return poisoned or state.done + state.quarantined >= state.total


def _done(state: BatchState) -> bool | None:
    if _is_over(state) and not state.quarantined:
        return True
    cause = None if state.ending is None else state.ending.cause
    return False if cause in {None, Cause.INCOMPLETE} else None


def _root_error(ending: Ending | None) -> RootError | None:
    if ending is None or ending.cause is not Cause.DISK_FULL:
        return None
    return RootError("disk_full", Cause.DISK_FULL, ending.reason, "free some space")


def _nothing_works(ending: Ending | None) -> str:
    is_so = ending is not None and ending.cause is Cause.BAD_CONFIG
    return ending.reason if ending is not None and is_so else ""
