"""A job's checkpoints, as its runner deals with them: survey while it runs, choose in between.

Owns the joint of `supervisor.checkpoint`, the memory tier and the journal. All disk work is done in
the disk thread. A verified checkpoint on disk is copied before anybody relies on it, so that a
script which writes in place or deletes too early cannot take it away; a snapshot in memory is not.
"""

import json
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from supervisor.checkpoint import (
    CheckpointError,
    Chosen,
    DiskFull,
    Fingerprint,
    Found,
    Layout,
    PinFailed,
    Pins,
    Query,
    Rejected,
    Verdict,
    choose,
    find,
    look,
    retain,
    rewrite_pointer,
)
from supervisor.checkpoint.promote import remove_leftovers
from supervisor.checkpoint.verdict import Kind
from supervisor.core.events import CheckpointChosen, CheckpointVerified, Event, RejectedCheckpoint
from supervisor.journal import Journal, JournalUnavailable
from supervisor.runner.disk import DiskThread
from supervisor.runner.opening import OpenJob
from supervisor.runner.tiers import MemoryTier
from supervisor.spec.job import JobSpec
from supervisor.spec.presets import SESSION

NS_PER_S = 1e9


class JournalMemory:
    """Remembers verdicts in the journal, through a connection of the disk thread's own.

    While the journal refuses (its disk is full), nothing is remembered: that costs a second
    reading, and must not cost a training that works.
    """

    def __init__(self, state_dir: Path, job_id: str) -> None:
        self._state_dir = state_dir
        self._job_id = job_id
        self._opened: Journal | None = None

    def get(self, path: Path, fingerprint: Fingerprint) -> Verdict | None:
        """What verification found of this very file."""
        with suppress(JournalUnavailable):
            text = self._journal.recall(self._job_id, _key(path), fingerprint.token)
            return None if text is None else Verdict.from_dict(json.loads(text))
        return None

    def put(self, path: Path, fingerprint: Fingerprint, verdict: Verdict) -> None:
        """Remember it for as long as the file stays what it is."""
        text = json.dumps(verdict.to_dict())
        with suppress(JournalUnavailable):
            self._journal.remember(self._job_id, _key(path), fingerprint.token, text)

    @property
    def _journal(self) -> Journal:
        if self._opened is None:
            self._opened = Journal.open(self._state_dir)
        return self._opened


def _key(path: Path) -> str:
    """The path as text that a database takes: a file's name may be any bytes."""
    return os.fsencode(path).decode(errors="backslashreplace")


class Checkpoints:
    """One job's checkpoints. A job without a `checkpoint` section has none, and nothing to fear."""

    def __init__(self, job: OpenJob, disk: DiskThread) -> None:
        self._disk = disk
        layout = job.settings.layout
        self._keeper = None if layout is None else Keeper(job, layout)

    @property
    def unsettled(self) -> bool:
        """The last survey saw a checkpoint that was still being written: look again."""
        return self._keeper is not None and self._keeper.unsettled

    async def survey(self, *, worker_lives: bool) -> CheckpointVerified | None:
        """The newest checkpoint that verifies, if it was not known before."""
        if self._keeper is None:
            return None
        return await self._disk.run(self._keeper.survey, worker_lives=worker_lives)

    async def last_survey(self) -> tuple[CheckpointVerified, ...]:
        """What verifies once no worker lives and was not known: first of the disk, then newer ones.

        Those in memory are looked at here alone: while a worker lives, nobody needs them.
        """
        if self._keeper is None:
            return ()
        return await self._disk.run(self._keeper.last_survey)

    async def choose(self, below: int | None) -> tuple[Event, ...]:
        """What the next attempt starts from, as the events that say so.

        Raises:
            DiskFull: the chosen checkpoint could not be copied.
            CheckpointError: a bad one could not be moved out of the way, or a good one put back.
        """
        if self._keeper is None:
            return (CheckpointChosen(None, None),)
        return await self._disk.run(self._keeper.choose, below)


