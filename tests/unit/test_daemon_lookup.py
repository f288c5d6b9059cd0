"""Which job is meant, and what the queue says of it."""

from dataclasses import replace
from pathlib import Path

import pytest

from supervisor.core.causes import State
from supervisor.daemon import lookup
from supervisor.daemon.contracts import Conflict, NoSuchJob, NotYours, Peer
from supervisor.daemon.roster import Roster
from supervisor.journal import JobRecord
from supervisor.queue.model import Entry, Needs, Phase, Wish
from supervisor.queue.store import Queue, Submitted
from supervisor.views.fields import job_fields

ALICE = Peer(1001, 1001, "alice")
BOB = Peer(1002, 1002, "bob")
ROOT = Peer(0, 0, "root", admin=True)


def entry(number: int, name: str, peer: Peer = ALICE, folder: str = "/jobs") -> Entry:
    """A job that waits."""
    return Entry(
        id=f"{name}-{number:06x}",
        seq=number,
        uid=peer.uid,
        name=name,
        folder=folder,
        needs=Needs(),
        submitted_s=float(number),
        queued_s=float(number),
    )


@pytest.fixture
def roster(tmp_path: Path) -> Roster:
    """Two jobs of Alice in one folder, one of Bob, and two of one name in two folders."""
    made = Roster(Queue.open(tmp_path))
    jobs = [
        entry(1, "train"),
        entry(2, "train"),
        entry(3, "train", BOB),
        entry(4, "eval", BOB, "/a"),
        entry(5, "eval", BOB, "/b"),
    ]
    made.add([Submitted(one, "{}", "{}") for one in jobs])
    return made


def test_an_id_means_that_job(roster: Roster) -> None:
    """Whoever asks."""
    assert lookup.find(roster, BOB, "train-000001").seq == 1


def test_a_name_means_the_newest_of_ones_own(roster: Roster) -> None:
    """Somebody else's job of that name is not meant while there is one's own."""
    assert lookup.find(roster, ALICE, "train").seq == 2
    assert lookup.find(roster, BOB, "train").seq == 3


def test_the_beginning_of_an_id(roster: Roster) -> None:
    """As far as it is unique."""
    assert lookup.find(roster, BOB, "eval-000004").seq == 4
    with pytest.raises(Conflict, match="eval-000004, eval-000005"):
        lookup.find(roster, BOB, "eval")


def test_a_whole_id_means_that_job_alone(roster: Roster) -> None:
    """It may be one that the queue never had, such as a job of `run` in the same folder."""
    roster.add([Submitted(replace(entry(6, "net"), id="net-0a0a0a-2"), "{}", "{}")])
    assert lookup.find(roster, ALICE, "net-0a0a0a-2").seq == 6
    assert lookup.find(roster, ALICE, "net-0a0a0").seq == 6
    with pytest.raises(NoSuchJob):
        lookup.find(roster, ALICE, "net-0a0a0a")


def test_no_such_job(roster: Roster) -> None:
    """Nor does an empty word mean all of them."""
    for text in ("other", ""):
        with pytest.raises(NoSuchJob):
            lookup.find(roster, ALICE, text)


def test_somebody_elses_job_is_for_admins_alone(roster: Roster) -> None:
    """The owner is named."""
    job = lookup.find(roster, BOB, "train")
    lookup.refuse_others(BOB, job, "stop it")
    lookup.refuse_others(ROOT, job, "stop it")
    with pytest.raises(NotYours, match=r"belongs to 1002.*may stop it"):
        lookup.refuse_others(ALICE, job, "stop it")


def test_what_a_listing_wants(roster: Roster) -> None:
    """By state, user, group, and behind a place."""
    jobs = list(roster.all())

    def listed(**wanted: object) -> list[int]:
        return [one.seq for one in jobs if lookup.is_wanted(one, wanted)]

    assert listed() == [1, 2, 3, 4, 5]
    assert listed(user="1002", after_seq=3) == [4, 5]
    assert listed(state="running") == []
    assert listed(group="sweep") == []


def test_a_waiting_job_says_what_it_waits_for() -> None:
    """A running one does not, even if it once waited."""
    waiting = entry(1, "train")
    fields = lookup.queue_fields(waiting, "no GPU is free", 7)
    assert (fields["state"], fields["waits"], fields["position"]) == ("queued", "no GPU is free", 7)
    started = replace(waiting, phase=Phase.STARTED)
    fields = lookup.queue_fields(started, "no GPU is free", 7)
    assert "state" not in fields
    assert fields["waits"] is None


def test_a_started_job_that_is_to_stop_is_stopping() -> None:
    """Until its runner is gone."""
    started = replace(entry(1, "train"), phase=Phase.STARTED)
    assert lookup.state_of(started) is State.RUNNING
    assert lookup.state_of(replace(started, wish=Wish.CANCEL)) is State.STOPPING


def test_an_unstarted_job_is_listed_with_the_keys_of_any_other() -> None:
    """Without a look at its owner's journal."""
    one = entry(1, "train")
    record = JobRecord(one.id, one.name, one.folder, "{}", 1.0, 1.0, "queued", "", *[None] * 5)
    expected = job_fields(record) | {"attempt": None, "last_cause": None, "runner_alive": None}
    assert lookup.plain_document(one) == expected
