"""A crew of pretended workers, a ledger of items, and what must hold between them at all times.

Owns the world of `test_crew`. It plays the runner honestly: facts are journaled before what follows
from them is carried out, and a crash forgets all but the ledger. Every choice comes from one seed.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from supervisor.core.batch import deadlines, machine
from supervisor.core.batch.ranges import together
from supervisor.core.batch.state import BatchState, Ending, Isolation, Rules, Worker
from supervisor.core.batch.words import (
    CrewEnded,
    Dismiss,
    EndWorker,
    Failed,
    Fault,
    Gone,
    HandOut,
    Instruction,
    MemorySeen,
    Overdue,
    Ready,
    Reported,
    StartWorker,
    StopAsked,
    Word,
)
from supervisor.core.causes import Cause
from supervisor.core.deadlines import Timeouts
from supervisor.core.events import Event
from supervisor.core.item_events import ItemQuarantined, ItemsSuspected
from tests.simulation.script import rng

TIMEOUTS = Timeouts(startup_s=600.0, heartbeat_s=50.0)
SEGV = (Cause.SIGNAL, "killed by SIGSEGV")
KILLED = (Cause.SIGNAL, "SIGKILL, sent from outside")

# What an item does to its worker at every try.
POISON = ("segfault", "sigkill", "hang", "exit_0", "cuda_oom", "raises", "fatal", "memory")
# What befalls an item that is not to blame: how often, at most, without being given up for it.
INNOCENT = {"raises_once": 1, "struck": 3, "flaky": 1}
FAULTS = {"raises": Fault.ERROR, "raises_once": Fault.ERROR, "memory": Fault.MEMORY}
FAULTS |= {"fatal": Fault.CUDA_ERROR, "cuda_oom": Fault.CUDA_OOM}
DEATHS = {
    "segfault": (*SEGV, False),
    "flaky": (*SEGV, False),
    "sigkill": (*KILLED, True),
    "struck": (*KILLED, True),
    "exit_0": (Cause.INCOMPLETE, "exit code 0, but it left without a word", False),
}


@dataclass
class Script:
    """A job of `count` items. `fits` is how many at once a GPU bears; the deaths wear out."""

    seed: int
    count: int
    rules: Rules
    kinds: dict[int, str]
    fits: int | None = None
    startup_deaths: int = 0
    idle_deaths: int = 0
    stops: int = 0
    crashes: int = 0
    leak_bytes: int = 0

    @property
    def poison(self) -> set[int]:
        """The items that no worker survives."""
        return {item for item, kind in self.kinds.items() if kind in POISON}

    @classmethod
    def of(cls, seed: int) -> "Script":
        """The script of a seed."""
        draw = rng(seed)
        count = draw.choice([0, 1, 2, 3, 5, 8, 12, 20, 40])
        isolation = draw.choice([*Isolation, Isolation.RECYCLE])
        size = draw.choice([1, 2, 5, 8, 16])
        batched = isolation is not Isolation.ITEM and draw.random() < 0.5
        rules = Rules(
            size=size,
            parallel=draw.choice([1, 1, 2, 3, 4]),
            spare=draw.choice([0, 0, 1, 2]),
            batch=draw.randint(1, size) if batched else None,
            isolation=isolation,
            items=draw.choice([None, None, 1, 7]),
            age_s=draw.choice([None, None, 3.0]),
            host_growth_bytes=draw.choice([None, 1000]),
            gpu_growth_bytes=draw.choice([None, 1000]),
            poison_fails=draw.random() < 0.2,
            item_s=draw.choice([None, 20.0]),
            chunk_s=draw.choice([None, 40.0]),
        )
        share = draw.choice([0.0, 0.05, 0.2, 0.5, 1.0])
        favourite = draw.choice([None, *POISON, *INNOCENT])
        kinds = {
            item: favourite or draw.choice([*POISON, *INNOCENT])
            for item in range(1, count + 1)
            if draw.random() < share
        }
        return cls(
            seed,
            count,
            rules,
            kinds,
            fits=draw.choice([None, 1, 3]),
            startup_deaths=draw.choice([0, 0, 1, 3]),
            idle_deaths=draw.choice([0, 0, 2, 6]),
            stops=draw.choice([0, 0, 1, 2]),
            leak_bytes=draw.choice([0, 10, 400]),
        )


@dataclass
class Pretended:
    """One worker, as it is; `given` counts how often it was given items."""

    serial: int
    slot: int
    ready: bool = False
    calls: list[tuple[int, ...]] = field(default_factory=list)
    call: tuple[int, ...] = ()
    given: int = 0
    finished: int = 0
    leaves: bool = False
    ended: bool = False
    hangs: bool = False

    @property
    def waits(self) -> bool:
        """Whether it has nothing to do until it is told."""
        return self.ready and not (self.hands or self.leaves)

    @property
    def hands(self) -> set[int]:
        """All that it was given and has not finished."""
        return {item for call in [self.call, *self.calls] for item in call}


@dataclass
class Ledger:
    """What outlives a runner."""

    done: set[int] = field(default_factory=set)
    quarantined: set[int] = field(default_factory=set)
    suspects: set[int] = field(default_factory=set)

    def left(self, count: int) -> machine.Left:
        """What a new crew is told."""
        todo = set(range(1, count + 1)) - self.done - self.quarantined - self.suspects
        return machine.Left(
            total=count,
            done=len(self.done),
            quarantined=len(self.quarantined),
            todo=together(todo),
            suspects=tuple(sorted(self.suspects)),
        )


class World:
    """One job, from its first crew to its last."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.draw = rng(~script.seed)
        self.ledger = Ledger()
        self.befell: Counter[int] = Counter()
        self.workers: dict[int, Pretended] = {}
        self.apart: dict[int, bool] = {}
        self.trace: list[str] = []
        self.now = 0.0
        self.attempt = self.words = self.calls = self.starts = 0
        self.stopped = False
        self.ending: Ending | None = None
        self.done_before_end = 0
        self.over = False
        self.state = BatchState(script.rules, 0)

    def promise(self, holds: object, words: str) -> None:
        """Fail with these words where it does not hold."""
        if not holds:
            raise AssertionError(words)

    def crew(self) -> bool:
        """One crew from begin to end. False where its runner was killed."""
        self.attempt += 1
        self.workers, self.apart = {}, dict.fromkeys(self.ledger.suspects, True)
        self.over = self.stopped = False
        self.trace.append(f"attempt {self.attempt}: {self.ledger}")
        left = self.ledger.left(self.script.count)
        self._take(machine.begin(self.script.rules, self.attempt, left, self.now), None)
        bound = self.words + 300 + 60 * self.script.count
        while not self.over:
            self.promise(self.words < bound, "the crew never ends")
            if not self._say(self._next_word()):
                return False
        return True

    def _say(self, word: Word) -> bool:
        """One turn; False where the runner is killed in its midst."""
        self.words += 1
        self.now += self.draw.random()
        self.trace.append(f"{self.now:.1f} {word}")
        turn = machine.step(self.state, word, self.now)
        if self.script.crashes and self.draw.random() < 0.1:
            self.script.crashes -= 1
            self.trace.append("the runner is killed")
            if self.draw.random() < 0.5:
                self._journal(turn.facts, word)
            return False
        self._take(turn, word)
        return True

    def _take(self, turn: machine.Turn, word: Word | None) -> None:
        self.state = turn.state
        self._journal(turn.facts, word)
        for one in turn.then:
            self.trace.append(f"    {one}")
            self._do(one)
        if self.state.ending is None:
            self.done_before_end = len(self.ledger.done)
        self._check()

    def _journal(self, facts: Iterable[Event], word: Word | None) -> None:
        if isinstance(word, Reported):
            self.ledger.done |= set(word.finished)
            self.ledger.suspects -= set(word.finished)
        if isinstance(word, Failed) and word.fault is Fault.CUDA_OOM and len(word.items) > 1:
            for item in word.items:
                self.apart.pop(item, None)
        gentle = isinstance(word, Failed) and not word.fatal and word.fault is not Fault.MEMORY
        for fact in facts:
            self.trace.append(f"    {fact}")
            if isinstance(fact, ItemsSuspected):
                self.ledger.suspects |= set(fact.items)
                self.apart |= dict.fromkeys(fact.items, not gentle)
            elif isinstance(fact, ItemQuarantined):
                self.promise(fact.item in self.ledger.suspects, "suspected, then quarantined")
                self.ledger.suspects.discard(fact.item)
                self.ledger.quarantined.add(fact.item)

    def _do(self, one: Instruction) -> None:
        if isinstance(one, StartWorker):
            self.starts += 1
            self.promise(one.slot not in {it.slot for it in self.workers.values()}, "one a slot")
            most = self.script.rules.parallel + self.script.rules.spare
            self.promise(0 <= one.slot < most, "no more than parallel, and the spare ones")
            self.promise(one.serial not in self.workers, "a new serial")
            self.workers[one.serial] = Pretended(one.serial, one.slot)
        elif isinstance(one, HandOut):
            self._handed_out(self.workers[one.serial], one)
        elif isinstance(one, Dismiss):
            self.promise(not self.workers[one.serial].leaves, "dismissed once")
            self.workers[one.serial].leaves = True
        elif isinstance(one, EndWorker):
            self.workers[one.serial].ended = True
        elif isinstance(one, CrewEnded):
            self.promise(not self.over, "ended once")
            self.promise(not self.workers, "ended when the last one is gone")
            self.over, self.ending = True, one.ending

    def _handed_out(self, worker: Pretended, one: HandOut) -> None:
        items, rules = set(one.items), self.script.rules
        self.promise(worker.ready and not worker.leaves and not worker.ended, "to one that works")
        self.promise(items, "something")
        for other in self.workers.values():
            self.promise(not items & other.hands, "an item is in one pair of hands")
        self.promise(not items & self.ledger.done, "what is done is never handed out again")
        self.promise(not items & self.ledger.quarantined, "nor what is quarantined")
        suspects = items & set(self.apart)
        if suspects:
            self.promise(items == suspects and not worker.hands, "suspects are tried apart")
            self.promise(one.batch in {None, len(items)}, "in one call")
            fresh = any(self.apart[item] for item in items)
            self.promise(not fresh or not worker.given, "what killed a worker gets a new one")
        self.promise(rules.lives_on or not worker.given, "one chunk for each worker")
        self.promise(len(items) == 1 or rules.isolation is not Isolation.ITEM, "one item each")
        self.promise(one.batch is None or one.batch <= (rules.batch or 0), "no larger calls")
        worker.given += 1
        step = one.batch or 1
        queue = [one.items[at : at + step] for at in range(0, len(one.items), step)]
        worker.calls += queue
        busy = sum(bool(it.hands) for it in self.workers.values())
        self.promise(busy <= rules.parallel, "no more at work than parallel")

    def _check(self) -> None:
        """Every item is in one place, and nobody is idle."""
        state = self.state
        places = [*self._pending(), *(item for one in state.groups for item in one.items)]
        places += [item for one in state.workers for item in one.chunk]
        places += [*self.ledger.done, *self.ledger.quarantined]
        everywhere = list(range(1, self.script.count + 1))
        self.promise(sorted(places) == everywhere, f"each item in one place: {sorted(places)}")
        self.promise(len(state.pending) == len(list(self._pending())), "the count is right")
        self.promise(state.done == len(self.ledger.done), "the done ones are counted")
        self.promise(state.quarantined == len(self.ledger.quarantined), "and the quarantined")
        self.promise({one.serial for one in state.workers} == set(self.workers), "who lives")
        for one in state.workers:
            real = self.workers[one.serial]
            self.promise(set(one.chunk) == real.hands, "what is in whose hands")
            self.promise(not self._idles(one), "nobody is idle who may do something")
            self.promise(not (state.ending and not one.ended_for) or real.leaves, "all leave")
        free = len(self.workers) < state.rules.parallel + state.rules.spare
        if free and state.ending is None and state.pending:
            self.promise(any(one.fresh for one in state.workers), "no slot is empty for nothing")

    def _idles(self, worker: Worker) -> bool:
        """Whether there is something that a worker may do, and it does nothing."""
        state = self.state
        busy = sum(bool(one.chunk) for one in state.workers)
        waits = not worker.ready or worker.chunk or worker.dismissed or worker.ended_for
        if waits or state.ending or busy >= state.rules.parallel:
            return False
        if worker.fresh:
            return bool(state.pending or state.groups)
        gentle = any(not one.fresh for one in state.groups)
        return state.rules.lives_on and (bool(state.pending) or gentle)

    def _pending(self) -> Iterator[int]:
        pending = self.state.pending
        for first, last in (*pending.returned, *pending.ranges[pending.at :]):
            yield from range(first, last + 1)

    def _next_word(self) -> Word:
        """Anything that may happen next; a deadline only where nothing else is left to happen."""
        if self.script.stops and self.draw.random() < 0.05:
            self.script.stops -= 1
            self.stopped = True
            return StopAsked("Ctrl-C")
        able = [one for one in self.workers.values() if one.ended or not (one.hangs or one.waits)]
        waiting = [one for one in self.workers.values() if one.waits]
        if waiting and self.script.idle_deaths and self.draw.random() < 0.1:
            self.script.idle_deaths -= 1
            return self._gone(self.draw.choice(waiting), *KILLED, outside=True)
        if able:
            return self._word_of(self.draw.choice(able))
        due = deadlines.first(self.state, TIMEOUTS)
        self.promise(due is not None, "a worker that hangs has a deadline")
        assert due is not None
        self.promise(self.workers[due.serial].hangs, "the one that hangs is late")
        self.now = max(self.now, due.at)
        return Overdue(due.serial, f"{due.wait} for {due.timeout_s:g} s")

    def _word_of(self, worker: Pretended) -> Word:
        if worker.ended:
            return self._gone(worker, Cause.HANG, "it hung", outside=False)
        if not worker.ready:
            return self._starts(worker)
        if worker.call:
            return self._called(worker)
        if self.script.idle_deaths and self.draw.random() < 0.05:
            self.script.idle_deaths -= 1
            outside = self.draw.random() < 0.5
            return self._gone(worker, *(KILLED if outside else SEGV), outside=outside)
        if worker.leaves:
            return self._leaves(worker)
        return self._begins(worker, ())

    def _starts(self, worker: Pretended) -> Word:
        if self.script.startup_deaths and self.draw.random() < 0.2:
            self.script.startup_deaths -= 1
            cause = self.draw.choice([Cause.STARTUP_TIMEOUT, Cause.SPAWN_FAILED, Cause.SIGNAL])
            outside = cause is Cause.SIGNAL and self.draw.random() < 0.5
            return self._gone(worker, cause, "it never began", outside=outside)
        if worker.leaves and self.draw.random() < 0.5:
            return self._leaves(worker)
        worker.ready = True
        return Ready(worker.serial)

    def _leaves(self, worker: Pretended) -> Word:
        del self.workers[worker.serial]
        return Gone(worker.serial, Cause.COMPLETED, "it left", in_order=True, ran_s=1.0)

    def _gone(self, worker: Pretended, cause: Cause, reason: str, *, outside: bool) -> Word:
        del self.workers[worker.serial]
        return Gone(worker.serial, cause, reason, "log", outside=outside, ran_s=1.0)

    def _begins(self, worker: Pretended, finished: tuple[int, ...]) -> Word:
        """The next call, if there is one, in the same breath as what was finished."""
        if worker.calls and not worker.leaves:
            worker.call = worker.calls.pop(0)
            self.calls += 1
        worker.finished += len(finished)
        return Reported(worker.serial, finished, worker.call)

    def _called(self, worker: Pretended) -> Word:
        """How the call comes out that a worker is in."""
        if worker.finished and self.draw.random() < 0.3:
            used = 500 + worker.finished * self.script.leak_bytes
            gpu = self.draw.choice([None, used])
            return MemorySeen(worker.serial, worker.finished, used, gpu)
        call, fits = worker.call, self.script.fits
        if fits is not None and len(call) > fits:
            return self._fails(worker, "cuda_oom")
        kind = next((kind for item in call if (kind := self._effect(item))), None)
        if kind is not None:  # all of them have failed now, and none is let off a second time
            self.befell.update(call)
        if kind is None and len(call) > 1 and self.draw.random() < 0.2:
            worker.call = call[1:]
            worker.finished += 1
            return Reported(worker.serial, call[:1], worker.call)
        if kind is None:
            worker.call = ()
            return self._begins(worker, call)
        if kind in FAULTS:
            return self._fails(worker, kind)
        if kind == "hang":
            worker.hangs = True
            return Reported(worker.serial, (), call)
        cause, reason, outside = DEATHS[kind]
        return self._gone(worker, cause, reason, outside=outside)

    def _effect(self, item: int) -> str | None:
        """What an item does this time."""
        kind = self.script.kinds.get(item)
        return None if self.befell[item] >= INNOCENT.get(kind or "", 1 << 30) else kind

    def _fails(self, worker: Pretended, kind: str) -> Word:
        call, worker.call = worker.call, ()
        fatal = kind in {"fatal", "cuda_oom"}
        worker.leaves = worker.leaves or fatal
        return Failed(worker.serial, call, FAULTS[kind], f"it {kind}", "Traceback", fatal=fatal)


def without_faults(script: Script) -> Script:
    """The same job without stops, crashes, or deaths that come from elsewhere."""
    return replace(script, startup_deaths=0, idle_deaths=0, stops=0, crashes=0)
