"""What was said in a session so far, and what of it is news.

Owns the record, one entry for each process that reports. Does no I/O. Invariant: only a step that
has changed is a sign of progress; saying the same again is a sign of life, which counts for
nothing.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from supervisor.core.cadence import LONGEST_S
from supervisor.core.evidence import ErrorReport
from supervisor.watch.progress import Progress
from workers import reports

PHASE_LIMIT_S = LONGEST_S  # of a phase that does not say: what a job of no known cadence gets
MOST_DEAD = 64
OUTLIVED_S = 60.0  # steps so long after the death of a process: it was not what counts
MOST_DETAILS, DETAIL_CHARACTERS = 32, 4000
# What one process dies of when another one has: the other's word tells more.
CASCADES = frozenset({"nccl", "dataloader", "error"})


class Ears(Protocol):
    """Who is told what is news."""

    async def progressed(self, progress: Progress, *, is_sign: bool) -> None:
        """A process said how far it is."""

    async def phase_began(self, name: str, limit_s: float) -> None:
        """Silence is to be expected for at most so long."""

    async def phases_ended(self) -> None:
        """No phase is left: progress is expected again."""

    async def published(self) -> None:
        """A checkpoint lies there, whole."""


@dataclass(slots=True)
class Speaker:
    """One process that reports. `error` is what it says that it dies of, `told_at` when it did."""

    pid: int
    hello: reports.Hello
    listens: bool = False
    step: int | None = None
    gpu_bytes: int | None = None
    phases: set[int] = field(default_factory=set)
    error: ErrorReport | None = None
    told_at: float = 0.0


class Said:
    """All that an attempt's processes said; `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.speakers: list[Speaker] = []
        self.step: int | None = None
        self.finished: bool | None = None  # None until anybody says anything
        self._clock = clock
        self._dead: list[Speaker] = []

    @property
    def error(self) -> ErrorReport | None:
        """The report that tells most: the first that is no mere consequence of another's."""
        told = [one for one in (*self._dead, *self.speakers) if one.error is not None]
        errors = [one.error for one in sorted(told, key=lambda one: one.told_at) if one.error]
        own = [one for one in errors if one.kind not in CASCADES]
        return next(iter(own or errors), None)

    def own_gpu_bytes(self) -> int | None:
        """What all processes together hold on GPUs by their own account; None where none knows."""
        known = [one.gpu_bytes for one in self.speakers if one.gpu_bytes is not None]
        return sum(known) if known else None

    async def take(self, speaker: Speaker, report: object, ears: Ears | None) -> None:
        """Take in one message; without ears it is only remembered."""
        self.finished = bool(self.finished)
        match report:
            case reports.Progressed():
                await self._progressed(speaker, report, ears)
            case reports.Listens():
                speaker.listens = True
            case reports.PhaseBegan(number=number, name=name, limit_s=limit_s):
                speaker.phases.add(number)
                if ears is not None:
                    await ears.phase_began(name, PHASE_LIMIT_S if limit_s is None else limit_s)
            case reports.PhaseEnded(number=number):
                await self._ended(speaker, {number}, ears)
            case reports.Published() if ears is not None:
                await ears.published()
            case reports.Errored() if speaker.error is None:
                speaker.error = _as_evidence(report, speaker.hello.rank)
                speaker.told_at = self._clock()
            case reports.Outcome(word="finished"):
                self.finished = True

    async def gone(self, speaker: Speaker, ears: Ears | None) -> None:
        """It reports no more: it has ended, or hung up."""
        self.speakers.remove(speaker)
        if speaker.error is not None and len(self._dead) < MOST_DEAD:
            self._dead.append(speaker)
        await self._ended(speaker, set(speaker.phases), ears)

    async def _progressed(
        self, speaker: Speaker, report: reports.Progressed, ears: Ears | None
    ) -> None:
        is_news = report.step != speaker.step
        speaker.step, speaker.gpu_bytes = report.step, report.gpu_bytes
        told = speaker.error
        if told is not None and (told.step is None or report.step > told.step):
            speaker.error = None  # it outlived that; the step of the error itself comes after it
        first = min(self._stepping(), key=lambda one: one.hello.rank)
        if speaker is not first:
            shown = Progress()  # the first of equals speaks for all
        else:
            outlived = self._clock() - OUTLIVED_S
            self._dead = [one for one in self._dead if one.told_at > outlived]
            self.step = report.step
            shown = Progress(
                step=report.step,
                total=report.total,
                loss=report.metrics.get("loss"),
                epoch=report.metrics.get("epoch"),
            )
        if ears is not None:
            await ears.progressed(shown, is_sign=is_news)

    def _stepping(self) -> list[Speaker]:
        """Those who count steps, in the order in which they came."""
        return [one for one in self.speakers if one.step is not None]

    async def _ended(self, speaker: Speaker, numbers: set[int], ears: Ears | None) -> None:
        ended = speaker.phases & numbers
        speaker.phases -= ended
        if ended and ears is not None and not any(one.phases for one in self.speakers):
            await ears.phases_ended()


def _as_evidence(report: reports.Errored, rank: int) -> ErrorReport:
    details = [(name, _text(value)) for name, value in report.details.items()]
    return ErrorReport(
        kind=report.kind,
        type_name=report.type_name,
        message=report.message,
        step=report.step,
        rank=rank,
        details=tuple(details[:MOST_DETAILS]),
    )


def _text(value: object) -> str:
    text = str(value)
    return text if len(text) <= DETAIL_CHARACTERS else text[:DETAIL_CHARACTERS] + " …"
