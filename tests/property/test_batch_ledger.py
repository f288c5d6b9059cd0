"""Whatever happens to items in whatever order: counters are true, and done is done."""

from collections import Counter
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from supervisor.core.causes import Cause
from supervisor.core.item_events import ItemQuarantined, ItemsRequeued, ItemsSuspected
from supervisor.core.state import JobState
from supervisor.journal import JobRecord, Journal, planning

JOB = JobRecord("j-1", "j", "/job", "{}", 1.0, 1.0, "queued", "", None, None, None, None, None)
WAITING, DONE, SUSPECT, QUARANTINED, GONE = range(5)
SOURCES = st.lists(st.integers(1, 25).map(lambda number: f'"{number}.jpg"'), max_size=40)
NUMBERS = st.lists(st.integers(1, 30), max_size=6)


class LedgerMachine(RuleBasedStateMachine):
    """A ledger beside a dictionary of what each item must be."""

    @initialize(chunk=st.integers(1, 9), merge=st.integers(1, 20))
    def begin(self, chunk: int, merge: int) -> None:
        """Open a journal; few items are many here."""
        self.sizes = {"CHUNK": chunk, "MERGE": merge}
        self.folder = TemporaryDirectory()
        self.open()
        self.journal.create_job(JOB)
        self.expected: dict[str, int] = {}
        self.length = 0

    def open(self) -> None:
        """Open the journal, as a new runner does."""
        self.journal = Journal.open(Path(self.folder.name))
        self.ledger = self.journal.ledger(JOB.id)

    def teardown(self) -> None:
        """Close it."""
        self.journal.close()
        self.folder.cleanup()

    def texts(self, numbers: list[int]) -> dict[int, str]:
        """Those of the numbers that are items."""
        found = {}
        for number in numbers:
            with suppress(KeyError):
                found[number] = self.ledger.texts([number])[0]
        return found

    @rule(source=SOURCES)
    def plan(self, source: list[str]) -> None:
        """Read a source to its end."""
        with mock.patch.multiple(planning, **self.sizes):
            for _ in self.ledger.plan(source):
                pass
        for item, state in self.expected.items():
            if state != DONE and item not in source:
                self.expected[item] = GONE
            elif state == GONE:
                self.expected[item] = WAITING
        for item in source:
            self.expected.setdefault(item, WAITING)
        assert self.ledger.counts().repeated == len(source) - len(set(source))

    @rule(source=SOURCES, steps=st.integers(0, 12))
    def die_while_planning(self, source: list[str], steps: int) -> None:
        """Break off, and go on as another runner, which plans the same source again."""
        with mock.patch.multiple(planning, **self.sizes):
            going = self.ledger.plan(source)
            for _ in range(steps):
                next(going, None)
            going.close()
        self.journal.close()
        self.open()
        self.plan(source)

    @rule(numbers=NUMBERS)
    def settle(self, numbers: list[int]) -> None:
        """Finish some items."""
        known = self.texts(numbers)
        self.length += len(known)
        self.ledger.settle(list(known), self.length)
        self.expected |= dict.fromkeys(known.values(), DONE)

    @rule(numbers=NUMBERS)
    def suspect(self, numbers: list[int]) -> None:
        """Suspect some items."""
        event = ItemsSuspected(1, 1, tuple(numbers), Cause.SIGNAL, "")
        self.journal.append(JOB.id, event, JobState())
        for item in self.texts(numbers).values():
            if self.expected[item] != DONE:
                self.expected[item] = SUSPECT

    @rule(number=st.integers(1, 30))
    def quarantine(self, number: int) -> None:
        """Quarantine one."""
        event = ItemQuarantined(1, 1, number, Cause.SIGNAL, "")
        self.journal.append(JOB.id, event, JobState())
        for item in self.texts([number]).values():
            if self.expected[item] != DONE:
                self.expected[item] = QUARANTINED

    @rule(numbers=NUMBERS)
    def requeue(self, numbers: list[int]) -> None:
        """Try some again."""
        self.journal.append(JOB.id, ItemsRequeued(tuple(numbers)), JobState())
        for item in self.texts(numbers).values():
            if self.expected[item] in {SUSPECT, QUARANTINED}:
                self.expected[item] = WAITING

    @invariant()
    def it_is_as_expected(self) -> None:
        """Counters, ranges and lists all say the same, and what the dictionary says."""
        tally = Counter(self.expected.values())
        counts = self.ledger.counts()
        assert counts.total == len(self.expected) - tally[GONE]
        assert (counts.todo, counts.done, counts.suspect) == (
            tally[WAITING],
            tally[DONE],
            tally[SUSPECT],
        )
        assert (counts.quarantined, counts.gone) == (tally[QUARANTINED], tally[GONE])
        todo = [number for low, high in self.ledger.todo() for number in range(low, high + 1)]
        assert set(self.ledger.texts(todo)) == self.those(WAITING)
        assert set(self.ledger.texts(self.ledger.suspects())) == self.those(SUSPECT)
        assert {one.item for one in self.ledger.quarantined()} == self.those(QUARANTINED)
        assert set(self.ledger.find(self.expected)) == set(self.expected)
        assert self.ledger.results_bytes() == self.length

    def those(self, state: int) -> set[str]:
        """Which items must be in this state."""
        return {item for item, found in self.expected.items() if found == state}


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
