"""From evidence to cause: a table read from top to bottom, the first row that speaks wins.

Owns the precedence and nothing else. Each row answers with its reason in words, or None. The order
says: facts about ourselves first (we lost it, we never started it, we stopped it), then what the
job's own definition of done says, then the kernel's word, then the log's, then the bare status.
"""

import signal
from collections.abc import Callable
from dataclasses import dataclass

from supervisor.core.causes import Cause
from supervisor.core.evidence import DeadlineName, Evidence, Limit
from supervisor.core.gpu import Severity
from supervisor.core.reported import REPORTED, reported, said, was_loading
from supervisor.core.status import signal_of, status_words

NOT_EXECUTABLE, NOT_FOUND = 126, 127  # POSIX: a shell's words for these two
_FULL = frozenset({28, 122})  # ENOSPC, EDQUOT
# Signals that no program sends itself by being broken.
_FROM_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the precedence table."""

    cause: Cause
    reason: Callable[[Evidence], str | None]


def _rebooted(seen: Evidence) -> str | None:
    return "the host was restarted while the attempt ran" if seen.host_rebooted else None


def _runner_lost(seen: Evidence) -> str | None:
    return "its runner died, and the worker with it" if seen.runner_lost else None


def _spawn_failed(seen: Evidence) -> str | None:
    return seen.spawn_error.message if seen.spawn_error else None


def _no_room_to_spawn(seen: Evidence) -> str | None:
    error = seen.spawn_error
    return error.message if error and error.errno in _FULL else None


def _unkillable(seen: Evidence) -> str | None:
    if not seen.survivors:
        return None
    pids = ", ".join(map(str, seen.survivors))
    return f"SIGKILL did not end process {pids} (uninterruptible sleep?)"


def _completed(seen: Evidence) -> str | None:
    if seen.done:  # which exit code that takes, 0 or another, is part of the job's definition
        status = status_words(seen)
        return status if seen.done_detail == status else f"{status}, and done: {seen.done_detail}"
    if seen.exit_code != 0 or seen.done is False or seen.stop_requested or seen.deadline:
        return None
    if seen.breach is not None or _ending_trouble(seen) is not None:
        return None  # it was asked to leave, and did
    return "exit code 0"


def _stopped(seen: Evidence) -> str | None:
    if not seen.stop_requested:
        return None
    late = " after the grace period was over" if seen.deadline is DeadlineName.STOP else ""
    return f"stopped on request{late}: {status_words(seen)}"


def _fired(name: DeadlineName, words: str) -> Callable[[Evidence], str | None]:
    def reason(seen: Evidence) -> str | None:
        if seen.deadline is not name:
            return None
        return seen.hang or words.format(seen.deadline_s)

    return reason


def _breached(*limits: Limit) -> Callable[[Evidence], str | None]:
    def reason(seen: Evidence) -> str | None:
        breach = seen.breach
        if breach is None or breach.limit not in limits:
            return None
        used, allowed = gib(breach.used_bytes), gib(breach.limit_bytes)
        where = f" on {breach.where}" if breach.where else ""
        asked = "; it was asked to save and leave" if breach.limit.asks else ""
        return f"its processes used {used}{where}, resources.{breach.limit} is {allowed}{asked}"

    return reason


def gib(count: int) -> str:
    """Bytes in the unit in which people buy memory."""
    return f"{count / (1 << 30):.2f} GiB"


def _ending_trouble(seen: Evidence) -> str | None:
    """What makes a GPU unfit for any program, if one of the attempt's is."""
    return next((one.text for one in seen.gpu_troubles if one.ends_attempt), None)


def _hung_driver(seen: Evidence) -> str | None:
    """The driver did not answer us either: that is why the worker did not get on."""
    if seen.deadline not in {DeadlineName.STARTUP, DeadlineName.HEARTBEAT}:
        return None
    return next((one.text for one in seen.gpu_troubles if one.spoils_gpu), None)


def _restart_trouble(seen: Evidence) -> str | None:
    """The driver ended the program's work on the GPU, and nothing in the log says why."""
    text = next((o.text for o in seen.gpu_troubles if o.severity is Severity.RESTART), None)
    return None if text is None else f"{text} ({status_words(seen)})"


def _struck(seen: Evidence) -> bool:
    """Whether it died of what the kernel killed, and not of some other error later on.

    A loader that is gone, and ranks that wait for one that is, are what such a kill looks like.
    """
    error, number = seen.root_error, signal_of(seen)
    if number in _FROM_OUTSIDE:
        return number == signal.SIGKILL
    return error is None or error.cause in {Cause.DATALOADER, Cause.NCCL}


def _end_words(seen: Evidence) -> str:
    """The exit status; where the main process was not struck itself, also what it said to it."""
    return status_words(seen) if signal_of(seen) == signal.SIGKILL else _exit_code(seen)


def _own_memory_limit(seen: Evidence) -> str | None:
    oom = seen.oom
    if oom is None or not oom.of_limit or not _struck(seen):
        return None
    limit = "" if oom.limit_bytes is None else f" of {gib(oom.limit_bytes)}"
    return f"the kernel killed it at a memory limit{limit} ({oom.source}; {_end_words(seen)})"


def _incomplete(seen: Evidence) -> str | None:
    if seen.exit_code == 0 and seen.done is False:
        return f"exit code 0, but not done: {seen.done_detail}"
    return None


