"""What one user's jobs add to the metrics, added up from scrape to scrape.

Owns the two places in a journal up to which was counted: counters begin where the journal stood
when the daemon began, the goodput knows all of it. The figures come from a process with the user's
rights and are believed only so far: a word that is no state or cause of ours is not repeated, a
number that is none, or beyond all reason, counts as nothing. Invariant: a counter never goes back.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from supervisor.core.causes import Cause, State

Json = Any
Ask = Callable[[int | None, int], Awaitable[Json]]  # (after_seq, limit) -> views.totals, or null

EVENTS = 5_000
ROUNDS = 4  # so often is asked for one scrape; what is left then is counted by the next
MOST_RUNNING = 200
LONGEST_ID = 200
LARGEST = 2**53  # every whole number up to here is one of Prometheus' too
UNKNOWN = "unknown"

_STATES = frozenset(map(str, State))
_CAUSES = frozenset(map(str, Cause))


@dataclass(frozen=True, slots=True)
class Running:
    """One running job. None: not known. `checkpoint_s` is wall clock, epoch seconds."""

    id: str
    step: float | None
    checkpoint_s: float | None
    wall_s: float


@dataclass(slots=True)
class Sums:
    """One journal. `attempts` and `lost_s` are by cause, since the daemon began.

    `wall_s` is of attempts that ended since; `passed_s` is the wall time that passed since, of the
    running ones too. `past_lost_s` and `past_wall_s` are from before, complete once `whole`.
    """

    seq: int | None = None
    past_seq: int = 0
    past_end: int = 0
    attempts: Counter[str] = field(default_factory=Counter)
    lost_s: dict[str, float] = field(default_factory=dict)
    restarts: int = 0
    wall_s: float = 0.0
    passed_s: float = 0.0
    past_lost_s: float = 0.0
    past_wall_s: float = 0.0
    running_before_s: float | None = 0.0
    states: dict[str, int] = field(default_factory=dict)
    running: tuple[Running, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether all of the journal was counted."""
        return self.past_seq >= self.past_end

    async def read(self, ask: Ask) -> None:
        """Bring the sums up to date. Raises what `ask` raises."""
        if self.seq is None:
            await self._begin(ask)
        for _ in range(ROUNDS):
            if not await self._go_on(ask):
                break
        if not self.whole:
            await self._look_back(ask)

    async def _begin(self, ask: Ask) -> None:
        found = await ask(None, 0)
        self.seq = self.past_end = 0 if found is None else int(_number(found.get("newest")))
        self.running_before_s = None

    async def _go_on(self, ask: Ask) -> bool:
        """Count what is new; whether there is more of it."""
        found = await ask(self.seq, EVENTS)
        if found is None:  # no job was ever accepted
            self.states, self.running = {}, ()
            return False
        if found.get("from") != self.seq:  # another journal took its place
            self.past_seq = self.past_end = 0
            self.past_lost_s = self.past_wall_s = 0.0
        for cause, count in _by(found.get("attempts"), _CAUSES).items():
            self.attempts[cause] += int(count)
        for cause, lost_s in _by(found.get("lost_s"), _CAUSES).items():
            self.lost_s[cause] = self.lost_s.get(cause, 0.0) + lost_s
        self.restarts += int(_number(found.get("restarts")))
        self.wall_s += _number(found.get("wall_s"))
        states = _by(found.get("states"), _STATES)
        self.states = {state: int(count) for state, count in states.items()}
        self.running = tuple(map(_running, (found.get("running") or ())[:MOST_RUNNING]))
        now_s = sum(one.wall_s for one in self.running)
        if self.running_before_s is None:  # what they had run before the daemon began
            self.running_before_s = now_s
        self.passed_s = max(self.passed_s, self.wall_s + now_s - self.running_before_s)
        self.seq = int(_number(found.get("seq")))
        return self.seq < _number(found.get("newest"))

    async def _look_back(self, ask: Ask) -> None:
        """Count some more of what was before the daemon began."""
        found = await ask(self.past_seq, min(EVENTS, self.past_end - self.past_seq))
        if found is None or found.get("from") != self.past_seq:
            self.past_seq = self.past_end
            return
        self.past_lost_s += sum(_by(found.get("lost_s"), _CAUSES).values())
        self.past_wall_s += _number(found.get("wall_s"))
        # It always ends, whatever is answered.
        self.past_seq = max(self.past_seq + 1, int(_number(found.get("seq"))))


def goodput(all_: Mapping[int, Sums]) -> float | None:
    """The share of all jobs' wall time that no fault cost, 0 to 1; None while it is not known."""
    if not all(one.whole for one in all_.values()):
        return None
    now_s = sum(job.wall_s for one in all_.values() for job in one.running)
    wall_s = now_s + sum(one.past_wall_s + one.wall_s for one in all_.values())
    lost_s = sum(one.past_lost_s + sum(one.lost_s.values()) for one in all_.values())
    return None if wall_s <= 0 else min(1.0, max(0.0, 1 - lost_s / wall_s))


def _number(given: object) -> float:
    """A figure that can be added up; 0 for what is none."""
    return _known(given) or 0.0


def _known(given: object) -> float | None:
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= LARGEST:
        return None
    return float(given)


def _by(given: object, words: frozenset[str]) -> dict[str, float]:
    """Figures by one of our words; what has another is put together."""
    found: dict[str, float] = {}
    for word, figure in given.items() if isinstance(given, dict) else ():
        name = word if word in words else UNKNOWN
        found[name] = found.get(name, 0.0) + _number(figure)
    return found


def _running(given: Json) -> Running:
    return Running(
        str(given.get("id"))[:LONGEST_ID],
        _known(given.get("step")),
        _known(given.get("checkpoint_s")),
        _number(given.get("wall_s")),
    )
