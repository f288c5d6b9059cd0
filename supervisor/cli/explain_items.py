"""What became of the items of a batch job, as `explain` tells it.

Owns the telling of suspicions, quarantines and replaced workers: of an attempt, and of one item.
Every word comes from the journal.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from supervisor.cli.item_names import items_meant
from supervisor.cli.item_words import named
from supervisor.cli.text import labelled, paragraph, word
from supervisor.core.causes import Cause
from supervisor.journal.records import EventRecord, QuarantinedItem
from supervisor.views.batch import body_of, item_fields, quarantined_fields
from supervisor.views.chosen import Chosen
from supervisor.views.fields import Fields
from supervisor.views.frozen import said, verb
from supervisor.views.item_names import name_of, names_from
from supervisor.views.plain import counted, printable
from supervisor.views.times import clock, iso

TOLD = 10
DETAIL_LINES = 12


def items_told(chosen: Chosen, attempt: int) -> Iterator[str]:
    """What became of items and workers in an attempt, the first of each kind."""
    names = names_from(chosen.journal.ledger(chosen.record.id))
    found = [
        (one.kind, body_of(one))
        for one in chosen.journal.events(chosen.record.id)
        if one.kind in _TOLD
    ]
    for kind, (label, tell) in _TOLD.items():
        bodies = [body for of_kind, body in found if of_kind == kind and _of(body, attempt)]
        lines = [tell(body, names) for body in bodies[:TOLD]]
        if len(bodies) > TOLD:
            more = verb(chosen.state_dir, "events", chosen.record.id)
            lines.append(f"and {len(bodies) - TOLD} more: {more}")
        if lines:
            yield labelled(label, lines[0], lines[1:])


def _of(body: Fields, attempt: int) -> bool:
    return bool(body.get("number") == attempt)


def _why(body: Fields) -> str:
    return printable(f"{body.get('cause')}: {body.get('reason')}")


def _suspected(body: Fields, names: Callable[[int], str]) -> str:
    items = tuple(body.get("items") or ())
    if len(items) == 1:
        return f"{names(items[0])}, to be tried alone: {_why(body)}"
    return f"one of {len(items)}, tried apart: {named(items, names)}: {_why(body)}"


def _quarantined(body: Fields, names: Callable[[int], str]) -> str:
    return f"{names(int(body.get('item') or 0))}, it failed alone too: {_why(body)}"


def _replaced(body: Fields, _names: Callable[[int], str]) -> str:
    after = f"after {counted(int(body.get('items') or 0))}"
    reason = printable(str(body.get("reason")))
    if body.get("cause") == Cause.COMPLETED:
        return f"worker {body.get('worker')} was replaced {after}: {reason}"
    return f"worker {body.get('worker')} ended {after}, {body.get('cause')}: {reason}"


# Kind of event -> label, and its sentence.
_TOLD: dict[str, tuple[str, Callable[[Fields, Callable[[int], str]], str]]] = {
    "ItemsSuspected": ("suspect", _suspected),
    "ItemQuarantined": ("poison", _quarantined),
    "WorkerReplaced": ("workers", _replaced),
}


@dataclass(frozen=True, slots=True)
class ItemStory:
    """One item: what happened to it, and where it stands."""

    chosen: Chosen
    number: int
    text: str
    state: str
    events: tuple[EventRecord, ...]
    aside: QuarantinedItem | None

    @property
    def files(self) -> tuple[Path, ...]:
        """What was written down of it: the stacks of its worker, and more, if there is some."""
        found: list[Path] = []
        for attempt in sorted({int(body_of(one).get("number") or 0) for one in self.events}):
            folder = self.chosen.folder.attempt(attempt).path / "items" / str(self.number)
            found += sorted(folder.glob("*")) if folder.is_dir() else []
        return tuple(found)

    def fields(self) -> Fields:
        """The story for machines."""
        kinds = ("ItemsSuspected", "ItemQuarantined", "ItemsRequeued")
        told = [
            {"at": iso(one.at_s), "kind": one.kind, "fields": body_of(one)}
            for one in self.events
            if one.kind in kinds
        ]
        ledger = self.chosen.journal.ledger(self.chosen.record.id)
        return {
            "id": self.chosen.record.id,
            "number": self.number,
            "item": name_of(self.text),
            "state": self.state,
            "events": told,
            "quarantined": None if self.aside is None else quarantined_fields(self.aside),
            "files": [str(path) for path in self.files],
            "items": item_fields(ledger.counts()),
        }

    def lines(self) -> Iterator[str]:
        """The story for people."""
        name = click.style(name_of(self.text), bold=True)
        yield f"{name}  item {self.number} of {self.chosen.record.id}: {word(self.state)}"
        names = names_from(self.chosen.journal.ledger(self.chosen.record.id))
        for one in self.events:
            body = body_of(one)
            label = {"ItemsSuspected": "suspect", "ItemQuarantined": "poison"}.get(one.kind)
            if label is None:
                yield labelled("retry", f"{clock(one.at_s)}, a person asked for it")
                continue
            where = f"{clock(one.at_s)}, attempt {body.get('number')}, worker {body.get('worker')}"
            tell = _TOLD[one.kind][1]
            yield labelled(label, f"{where}: {tell(body, names)}")
        if self.aside is not None and self.aside.detail:
            told = self.aside.detail.strip("\n").splitlines()[-DETAIL_LINES:]
            lines = [printable_indented(line) for line in told]
            yield labelled("detail", lines[0], lines[1:])
        for path in self.files:
            yield labelled("file", str(path))
        yield ""
        yield from self._next()

    def _next(self) -> Iterator[str]:
        if self.state != "quarantined":
            yield paragraph(_NEXT[self.state])
            return
        record = self.chosen.record
        again = verb(self.chosen.state_dir, "retry", record.id, "--items", str(self.number))
        yield paragraph("It is not tried again by itself. When its cause is mended:")
        yield f"\n    {again}"


_NEXT = {
    "done": "It is done: its result is in the results, and it never runs again.",
    "suspect": "It is tried once more, alone, when the job runs.",
    "left": "It is still to be done, when the job runs.",
    "done or gone": "It is done, or the source of the items names it no more.",
}


def printable_indented(line: str) -> str:
    """A line with its indentation, which says what belongs to what."""
    return " " * (len(line) - len(line.lstrip(" "))) + printable(line.strip())


def story_of(chosen: Chosen, text: str) -> ItemStory:
    """The story of the item that a person named.

    Raises:
        click.UsageError: the job has no items.
        NoSuchItem: none is meant.
    """
    spec = said(chosen.record)
    if not spec.is_batch:
        raise click.UsageError(f"{chosen.record.id} has no items: it is no batch job")
    ledger = chosen.journal.ledger(chosen.record.id)
    (number,) = items_meant(ledger, spec.cwd, [text])
    aside = next((one for one in ledger.quarantined() if one.number == number), None)
    events = [one for one in chosen.journal.events(chosen.record.id) if _concerns(one, number)]
    return ItemStory(
        chosen=chosen,
        number=number,
        text=ledger.texts([number])[0],
        state="quarantined" if aside is not None else _state(chosen, number),
        events=tuple(events),
        aside=aside,
    )


def _concerns(event: EventRecord, number: int) -> bool:
    if event.kind in ("ItemsSuspected", "ItemsRequeued"):
        return number in (body_of(event).get("items") or ())
    return event.kind == "ItemQuarantined" and body_of(event).get("item") == number


def _state(chosen: Chosen, number: int) -> str:
    ledger = chosen.journal.ledger(chosen.record.id)
    if number in ledger.suspects():
        return "suspect"
    for low, high in ledger.todo(after=number - 1, limit=1):
        if low <= number <= high:
            return "left"
    return "done or gone" if ledger.counts().gone else "done"