class Keeper:
    """The disk side. Every method runs in the disk thread, the constructor does not."""

    def __init__(self, job: OpenJob, layout: Layout) -> None:
        self._layout = layout
        self._job = job
        self._tier = MemoryTier.of(job)
        self._pins: Pins | None = None
        self._memory = JournalMemory(job.state_dir, job.id)
        self._known: Fingerprint | None = None
        self._resumed: Path | None = None
        self._expect = Kind.PUBLISHED if _is_published(job.spec) else None
        self._told: tuple[str, bool] | None = None
        self._told_snapshot = ""
        self._newest_step = -1
        self._kept_step: int | None = None  # None: look at the copies
        self.unsettled = False

    @property
    def pins(self) -> Pins:
        """The copies; leftovers of a runner that was killed while copying are cleaned up first."""
        if self._pins is None:
            self._pins = Pins(self._job.folder.pins)
        return self._pins

    def survey(self, *, worker_lives: bool) -> CheckpointVerified | None:
        """Verify from the newest down to the first good one; copy it; None if it was known."""
        self.unsettled = False
        for found in find(self._layout).found:
            if found.fingerprint == self._known:
                return None
            verdict = look(
                found, self._layout, self._memory, expect=self._expect, worker_lives=worker_lives
            )
            self.unsettled |= verdict.changing
            if verdict.ok:
                if found.step < self._kept():
                    return None  # what came after it is damaged, and our copy of that is not
                news = self._keep(found, verdict)
                if found.fingerprint == self._known:
                    self._retain()
                return news
        return None

    def last_survey(self) -> tuple[CheckpointVerified, ...]:
        """Both tiers, after the end of a worker: what is news."""
        saved = self.survey(worker_lives=False)
        snapshot = None if self._tier is None else self._tier.newest()
        news = snapshot and snapshot.step > self._newest_step and self._news_of(snapshot)
        return tuple(one for one in (saved, news) if one)

    def choose(self, below: int | None) -> tuple[Event, ...]:
        """Find what to resume from in both tiers, put it in place, and keep a copy of it."""
        if self._tier is not None:
            remove_leftovers(self._layout.root)
        snapshot, passed = (None, ()) if self._tier is None else self._tier.choose(below)
        # A sick checkpoint is hidden, or the attempt after the next would choose it again.
        query = Query(below=below, expect=self._expect, hide=below is not None)
        if snapshot is not None:
            query = replace(query, at_least=snapshot.step)
        choice = choose(self._layout, self._memory, self.pins, query)
        chosen = choice.checkpoint or snapshot
        in_memory = chosen is not None and chosen is snapshot
        self._resumed = None if chosen is None else chosen.path
        self._newest_step = -1 if chosen is None else chosen.step
        if chosen is None or below is not None:
            self._kept_step = -1  # what was copied of a sick run is to be replaced
        if chosen is not None and _key(chosen.path) != str(chosen.path):
            raise CheckpointError(
                f"the name of checkpoint {_key(chosen.path)} is not UTF-8, so it can be neither "
                "journaled nor handed over; rename it, then run the same command again"
            )
        if self._job.settings.in_place:
            rewrite_pointer(self._layout, chosen)
        event = CheckpointChosen(
            path=None if chosen is None else str(chosen.path),
            step=None if chosen is None else chosen.step,
            # What was set aside earlier counts: without it a crash in between would look like a
            # job that never had a checkpoint. What was only in memory does not.
            candidates=choice.considered + len(choice.aside),
            restored=chosen is not None and chosen.restored_from_pin,
            rejected=tuple(map(_rejected, (*passed, *choice.rejected))),
            tier="memory" if in_memory else "disk",
        )
        if chosen is None:
            return (event,)
        found = chosen.found
        event = replace(event, written_at_s=found.fingerprint.mtime_ns / NS_PER_S)
        if in_memory:
            verified = self._news_of(chosen)
        else:
            verified = self._keep(found, chosen.verdict, must_pin=True)
        return (event,) if verified is None else (verified, event)

    def _kept(self) -> int:
        """The step whose copy is not given up for that of an earlier one; -1 if there is none."""
        if self._kept_step is None:
            try:
                newest = self.pins.newest()
            except PinFailed:  # nor can another copy be made there
                return -1
            self._kept_step = -1 if newest is None else newest.step
        return self._kept_step

    def _news_of(self, snapshot: Chosen) -> CheckpointVerified | None:
        """A snapshot that verified; None if it is no news."""
        token = snapshot.found.fingerprint.token
        if token == self._told_snapshot:
            return None
        self._told_snapshot = token
        return _verified(snapshot.found, snapshot.verdict, pinned=False, tier="memory")

    def _keep(
        self, found: Found, verdict: Verdict, *, must_pin: bool = False
    ) -> CheckpointVerified | None:
        """Copy a verified checkpoint; None if it is no news."""
        pinned = True
        try:
            self.pins.pin(found, verdict)
        except (DiskFull, PinFailed):
            if must_pin:
                raise
            pinned = False
            self.unsettled = True  # try again at the next look
        else:
            self._known = found.fingerprint
        self._expect = verdict.kind
        self._newest_step = self._kept_step = found.step
        news = (found.fingerprint.token, pinned)
        if news == self._told:
            return None
        self._told = news
        return _verified(found, verdict, pinned=pinned)

    def _retain(self) -> None:
        """Let `checkpoint.keep` take effect, now that the newest is safe."""
        keep = self._job.settings.keep
        if keep is None:
            return
        # The script may save faster than the survey looks; what it did not see is verified now.
        good = [
            one
            for one in find(self._layout).found
            if look(one, self._layout, self._memory, expect=self._expect).ok
        ]
        with suppress(OSError):  # one that cannot be deleted is whole; the next look tries again
            retain(self._layout, good, keep, self._resumed)


def _is_published(spec: JobSpec) -> bool:
    """Whether it is certain that the manifests are ours: others use that name, too."""
    return spec.train is not None or (
        spec.checkpoint is not None and spec.checkpoint.preset == SESSION
    )


def _verified(
    found: Found, verdict: Verdict, *, pinned: bool, tier: str = "disk"
) -> CheckpointVerified:
    return CheckpointVerified(
        step=found.step,
        path=_key(found.path),
        kind=str(verdict.kind),
        level=str(verdict.level),
        size_bytes=verdict.size_bytes,
        written_at_s=found.fingerprint.mtime_ns / NS_PER_S,
        pinned=pinned,
        tier=tier,
    )


def _rejected(one: Rejected) -> RejectedCheckpoint:
    aside = None if one.set_aside_to is None else _key(one.set_aside_to)
    reason = one.reason.encode(errors="backslashreplace").decode()  # it may quote any name
    return RejectedCheckpoint(_key(one.path), one.step, reason, aside)
