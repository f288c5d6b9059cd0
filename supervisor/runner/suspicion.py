"""Whether a silent worker is hung: what it does is looked at before anybody calls it that.

Owns the samples, and the time that a worker could not use (stopped, frozen): it counts for no
deadline. The judging is `core.hang`'s. Samples are only taken of a worker that has been silent for
half of its deadline, so a lively one costs nothing.
"""

from collections import deque
from dataclasses import asdict, dataclass, replace
from typing import Protocol

from supervisor.core.activity import Activity, GpuActivity, over, starvation
from supervisor.core.evidence import DeadlineName
from supervisor.core.hang import Verdict, judge, window_s
from supervisor.host.activity import Sample, Sampler, between
from supervisor.host.pressure import pressure
from supervisor.runner.stage import Stage

SUSPECT_FROM = 0.5  # of the deadline, but a whole window before it at the latest
WINDOW_AHEAD = 1.5
SAMPLES_IN_WINDOW = 4


class Seen(Protocol):
    """What can be asked of a running attempt."""

    @property
    def main_pid(self) -> int:
        """The worker's main process."""

    def pids(self) -> frozenset[int]:
        """The processes of its tree."""

    def frozen(self) -> bool:
        """Whether its control group is frozen."""

    def gpus(self) -> tuple[GpuActivity, ...]:
        """What its GPUs did at the last look."""


@dataclass(frozen=True, slots=True)
class _Taken:
    at: float
    sample: Sample
    gpus: tuple[GpuActivity, ...]


class Suspicion:
    """One attempt, as far as it may be hung."""

    def __init__(self, loop: Stage, seen: Seen) -> None:
        self._loop = loop
        self._seen = seen
        self._signs = loop.job.settings.signs
        self._sampler = Sampler(seen.pids, seen.main_pid, clock=loop.clock)
        self._taken: deque[_Taken] = deque(maxlen=2 * SAMPLES_IN_WINDOW + 2)
        self._excused_at = loop.clock()

    def look(self) -> None:
        """Take a sample, if the worker has been silent for long and one is due."""
        due = self._loop.state.deadlines.next()
        if due is None or due[0] not in {DeadlineName.STARTUP, DeadlineName.HEARTBEAT}:
            self._taken.clear()
            return
        timeout_s = self._loop.state.timeouts.of(due[0])
        now = self._loop.clock()
        ahead_s = max(timeout_s * (1 - SUSPECT_FROM), WINDOW_AHEAD * window_s(timeout_s))
        if due[1] - now > ahead_s:
            self._taken.clear()
            return
        if not self._taken or now - self._taken[-1].at >= window_s(timeout_s) / SAMPLES_IN_WINDOW:
            self._take()
            self._excuse_if_kept()

    def judge(self, name: DeadlineName) -> Verdict:
        """Whether it is hung, now that its deadline has passed."""
        timeout_s = self._loop.state.timeouts.of(name)
        self._take()
        now = self._loop.clock()
        silent_s = now - max(self._loop.last_sign_at, self._excused_at)
        first = self._first(now - window_s(timeout_s))
        if first is None:  # this process itself did not run: it knows nothing of the worker yet
            return Verdict(kill=False, extra_s=window_s(timeout_s), reason="")
        verdict = judge(timeout_s, silent_s, self._activity(first))
        if verdict.excused:
            self._excused_at = now
        elif silent_s < timeout_s:  # it was stopped meanwhile: that was not its time
            return Verdict(kill=False, extra_s=timeout_s - silent_s, reason="")
        return verdict

    def _excuse_if_kept(self) -> None:
        """Somebody may stop it and let it go on between two deadlines."""
        last = self._taken[-1]
        if between(last.sample, last.sample).stopped or self._seen.frozen():
            self._excused_at = last.at

    def _take(self) -> None:
        taken = _Taken(self._loop.clock(), self._sampler.take(threads=True), self._seen.gpus())
        self._taken.append(taken)

    def _first(self, wanted_at: float) -> _Taken | None:
        """The sample at which the window begins: the youngest that is old enough, or the oldest."""
        old = [one for one in self._taken if one.at <= wanted_at]
        if old:
            return old[-1]
        return self._taken[0] if len(self._taken) > 1 else None

    def _activity(self, first: _Taken) -> Activity:
        """What the worker did since then, as far as job.yaml lets it count as life."""
        last = self._taken[-1]
        waits = pressure()
        seen = Activity(
            **asdict(between(first.sample, last.sample)),
            frozen=self._seen.frozen(),
            starved=starvation(waits.cpu_some, waits.memory_full, waits.io_full),
            gpus=self._gpus_since(first),
        )
        if "gpu" not in self._signs:
            seen = replace(seen, gpus=())
        if "cpu" not in self._signs:
            seen = replace(
                seen,
                cpu_share=0.0,
                cpu_wait_share=0.0,
                io_bytes_per_s=0.0,
                faults_per_s=0.0,
                births=0,
                runnable=(),
                uninterruptible=(),
            )
        return seen

    def _gpus_since(self, first: _Taken) -> tuple[GpuActivity, ...]:
        looks = [one.gpus for one in self._taken if one.at >= first.at]
        count = len(looks[-1])
        return tuple(over([look[n] for look in looks if len(look) == count]) for n in range(count))
