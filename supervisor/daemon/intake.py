"""What is asked for becomes an entry of the queue.

Owns the rules of submission: whose it is, what it waits for, whether it can ever run here, and
that two jobs never write to the same folder. Invariant: when a submission is answered, it is in the
queue and on its owner's shelf; before that, all of it or nothing is. What looks like a secret is in
neither, whoever sent it, unless it was named.
"""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from supervisor.core.amounts import size
from supervisor.core.causes import State
from supervisor.core.secrets import without_secrets
from supervisor.daemon.contracts import Conflict, Json, Peer, Unacceptable
from supervisor.daemon.dispatch import Ground
from supervisor.daemon.names import Names
from supervisor.daemon.shelving import Shelving
from supervisor.queue.model import PRIORITIES, Entry, Needs, Phase
from supervisor.queue.plan import fits_ever
from supervisor.queue.store import Queue, Submitted
from supervisor.runner.opening import job_id

OVERRIDES = ("priority", "after", "key", "group", "hold_after")
UMASK = 0o022  # where a request says none; what a daemon writes itself is for nobody else
MOST_AFTER = 1000
MOST_TEXTS = 10_000  # names and ids that the jobs of a request wait for
MOST_BYTES = 256 << 20  # each job has an environment of its own on the disk
DONE = frozenset({State.SUCCEEDED, State.CANCELLED})


class Around:
    """The surroundings of one request, as each of its jobs may store them.

    A request without an environment leaves its jobs the one that the daemon gives their runner.
    `left_out` grows to the variables that some job goes without.
    """

    def __init__(self, given: Mapping[str, Json]) -> None:
        self.left_out: set[str] = set()
        said = {name: given[name] for name in ("umask", "limits") if name in given}
        self._given: Mapping[str, Json] = {"umask": UMASK, **said}
        self._env: Mapping[str, str] = given.get("env") or {}
        self._innocent, secrets = without_secrets(self._env, given.get("env_keep") or ())
        self._secrets = frozenset(secrets)
        self._stored: dict[frozenset[str], str] = {}

    def stored(self, env_keep: Iterable[str]) -> str:
        """What to store with a job that keeps these; jobs that keep the same share it."""
        kept = self._secrets.intersection(env_keep)
        self.left_out |= self._secrets - kept
        if kept not in self._stored:
            env = self._innocent | {name: self._env[name] for name in kept}
            said = {"env": env} if self._env else {}
            self._stored[kept] = json.dumps({**self._given, **said})
        return self._stored[kept]


@dataclass(slots=True)
class Batch:
    """One request while it is judged. `made` are its new jobs, `answers` all of them in order.

    `size` is what `made` takes on the disk, in bytes; `names` finds it by what it is called.
    `texts` counts the names and ids that it waits for.
    """

    peer: Peer
    around: Around
    made: list[Submitted] = field(default_factory=list)
    fresh_of: dict[str, str] = field(default_factory=dict)
    answers: list[dict[str, Json]] = field(default_factory=list)
    generations: dict[tuple[str, str], int] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    size: int = 0
    texts: int = 0
    names: Names = field(default_factory=lambda: Names({}))
    promised: set[str] = field(default_factory=set)


