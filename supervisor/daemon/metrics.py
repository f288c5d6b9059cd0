"""`/metrics`: the daemon and its jobs as Prometheus text.

Owns the metrics' names, which docs/metrics.md documents, and how many series there may be: jobs
that run have some of their own, at most 200 of them. Never looks into a journal itself. Invariant:
a scrape costs what is new since the last one, and waits for no user's folder beyond a few seconds.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from supervisor import __version__
from supervisor.core.causes import Cause, State
from supervisor.daemon.contracts import Json, Refusal
from supervisor.daemon.metric_sums import MOST_RUNNING, Running, Sums, goodput
from supervisor.host.lean import structlog

Question = Coroutine[Any, Any, None]

REST_S = 600.0  # so long nobody asks after a user who has no job that waits or runs
PATIENCE_S = 5.0  # for all that is asked for one scrape


class MetricsSource(Protocol):
    """What the metrics ask of a daemon."""

    @property
    def lag_s(self) -> float:
        """How late the event loop was at worst, of late."""

    def waiting(self) -> int:
        """How many jobs wait in the queue."""

    def users(self) -> Sequence[int]:
        """The users who have jobs."""

    def busy(self) -> set[int]:
        """The users of whose jobs some wait or run, so that there may be news of them."""

    def started(self) -> Mapping[str, int] | None:
        """Whose each started job is; None where all that is told of is one user's."""

    async def totals(self, uid: int, after_seq: int | None, limit: int) -> Json:
        """`views.totals` of a user's journal, None where there is none. Raises Refusal."""

    async def gpus(self) -> list[Json]:
        """The GPUs as documents: `leases` with `job`, `processes` with `used_bytes`."""


