"""What is done when a runner is gone: one method for each word of `ending.Next`.

Owns carrying it out: the queue is told first, then whoever waits. Which of them follows is judged
in `ending`. Invariant: what happened to a job is stored in the queue, however long its disk
refuses; a shelf that cannot be used is waited for SILENT_S, for its job keeps others from a place.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

from supervisor.core.causes import State
from supervisor.daemon.contracts import NoSuchJob, Refusal, ShelfUnavailable, Shelves
from supervisor.daemon.ending import Next, lost_after, wait_s
from supervisor.daemon.gpus import GpuDesk
from supervisor.daemon.roster import Roster
from supervisor.host import identity
from supervisor.host.lean import structlog
from supervisor.queue.model import Entry, Phase

UNSTORED_S = 2.0
LONGEST_S = 60.0
SILENT_S = 600.0  # a file server may be away for minutes; an admin need not wait
UNTOLD = "it was to be cancelled, and its owner's folder of jobs could not be told; cancel it again"
FAILURES = frozenset({State.FAILED, State.HOLDING})


@dataclass(frozen=True, slots=True)
class Means:
    """What the aftermath works on. `settled` is told of each job that has left its runner."""

    roster: Roster
    shelves: Shelves
    gpus: GpuDesk
    settled: Callable[[str], None]
    relaunch: Callable[[Entry, float], None]
    judge_again: Callable[[str, float], None]


class Overtaken(Exception):
    """Its owner wished something else while the disk refused: what follows is judged anew."""


class Aftermath:
    """Carries out what follows the end of a runner."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._boot = identity.boot_id()
        self._log = structlog.get_logger()

    async def carry_out(self, following: Next, entry: Entry, lived_s: float) -> None:
        """Do it; `entry` has the job's state and why, as the journal has them."""
        try:
            await _TABLE[following](self, entry, lived_s)
        except Overtaken:
            self._means.judge_again(entry.id, lived_s)

    async def _end(self, entry: Entry, _lived_s: float = 0.0) -> None:
        """The job is where only a person brings it on, or at its end."""
        self._means.gpus.gone(entry.id)
        now = time.time()

        def end() -> None:
            # What its owner wished meanwhile is kept.
            latest = self._means.roster.get(entry.id) or entry
            ended = replace(
                latest, phase=Phase.ENDED, state=entry.state, why=entry.why, ended_s=now, lost=0
            )
            self._means.roster.change(ended, "Ended", state=entry.state)

        await self._commit(end, entry)
        await self._commit(lambda: self._count(entry))
        self._means.settled(entry.id)

    async def _settle(self, entry: Entry, lived_s: float) -> None:
        """Write into the journal that its owner cancelled it, then end."""
        asked = {"id": entry.id, "source": "supervise cancel"}
        pause_s = UNSTORED_S
        now = asyncio.get_running_loop().time
        until_s = now() + SILENT_S
        while True:
            try:
                await self._means.shelves.of(entry.uid).ask("conclude_cancel", asked)
            except NoSuchJob:  # nothing is left that could go on
                break
            except Refusal as error:  # somebody looks after it, or its disk is full: later, then
                self._log.warning("not cancelled yet", job=entry.id, why=str(error))
                if isinstance(error, ShelfUnavailable) and now() >= until_s:
                    await self._end(replace(entry, state=State.HOLDING, why=UNTOLD))
                    return
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_S)
            else:
                break
        await self._end(replace(entry, state=State.CANCELLED, why="cancelled"), lived_s)

    async def _park(self, entry: Entry, _lived_s: float) -> None:
        """It goes on in its old place when the host, or the daemon, is back."""
        self._means.gpus.gone(entry.id)
        waiting = replace(entry, phase=Phase.WAITING, placed_s=None)
        await self._commit(
            lambda: self._means.roster.change(waiting, "Parked", state=entry.state), entry
        )
        self._means.settled(entry.id)

    async def _again(self, entry: Entry, lived_s: float) -> None:
        """The runner died; its worker with it. Another one takes the job over."""
        lost = lost_after(entry, lived_s)
        again = replace(entry, lost=lost, launches=entry.launches + 1, boot_id=self._boot)
        detail = {"lived_s": round(lived_s, 3), "why": entry.why}
        await self._commit(lambda: self._means.roster.change(again, "RunnerLost", **detail), entry)
        self._means.relaunch(again, wait_s(lost))

    async def _give_up(self, entry: Entry, lived_s: float) -> None:
        """Runners die as soon as they are started: a person is needed."""
        last = entry.why or "they left no word"
        why = (
            f"{entry.lost + 1} runners in a row ended within a minute ({last}); "
            f"see: supervise logs --runner {entry.id}"
        )
        await self._end(replace(entry, state=State.HOLDING, why=why), lived_s)

    def _count(self, entry: Entry) -> None:
        """Failures of a group in a row hold it."""
        if entry.group is None or entry.state not in FAILURES | {State.SUCCEEDED}:
            return
        group = self._means.roster.group(entry.uid, entry.group)
        if entry.state is State.SUCCEEDED:
            if group.failures:
                self._means.roster.change_group(replace(group, failures=0), "GroupRecovered")
            return
        failures = group.failures + 1
        held = group.held or (group.hold_after is not None and failures >= group.hold_after)
        kind = "GroupHeld" if held and not group.held else "GroupFailed"
        self._means.roster.change_group(
            replace(group, failures=failures, held=held), kind, job=entry.id
        )

    async def _commit(self, change: Callable[[], None], of: Entry | None = None) -> None:
        """Store a change; a full disk is waited out, for what happened cannot be undone.

        Raises:
            Overtaken: the wish about `of` is another one now.
        """
        while True:
            latest = None if of is None else self._means.roster.get(of.id)
            if of is not None and latest is not None and latest.wish is not of.wish:
                raise Overtaken
            try:
                change()
            except Refusal as error:
                self._log.warning("not stored", why=str(error))
                await asyncio.sleep(UNSTORED_S)
            else:
                return


_TABLE: dict[Next, Callable[[Aftermath, Entry, float], Coroutine[Any, Any, None]]] = {
    Next.END: Aftermath._end,  # noqa: SLF001 - the class's own
    Next.SETTLE: Aftermath._settle,  # noqa: SLF001 - the class's own
    Next.PARK: Aftermath._park,  # noqa: SLF001 - the class's own
    Next.AGAIN: Aftermath._again,  # noqa: SLF001 - the class's own
    Next.GIVE_UP: Aftermath._give_up,  # noqa: SLF001 - the class's own
}
