"""Days of a busy host on a fake clock: every job has its turn, and the host is never overbooked."""

import heapq
import os
import random
from dataclasses import dataclass, replace

import pytest

from supervisor.core.causes import State
from supervisor.queue.model import Entry, Needs, Phase
from supervisor.queue.plan import AGING_S, PATIENCE_S, Capacity, Situation, order, plan
from tests.unit.queue_entries import GIB, NOW_S, entry

SEEDS = range(max(1, int(os.environ.get("SUPERVISE_SEEDS", "150")) // 50))
CPUS, MEMORY, GPUS = 32, 128 * GIB, 4
JOBS = 1200
LONGEST_S = 4 * 3600.0
PRIORITIES = 3
GAP_S = 150.0


class Cards:
    """The GPUs of the simulated host, which come back when a job ends."""

    def __init__(self, taken: set[str]) -> None:
        self.free = [f"GPU-{n}" for n in range(GPUS) if f"GPU-{n}" not in taken]

    def take(self, needs: Needs) -> tuple[str, ...] | str:
        """The first ones that are free."""
        if needs.gpus > len(self.free):
            return f"only {len(self.free)} is free"
        given, self.free = tuple(self.free[: needs.gpus]), self.free[needs.gpus :]
        return given


@dataclass
class Running:
    """A started job and the GPUs that it has."""

    entry: Entry
    gpus: tuple[str, ...]


class Host:
    """What waits, runs and has ended, and the clock, which moves from event to event."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.now_s = NOW_S
        self.waiting: dict[str, Entry] = {}
        self.running: dict[str, Running] = {}
        self.states: dict[str, State] = {}
        self.waited_s: dict[str, float] = {}
        self.ends: list[tuple[float, str]] = []
        self.most = 0
        self.head: tuple[str, float] = "", NOW_S

    def arrivals(self) -> list[tuple[float, Entry]]:
        """The jobs of the story with their times, more than the host can do at once."""
        found, at_s = [], NOW_S
        for seq in range(1, JOBS + 1):
            at_s += self.chance.expovariate(1 / 120) if seq % 40 else 3600
            after = (f"job-{self.chance.randrange(1, seq)}",) if seq > 9 and not seq % 9 else ()
            job = entry(
                seq,
                self.needs(),
                queued_s=at_s,
                submitted_s=at_s,
                priority=self.chance.randrange(PRIORITIES),
                after=after,
                claims=(f"/runs/{self.chance.randrange(400)}",),
            )
            found.append((at_s, job))
        return found

    def needs(self) -> Needs:
        """Mostly small, now and then all that there is."""
        size = self.chance.choice([1, 1, 1, 2, 2, 4])
        return Needs(
            gpus=self.chance.choice([0, size, size]),
            cpus=self.chance.choice([1, 2, 4 * size, CPUS]),
            memory_bytes=self.chance.choice([None, size * 8 * GIB, MEMORY]),
        )

    def start(self) -> None:
        """Place who may start, and check that the host holds it all."""
        taken = {uuid for one in self.running.values() for uuid in one.gpus}
        now = Situation(
            list(self.waiting.values()),
            [one.entry for one in self.running.values()],
            self.states,
            frozenset(),
            Capacity(CPUS, MEMORY),
            self.now_s,
        )
        found = plan(now, Cards(taken))
        for start in found.starts:
            job = self.waiting.pop(start.id)
            self.waited_s[job.id] = self.now_s - job.queued_s
            self.running[job.id] = Running(replace(job, phase=Phase.STARTED), start.gpus)
            lasts_s = min(LONGEST_S, self.chance.expovariate(1 / 900))
            heapq.heappush(self.ends, (self.now_s + lasts_s, job.id))
        self.check()

    def check(self) -> None:
        """Nothing is promised twice."""
        jobs = [one.entry for one in self.running.values()]
        gpus = [uuid for one in self.running.values() for uuid in one.gpus]
        claims = [folder for one in jobs for folder in one.claims]
        assert sum(one.needs.cpus for one in jobs) <= CPUS
        assert sum(one.needs.memory_bytes or 0 for one in jobs) <= MEMORY
        assert len(gpus) == len(set(gpus)) <= GPUS
        assert len(claims) == len(set(claims))
        assert all(self.states.get(one) is State.SUCCEEDED for job in jobs for one in job.after)
        self.most = max(self.most, len(self.waiting))
        self.check_head(set(claims))

    def check_head(self, claims: set[str]) -> None:
        """The first job that may start, once it is out of patience, waits for running ones only."""
        ready = [
            one
            for one in self.waiting.values()
            if claims.isdisjoint(one.claims) and all(each in self.states for each in one.after)
        ]
        first = min(ready, key=lambda one: order(one, self.now_s), default=None)
        if first is None or first.queued_s > self.now_s - PATIENCE_S:
            self.head = "", self.now_s
        elif first.id != self.head[0]:
            self.head = first.id, self.now_s
        assert self.now_s - self.head[1] <= LONGEST_S, f"{self.head[0]} is passed by others"

    def end_one(self) -> None:
        """The next job ends."""
        self.now_s, job_id = heapq.heappop(self.ends)
        del self.running[job_id]
        self.states[job_id] = State.SUCCEEDED

    def live(self) -> None:
        """The whole story."""
        arriving = self.arrivals()[::-1]
        while arriving or self.ends:
            if arriving and (not self.ends or arriving[-1][0] <= self.ends[0][0]):
                self.now_s, job = arriving.pop()
                self.waiting[job.id] = job
            else:
                self.end_one()
            self.start()


@pytest.mark.parametrize("seed", SEEDS)
def test_everybody_has_a_turn(seed: int) -> None:
    """All jobs end, though at times many wait, and the first of them is never passed for ever."""
    host = Host(seed)
    host.live()
    assert not host.waiting, f"seed {seed}: {len(host.waiting)} never started"
    assert len(host.states) == JOBS, f"seed {seed}"
    assert host.most > 20, f"seed {seed}: nobody ever waited"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("priority", [0, 2])
def test_a_flood_holds_nobody_back_for_ever(seed: int, priority: int) -> None:
    """Small jobs without end, as important or more so, and one that wants the whole host."""
    host = Host(seed)
    arrived_s = NOW_S + 4 * 3600.0
    big = entry(0, Needs(gpus=GPUS, cpus=CPUS, memory_bytes=MEMORY), queued_s=arrived_s)
    seq = 0
    while big.id not in host.waited_s:
        seq += 1
        kind = Needs(gpus=host.chance.randrange(2), cpus=4, memory_bytes=8 * GIB)
        host.waiting[f"job-{seq}"] = entry(seq, kind, queued_s=host.now_s, priority=priority)
        if arrived_s <= host.now_s < arrived_s + GAP_S:
            host.waiting[big.id] = big
        next_s = host.now_s + GAP_S
        while host.ends and host.ends[0][0] <= next_s:
            host.end_one()
            host.start()
        host.now_s = next_s
        host.start()
        # Whoever comes later than this is behind it, and what runs then ends.
        waited_s = host.now_s - arrived_s
        assert waited_s <= max(PATIENCE_S, priority * AGING_S) + LONGEST_S + 3600, f"seed {seed}"
    assert host.waited_s[big.id] > PATIENCE_S, f"seed {seed}: it had no need to wait"