class Metrics:
    """Answers scrapes; one object for the life of a daemon."""

    def __init__(self, source: MetricsSource) -> None:
        self._source = source
        self._sums: dict[int, Sums] = {}
        self._reading: dict[int | str, asyncio.Task[Any]] = {}
        self._unread: set[int] = set()
        self._busy: set[int] = set()
        self._asked_s: dict[int, float] = {}  # monotonic
        self._gpu_bytes: dict[str, float] = {}
        self._began = False
        self._registry = CollectorRegistry()
        self._registry.register(_Families(self))
        ProcessCollector(registry=self._registry)

    async def begin(self) -> None:
        """Note where the journals stand: counters count from here on. Raises nothing."""
        try:
            await self._together({uid: self._read(uid, known=True) for uid in self._source.users()})
        except Exception:  # noqa: BLE001 - jobs run without metrics, too
            structlog.get_logger().exception("the metrics cannot begin; the next scrape tries")
        else:
            self._began = True

    async def text(self) -> bytes:
        """One scrape, in the text format 0.0.4."""
        if not self._began:
            await self.begin()
        asked: dict[int | str, Question] = {"gpus": self._read_gpus()}
        asked |= {uid: self._read(uid, known=False) for uid in self._with_news()}
        await self._together(asked)
        return generate_latest(self._registry)

    async def close(self) -> None:
        """Leave what is still being waited for."""
        tasks = [*self._reading.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _together(self, asked: Mapping[Any, Question]) -> None:
        """Ask for all at once; who still thinks about the last question is not asked again."""
        for key, question in asked.items():
            if key in self._reading and not self._reading[key].done():
                question.close()
            else:
                self._reading[key] = asyncio.create_task(question)
        tasks = [self._reading[key] for key in asked]
        if tasks:
            done, _ = await asyncio.wait(tasks, timeout=PATIENCE_S)
            for task in done:
                task.result()
        late = {key for key in asked if not self._reading[key].done()}
        self._unread |= {key for key in late if isinstance(key, int)}

    def _with_news(self) -> list[int]:
        """Users who are busy or just were; the others are asked now and then.

        Who is asked needs a process of theirs, which a host with many users would keep for all.
        """
        now_s, busy = time.monotonic(), self._source.busy()
        asked = [
            uid
            for uid in self._source.users()
            if uid in busy | self._busy | self._unread
            or uid not in self._sums
            or not self._sums[uid].whole
            or now_s - self._asked_s.get(uid, -REST_S) >= REST_S
        ]
        self._busy = busy
        self._asked_s |= dict.fromkeys(asked, now_s)
        return asked

    async def _read(self, uid: int, *, known: bool) -> None:
        """Bring one user's sums up to date; a folder that cannot be read keeps its last figures."""
        sums = self._sums.get(uid)
        if sums is None:  # of a user who is new, all is new
            sums = self._sums[uid] = Sums() if known else Sums(seq=0)

        async def ask(after_seq: int | None, limit: int) -> Json:
            return await self._source.totals(uid, after_seq, limit)

        try:
            await sums.read(ask)
        except Refusal:
            self._unread.add(uid)
        except Exception as error:  # noqa: BLE001 - whatever one user answers is no other's trouble
            if uid not in self._unread:
                structlog.get_logger().warning("no figures", uid=uid, why=type(error).__name__)
            self._unread.add(uid)
        else:
            self._unread.discard(uid)

    async def _read_gpus(self) -> None:
        # The driver is left alone while nothing runs.
        self._gpu_bytes = gpu_bytes(await self._source.gpus()) if self.running else {}

    @property
    def running(self) -> list[Running]:
        """The running jobs that have series of their own, each as its owner tells of it."""
        started = self._source.started()
        every = {
            one.id: one
            for uid, sums in self._sums.items()
            for one in sums.running
            if started is None or started.get(one.id) == uid
        }
        return list(every.values())[:MOST_RUNNING]

    def families(self) -> Iterator[Metric]:
        """All metrics as they stand."""
        yield from self._of_jobs()
        yield from self._of_running(time.time())
        yield _gauge(
            "supervise_queue_waiting", "Jobs that wait in the queue.", self._source.waiting()
        )
        yield _gauge(
            "supervise_users_unreadable",
            "Users whose jobs could not be read for this scrape: their figures are older.",
            len(self._unread & self._sums.keys()),
        )
        yield _gauge(
            "supervise_daemon_loop_lag_seconds",
            "How late the daemon's event loop was at worst in the last minute.",
            self._source.lag_s,
        )
        info = GaugeMetricFamily("supervise_daemon_info", "Always 1.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info

    def _of_jobs(self) -> Iterator[Metric]:
        states: Counter[str] = Counter(dict.fromkeys(map(str, State), 0))
        attempts: Counter[str] = Counter(dict.fromkeys(map(str, Cause), 0))
        lost_s = dict.fromkeys(map(str, Cause), 0.0)
        for one in self._sums.values():
            states.update(one.states)
            attempts.update(one.attempts)
            for cause, cost in one.lost_s.items():
                lost_s[cause] = lost_s.get(cause, 0.0) + cost
        yield _by("supervise_jobs", "Jobs by state.", "state", states)
        about = "Attempts that ended, by cause, since the daemon began."
        yield _by("supervise_attempts", about, "cause", attempts)
        about = "Seconds that the ends of attempts cost, by cause, since the daemon began."
        yield _by("supervise_lost_seconds", about, "cause", lost_s)
        restarts = sum(one.restarts for one in self._sums.values())
        about = "Attempts that began after one that ended by a fault, since the daemon began."
        yield CounterMetricFamily("supervise_restarts", about, value=restarts)
        wall_s = sum(one.passed_s for one in self._sums.values())
        about = "Wall time of all jobs' attempts and of the waits between, since the daemon began."
        yield CounterMetricFamily("supervise_wall_seconds", about, value=wall_s)
        share = goodput(self._sums)
        if share is not None:
            about = "Share of the wall time of all jobs that was not lost to faults."
            yield _gauge("supervise_goodput_ratio", about, share)

    def _of_running(self, now_s: float) -> Iterator[Metric]:
        jobs = self.running
        steps = {one.id: one.step for one in jobs}
        yield _by("supervise_job_step", "Step of a running job.", "job", steps)
        about = "GPU memory of a running job, where it has its GPUs for itself."
        shown = {one.id: self._gpu_bytes.get(one.id) for one in jobs}
        yield _by("supervise_job_gpu_memory_bytes", about, "job", shown)
        about = "Age of the newest checkpoint of a running job that verified."
        written = {one.id: one.checkpoint_s for one in jobs}
        ages = {job: None if at is None else max(0.0, now_s - at) for job, at in written.items()}
        yield _by("supervise_checkpoint_age_seconds", about, "job", ages)


class _Families(Collector):
    """The metrics as the library takes them."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return self._metrics.families()

    def describe(self) -> Iterator[Metric]:
        return iter(())  # else it would collect once to find out


_COUNTERS = frozenset({"supervise_attempts", "supervise_lost_seconds"})


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(name, about, value=value)


def _by(name: str, about: str, label: str, figures: Mapping[str, float | None]) -> Metric:
    """One series for each figure that is known."""
    kind = CounterMetricFamily if name in _COUNTERS else GaugeMetricFamily
    family = kind(name, about, labels=[label])
    for value, figure in figures.items():
        if figure is not None:
            family.add_metric([value], figure)
    return family


def gpu_bytes(gpus: Sequence[Json]) -> dict[str, float]:
    """The memory of jobs that have their GPUs for themselves; of a shared one nobody knows whose.

    Where the driver names no process, as in a container, all that is used of the GPU counts.
    """
    found: dict[str, float] = {}
    unknown: set[str] = set()
    for gpu in gpus:
        jobs = {str(one["job"]) for one in gpu["leases"] if one["job"] is not None}
        figures = [one["used_bytes"] for one in gpu["processes"] or ()] or [gpu["used_bytes"]]
        if len(jobs) != 1 or None in figures:
            unknown |= jobs
            continue
        job = jobs.pop()
        found[job] = found.get(job, 0.0) + sum(figures)
    return {job: used for job, used in found.items() if job not in unknown}
