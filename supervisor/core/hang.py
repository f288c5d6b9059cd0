"""Whether a worker that has been silent for too long is hung, or only slow.

Owns the judgement, as one table read from top to bottom: the first row that holds says how many
timeouts of silence such a worker is worth. Looks at nothing itself. Invariant: silent and idle for
a whole window is a hang at once; everything else gets more time first, and all of it is bounded,
but for a worker that somebody keeps from running.

Activity is a weaker sign than progress. It stretches a deadline and never suspends it, because the
commonest hang of all is busy: ranks that wait in a collective spin on GPU and CPU. Such a GPU shows
100 % with hardly any power or memory traffic: 65 to 76 of 300 W (V100, pytorch #22671), about 100
of 700 W where 500 to 690 W is normal (H100, NeMo Speech #9291), 152 of 700 W (H100, nccl #1550).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from supervisor.core.activity import Activity, GpuActivity, Use, use_of

__all__ = ["Activity", "GpuActivity", "Verdict", "judge", "window_s"]

WORKING = 4.0  # timeouts: signs of changing work; the user's timeout was too short for this phase
BUSY = 2.0  # timeouts: a long computation and an endless loop look the same from outside
AT_ONCE = 1.0
NEVER = math.inf

# A window of seconds tells sleep from a pause; one of half a minute spans the wake-ups of most
# threads that only watch. A quarter of the timeout keeps looking quick where timeouts are.
SHORTEST_WINDOW_S = 2.0
LONGEST_WINDOW_S = 30.0
WINDOW_SHARE = 0.25
WINDOW_SLACK = 0.9  # clocks and schedulers are not exact
LOOK_AGAIN_S = 5.0  # after somebody keeps the worker from running: soon enough to see it go on
MOST_GPUS = 4  # in words; the others are alike


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with a silent worker, and why, in words for the journal.

    Without `kill`, look again in `extra_s`. `excused`: somebody keeps it from running, so that the
    silence until now does not count; its whole timeout begins anew.
    """

    kill: bool
    extra_s: float
    reason: str
    excused: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of silence: when it holds, how it is told, how many timeouts it is worth."""

    holds: Callable[[Activity], bool]
    words: Callable[[Activity], str]
    worth: float


def window_s(timeout_s: float) -> float:
    """How long a worker is looked at before it may be called idle, and how often."""
    return max(SHORTEST_WINDOW_S, min(timeout_s * WINDOW_SHARE, LONGEST_WINDOW_S))


def judge(timeout_s: float, silent_s: float, seen: Activity) -> Verdict:
    """What to do with a worker that gave no sign of progress for `silent_s`.

    Called when its deadline passed, and again after every `extra_s`, each time with the figures of
    the last `window_s(timeout_s)` seconds, or of all that was seen if that is less.
    """
    row = next(row for row in TABLE if row.holds(seen))
    if row.worth == NEVER:
        return Verdict(kill=False, extra_s=LOOK_AGAIN_S, reason=row.words(seen), excused=True)
    reason = f"no sign of progress for {silent_s:.0f} s, {row.words(seen)}: {_told(seen)}"
    left_s = row.worth * timeout_s - silent_s
    window = window_s(timeout_s)
    if silent_s < WORKING * timeout_s and seen.window_s < WINDOW_SLACK * window:
        # Whatever it did before the window began was not seen.
        return Verdict(kill=False, extra_s=window - seen.window_s, reason=reason)
    if left_s > 0:
        return Verdict(kill=False, extra_s=min(window, left_s), reason=reason)
    if row.worth > AT_ONCE:
        reason += f"; a worker of which no more is seen gets {row.worth:g} x {timeout_s:g} s"
    return Verdict(kill=True, extra_s=0.0, reason=reason)


def _spins(seen: Activity) -> bool:
    """Ranks that wait for another spin; the one they wait for may not use its GPU at all.

    Whether a CPU spins too depends on how the program waits for its GPU, and proves nothing.
    """
    uses = {use_of(gpu) for gpu in seen.gpus}
    return seen.calm and Use.SPINNING in uses and uses <= {Use.SPINNING, Use.IDLE}


def _works(seen: Activity) -> bool:
    return not seen.calm or any(use_of(gpu) is Use.WORKING for gpu in seen.gpus)


def _busy(seen: Activity) -> bool:
    return not seen.cpu_idle or any(use_of(gpu) is not Use.IDLE for gpu in seen.gpus)


def _kept(what: str, pids: Callable[[Activity], tuple[int, ...]], so: str) -> Row:
    """A row about somebody who keeps the worker from running."""
    return Row(
        holds=lambda seen: bool(pids(seen)),
        words=lambda seen: f"{what} (pid {_listed(pids(seen))}): {so.format(_listed(pids(seen)))}",
        worth=NEVER,
    )


TABLE: tuple[Row, ...] = (
    _kept("stopped by a signal", lambda seen: seen.stopped, "`kill -CONT {}` lets it go on"),
    _kept("halted by a debugger", lambda seen: seen.traced, "it goes on when that lets it"),
    Row(
        holds=lambda seen: seen.frozen,
        words=lambda _: "its cgroup is frozen: it goes on when somebody thaws it",
        worth=NEVER,
    ),
    Row(
        holds=_spins,
        words=lambda _: "and spinning, as in a collective that nobody else joins",
        worth=AT_ONCE,
    ),
    Row(
        holds=lambda seen: bool(seen.hindered),
        words=lambda seen: f"and process {_listed(seen.hindered)} of it is stopped or traced",
        worth=WORKING,
    ),
    Row(
        holds=lambda seen: bool(seen.starved) and seen.wants_host,
        words=lambda seen: f"on a starved host ({seen.starved})",
        worth=WORKING,
    ),
    Row(
        holds=lambda seen: seen.cpu_starved,
        words=lambda seen: (
            f"kept from a CPU for {100 * seen.cpu_wait_share:.0f} % of a core's time"
        ),
        worth=WORKING,
    ),
    Row(holds=_works, words=lambda _: "but working", worth=WORKING),
    Row(
        holds=lambda seen: bool(seen.uninterruptible),
        words=lambda seen: f"waiting in the kernel (pid {_listed(seen.uninterruptible)})",
        worth=WORKING,
    ),
    Row(holds=_busy, words=lambda _: "but busy, whether with work is not to be seen", worth=BUSY),
    Row(holds=lambda _: True, words=lambda _: "and idle", worth=AT_ONCE),
)


def _listed(pids: tuple[int, ...]) -> str:
    return " ".join(map(str, pids))


def _told(seen: Activity) -> str:
    """The figures, for people."""
    return ", ".join(_figures(seen))


def _figures(seen: Activity) -> Iterator[str]:
    yield f"CPU {100 * seen.cpu_share:.1f} % of a core"
    yield f"I/O {seen.io_bytes_per_s / 1e6:.3g} MB/s" if seen.io_bytes_per_s >= 1 else "no I/O"
    if seen.faults_per_s >= 1:
        yield f"{seen.faults_per_s:.0f} page faults/s"
    if seen.births:
        yield f"{seen.births} new process{'es' if seen.births > 1 else ''}"
    for number, gpu in enumerate(seen.gpus[:MOST_GPUS]):
        yield f"GPU{f' {number}' if len(seen.gpus) > 1 else ''} {_gpu_told(gpu)}"
    if len(seen.gpus) > MOST_GPUS:
        yield f"and {len(seen.gpus) - MOST_GPUS} more GPUs"


def _gpu_told(gpu: GpuActivity) -> str:
    if gpu.utilization is None:
        return "unknown"
    told = f"{gpu.utilization:.0f} %"
    if gpu.power_w is not None and gpu.power_limit_w:
        told += f" at {gpu.power_w:.0f} of {gpu.power_limit_w:.0f} W"
    if gpu.memory_utilization is not None:
        told += f" with {gpu.memory_utilization:.0f} % memory traffic"
    return told