class Intake:
    """Takes jobs in."""

    def __init__(self, queue: Queue, ground: Ground, shelving: Shelving) -> None:
        self._queue = queue
        self._shelving = shelving
        self._roster = ground.roster
        self._shelves = ground.shelves
        self._gpus = ground.gpus
        self._capacity = ground.capacity
        self._turns: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._promised: set[str] = set()
        self._seq = 0

    async def submit(
        self, peer: Peer, jobs: Sequence[Mapping[str, Json]], surroundings: Mapping[str, Json]
    ) -> dict[str, Json]:
        """Accept jobs: all of them, or none.

        Gives `jobs`, an answer for each in order, and `left_out`: the variables that look like
        secrets and are not stored with all of them.
        """
        if not jobs:
            raise Unacceptable("no job is given")
        batch = Batch(peer, Around(surroundings))
        try:
            async with self._turns[peer.uid]:
                for asked in jobs:
                    await self._judge(batch, asked)
                self._set_groups(batch)  # first: a job without its group is never accepted
                self._roster.add(batch.made)
                await self._shelving.put(batch.made, batch.fresh_of)
        finally:
            self._promised -= batch.promised
        return {"jobs": batch.answers, "left_out": sorted(batch.around.left_out)}

    def _set_groups(self, batch: Batch) -> None:
        for name, hold_after in batch.groups.items():
            group = self._roster.group(batch.peer.uid, name)
            if group.hold_after != hold_after:
                self._roster.change_group(replace(group, hold_after=hold_after), "GroupSet")

    async def _judge(self, batch: Batch, asked: Mapping[str, Json]) -> None:
        shelf = self._shelves.of(batch.peer.uid)
        source = {key: asked[key] for key in ("spec", "job", "folder", "params") if key in asked}
        found: dict[str, Any] = await shelf.ask("examine", source)
        found |= {key: asked[key] for key in OVERRIDES if asked.get(key) is not None}
        surroundings = batch.around.stored(found["env_keep"])
        known = self._known(batch, found["key"])
        if known is not None:
            batch.answers.append(_answer(known, new=False))
            return
        batch.size += len(surroundings) + len(found["spec"])
        if batch.size > MOST_BYTES:
            raise Unacceptable(
                f"the jobs and their environments are more than {size(MOST_BYTES)} together. "
                "Submit fewer jobs at once"
            )
        batch.texts += len(found["after"])
        if batch.texts > MOST_TEXTS:
            raise Unacceptable(
                f"after: the jobs of one request may name {MOST_TEXTS} jobs together. Submit fewer "
                "jobs at once, or name a group instead of each job in it"
            )
        entry = self._entry(batch, found)
        await self._refuse_impossible(entry)
        fresh_of = self._refuse_collision(batch, entry, fresh=bool(asked.get("fresh")))
        if fresh_of is not None:
            batch.fresh_of[entry.id] = fresh_of
        if entry.group is not None and found["hold_after"] is not None:
            batch.groups[entry.group] = int(found["hold_after"])
        batch.made.append(Submitted(entry, found["spec"], surroundings))
        batch.names.entries[entry.id] = entry
        batch.names.add(entry)
        batch.answers.append(_answer(entry, new=True))

    def _known(self, batch: Batch, key: str | None) -> Entry | None:
        if key is None:
            return None
        here = next((one.entry for one in batch.made if one.entry.key == key), None)
        return here or self._roster.with_key(batch.peer.uid, key)

    def _entry(self, batch: Batch, found: Mapping[str, Json]) -> Entry:
        now = time.time()
        priority = int(found["priority"])
        if priority not in PRIORITIES:
            raise Unacceptable(f"priority {priority} is beyond -100 to 100")
        return Entry(
            id=self._new_id(batch, found),
            seq=self._new_seq(),
            uid=batch.peer.uid,
            name=found["name"],
            folder=found["folder"],
            needs=Needs(**found["needs"]),
            submitted_s=now,
            queued_s=now,
            priority=priority,
            after=self._after(batch, found["after"]),
            key=found["key"],
            group=found["group"],
            claims=tuple(found["claims"]),
            stop_s=float(found["stop_s"]),
        )

    def _after(self, batch: Batch, texts: Sequence[str]) -> tuple[str, ...]:
        return tuple(
            dict.fromkeys(one for text in dict.fromkeys(texts) for one in self._meant(batch, text))
        )

    def _new_seq(self) -> int:
        """A number that nobody else gets, also of those who submit at this moment."""
        self._seq = max(self._seq + 1, self._queue.next_seq())
        return self._seq

    def _new_id(self, batch: Batch, found: Mapping[str, Json]) -> str:
        known = (found["name"], found["folder"])
        generation = max(batch.generations.get(known, 0) + 1, int(found["generation"]))
        # Ids are unique among all users: the shelf knows only its own.
        while self._is_taken(job_id(*known, generation)):
            generation += 1
        batch.generations[known] = generation
        new_id = job_id(*known, generation)
        self._promised.add(new_id)
        batch.promised.add(new_id)
        return new_id

    def _is_taken(self, new_id: str) -> bool:
        return new_id in self._promised or self._roster.get(new_id) is not None

    def _meant(self, batch: Batch, text: str) -> tuple[str, ...]:
        """The ids of the jobs that another is to wait for.

        A name, or that of a group, means all jobs of it that have not ended, else the newest.
        """
        uid, both = batch.peer.uid, (self._roster.names, batch.names)
        if any(one.entries[text].uid == uid for one in both if text in one.entries):
            return (text,)
        going = [job for one in both for job in one.going(uid, text)]
        if len(going) > MOST_AFTER:
            raise Unacceptable(
                f"after: {text} means {len(going)} jobs; a job may wait for {MOST_AFTER} at most"
            )
        if going:
            return tuple(going)
        newest = [one.newest(uid, text) for one in both]
        if text and not any(newest):
            newest = [one.newest_beginning(uid, text) for one in both]
        known = [job for job in newest if job is not None]
        if not known:
            raise Unacceptable(
                f"after: {text}: no job of yours in the queue has this name or id. "
                "See: supervise ps"
            )
        return (known[-1],)

    async def _refuse_impossible(self, entry: Entry) -> None:
        why = fits_ever(entry.needs, self._capacity)
        if why is None and entry.needs.gpus:
            await self._gpus.look()
            why = self._gpus.impossible(entry.needs)
        if why is not None:
            raise Unacceptable(f"{entry.name} can never run on this host: {why}")

    def _refuse_collision(self, batch: Batch, entry: Entry, *, fresh: bool) -> str | None:
        """See that nobody else writes where the job does; the ended job that it takes over from."""
        earlier = [
            other for claim in entry.claims for other in self._roster.claiming(entry.uid, claim)
        ]
        earlier += [
            one.entry for one in batch.made if not set(one.entry.claims).isdisjoint(entry.claims)
        ]
        if not earlier:
            return None
        last = max(earlier, key=lambda one: one.seq)
        where = next(claim for claim in entry.claims if claim in last.claims)
        if last.phase is not Phase.ENDED:
            raise Conflict(
                f"{last.id} is {_where(last)} and writes to the same folder, {where}. Two jobs "
                "never do. Cancel it, wait for it, or name another folder in this one's job file."
            )
        if fresh:
            return last.id
        go_on = "" if last.state in DONE else f" Go on with it: supervise resume {last.id}."
        raise Conflict(
            f"{last.id}, which has {_where(last)}, wrote to the same folder, {where}.{go_on} Start "
            "anew: supervise submit --fresh JOB.YAML keeps what is there under another name."
        )


def _where(entry: Entry) -> str:
    if entry.phase is Phase.ENDED:
        return str(entry.state)
    return "waiting" if entry.phase is Phase.WAITING else "running"


def _answer(entry: Entry, *, new: bool) -> dict[str, Json]:
    state = entry.state if entry.phase is Phase.ENDED else State.QUEUED
    return {"id": entry.id, "name": entry.name, "state": str(state), "new": new}