def _host_oom(seen: Evidence) -> str | None:
    if seen.oom is not None and _struck(seen):
        how = f"{seen.oom.source}; {_end_words(seen)}"
        return f"the kernel's OOM killer struck it: the host ran out of memory ({how})"
    if signal_of(seen) == signal.SIGKILL and seen.oom_kills:
        return (
            "killed, while the kernel's OOM killer killed something on this host (whom it killed "
            "cannot be read here: see `supervise doctor`)"
        )
    return None


def _logged(cause: Cause) -> Callable[[Evidence], str | None]:
    def reason(seen: Evidence) -> str | None:
        error = seen.root_error
        if error is None or error.cause is not cause or (error.early_only and seen.progressed):
            return None
        if cause is Cause.BAD_CHECKPOINT and not was_loading(seen):
            return None  # some other file of the job is broken
        return f"{error.line} ({status_words(seen)}); {error.hint}"

    return reason


def _disk_was_full(seen: Evidence) -> str | None:
    """Its last words may be missing for the same reason: the log lies on a disk, too."""
    if not seen.no_room or seen.root_error is not None:
        return None
    return f"{status_words(seen)}, with a full disk: {seen.no_room}"


def _bus_error(seen: Evidence) -> str | None:
    if signal_of(seen) == signal.SIGBUS:
        return f"{status_words(seen)}: mostly a full /dev/shm (docker: --shm-size)"
    return None


def _no_command(seen: Evidence) -> str | None:
    if seen.exit_code in {NOT_EXECUTABLE, NOT_FOUND} and not seen.progressed:
        return f"{status_words(seen)}: the shell could not run the command"
    return None


def _outside_signal(seen: Evidence) -> str | None:
    if signal_of(seen) in _FROM_OUTSIDE:
        return f"{status_words(seen)}, sent from outside (not by supervise)"
    return None


def _own_signal(seen: Evidence) -> str | None:
    return status_words(seen) if signal_of(seen) is not None else None


def _exit_code(seen: Evidence) -> str:
    if seen.report is not None and seen.exit_code != 0:
        return f"{status_words(seen)}: {said(seen.report)}"
    return f"{status_words(seen)}: {seen.error_line}" if seen.error_line else status_words(seen)


def _nothing_works(seen: Evidence) -> str | None:
    return seen.nothing_works or None


def _quarantined(seen: Evidence) -> str | None:
    """All that could be done is done, and some items are left over for a person."""
    if not seen.items_quarantined or seen.stop_requested or seen.exit_code != 0:
        return None
    return seen.done_detail or f"{seen.items_quarantined} items are quarantined"


# What a log line may prove, in the order in which it is believed.
_LOGGED = (
    Cause.DISK_FULL,
    Cause.GPU_HARDWARE,
    Cause.CUDA_OOM,
    Cause.CUDA_ERROR,
    Cause.SIGNAL,
    Cause.NCCL,
    Cause.SHM,
    Cause.DATALOADER,
    Cause.BAD_CHECKPOINT,
    Cause.BAD_CONFIG,
)

PRECEDENCE: tuple[Row, ...] = (
    Row(Cause.HOST_REBOOTED, _rebooted),
    Row(Cause.RUNNER_LOST, _runner_lost),
    Row(Cause.DISK_FULL, _no_room_to_spawn),
    Row(Cause.SPAWN_FAILED, _spawn_failed),
    Row(Cause.UNKILLABLE, _unkillable),
    Row(Cause.BAD_CONFIG, _nothing_works),
    Row(Cause.POISON_ITEM, _quarantined),
    Row(Cause.COMPLETED, _completed),
    Row(Cause.STOPPED, _stopped),
    Row(Cause.TOTAL_TIMEOUT, _fired(DeadlineName.TOTAL, "ran for its whole {:g} s")),
    Row(Cause.HOST_MEMORY_LIMIT, _breached(Limit.MEMORY)),
    Row(Cause.GPU_MEMORY_LIMIT, _breached(Limit.GPU_MEMORY)),
    Row(Cause.GPU_HARDWARE, _ending_trouble),
    Row(Cause.GPU_HARDWARE, _hung_driver),
    Row(Cause.GPU_MEMORY_LIMIT, _breached(Limit.GPU_MEMORY_SOFT)),
    Row(Cause.STARTUP_TIMEOUT, _fired(DeadlineName.STARTUP, "no sign of progress in {:g} s")),
    Row(Cause.HANG, _fired(DeadlineName.HEARTBEAT, "no sign of progress for {:g} s")),
    Row(Cause.INCOMPLETE, _incomplete),
    Row(Cause.HOST_MEMORY_LIMIT, _own_memory_limit),
    Row(Cause.HOST_OOM, _host_oom),
    Row(Cause.SIGNAL, _outside_signal),
    *(Row(cause, reported(kind)) for kind, cause in REPORTED.items()),
    *(Row(cause, _logged(cause)) for cause in _LOGGED),
    Row(Cause.DISK_FULL, _disk_was_full),
    Row(Cause.CUDA_ERROR, _restart_trouble),
    Row(Cause.SHM, _bus_error),
    Row(Cause.BAD_CONFIG, _no_command),
    Row(Cause.SIGNAL, _own_signal),
    Row(Cause.NON_FINITE, _logged(Cause.NON_FINITE)),
    Row(Cause.EXIT_CODE, _exit_code),
)


def classify(seen: Evidence) -> tuple[Cause, str]:
    """The cause of the first row that speaks, with its reason. The last row always speaks."""
    said = ((row.cause, row.reason(seen)) for row in PRECEDENCE)
    return next((cause, reason) for cause, reason in said if reason is not None)
