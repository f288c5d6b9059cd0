"""The queue's file beside a model in memory: whatever is done to it, in any order, they agree."""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from supervisor.core.causes import State
from supervisor.queue.model import Entry, Group, Needs, Phase, Wish
from supervisor.queue.store import Queue, Submitted
from tests.unit.queue_entries import SPEC, SURROUNDINGS, entry

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
instants = st.floats(0, 1e11)
numbers = st.integers(0, 2**63 - 1)
values = st.fixed_dictionaries(
    {
        "name": texts,
        "folder": texts,
        "uid": st.integers(0, 2**32 - 2),
        "priority": st.integers(-100, 100),
        "after": st.lists(st.text(max_size=5), max_size=3).map(tuple),
        "claims": st.lists(st.text(max_size=5), max_size=3).map(tuple),
        "group": st.none() | texts,
        "queued_s": instants,
        "stop_s": instants,
        "phase": st.sampled_from(Phase),
        "wish": st.sampled_from(Wish),
        "state": st.sampled_from(State),
        "why": texts,
        "placed_s": st.none() | instants,
        "ended_s": st.none() | instants,
        "launches": numbers,
        "lost": numbers,
        "boot_id": texts,
        "needs": st.builds(
            Needs,
            gpus=numbers,
            gpu_memory_bytes=st.none() | numbers,
            share_gpu=st.booleans(),
            cpus=numbers,
            memory_bytes=st.none() | numbers,
        ),
    }
)


class QueueFile(RuleBasedStateMachine):
    """Adds, changes, shelves, forgets, holds and opens again."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="queue-model-"))
        self.queue = Queue.open(self.folder)
        self.entries: dict[str, Entry] = {}
        self.unshelved: dict[str, Submitted] = {}
        self.groups: dict[tuple[int, str], Group] = {}
        self.told: list[tuple[str | None, str]] = []
        self.highest = 0

    def teardown(self) -> None:
        """Leave nothing."""
        self.queue.close()
        shutil.rmtree(self.folder)

    def some(self, data: st.DataObject) -> list[str]:
        """Some of the jobs there are."""
        return data.draw(st.lists(st.sampled_from(sorted(self.entries)), unique=True, max_size=3))

    @rule(new=st.lists(values, min_size=1, max_size=3))
    def add(self, new: list[dict[str, Any]]) -> None:
        """Submit a few."""
        first = self.queue.next_seq()
        assert first == self.highest + 1
        made = [
            Submitted(entry(first + place, **fields), SPEC, SURROUNDINGS)
            for place, fields in enumerate(new)
        ]
        self.queue.add(made)
        for one in made:
            self.entries[one.entry.id] = one.entry
            self.unshelved[one.entry.id] = one
            self.told.append((one.entry.id, "Submitted"))
        self.highest += len(made)

    @precondition(lambda self: self.entries)
    @rule(data=st.data(), fields=values)
    def change(self, data: st.DataObject, fields: dict[str, Any]) -> None:
        """Give some of them other values, all at once."""
        changes = []
        for id_ in self.some(data):
            self.entries[id_] = replace(self.entries[id_], **fields)
            changes.append((self.entries[id_], "Changed", {"by": 7}))
            self.told.append((id_, "Changed"))
        self.queue.change_all(changes)
        for id_ in self.unshelved:
            self.unshelved[id_] = replace(self.unshelved[id_], entry=self.entries[id_])

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def shelve(self, data: st.DataObject) -> None:
        """Some have reached their shelf."""
        ids = self.some(data)
        self.queue.shelved(ids)
        for id_ in ids:
            self.unshelved.pop(id_, None)

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        """Some are removed."""
        ids = self.some(data)
        self.queue.forget(ids)
        for id_ in ids:
            del self.entries[id_]
            self.unshelved.pop(id_, None)
        self.told = [one for one in self.told if one[0] not in ids]

    @rule(uid=st.integers(0, 2), name=texts, failures=numbers, held=st.booleans())
    def hold(self, uid: int, name: str, failures: int, *, held: bool) -> None:
        """A group changes."""
        group = Group(uid=uid, name=name, failures=failures, held=held)
        self.queue.change_group(group, "GroupSet")
        self.groups[uid, name] = group
        self.told.append((None, "GroupSet"))

    @rule()
    def open_again(self) -> None:
        """Another daemon comes."""
        self.queue.close()
        self.queue = Queue.open(self.folder)

    @invariant()
    def they_agree(self) -> None:
        """All that can be read is what the model says."""
        assert self.queue.entries() == sorted(self.entries.values(), key=lambda one: one.seq)
        assert {one.entry.id: one for one in self.queue.unshelved()} == self.unshelved
        assert {(one.uid, one.name): one for one in self.queue.groups()} == self.groups
        assert [(one.job_id, one.kind) for one in self.queue.happenings()] == self.told


TestQueueFile = QueueFile.TestCase
TestQueueFile.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
