"""What one user may read of another's job: that it is there, how far, why it ended; no output."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.causes import State
from supervisor.daemon import lookup
from supervisor.daemon.contracts import Peer
from supervisor.queue.store import Happening
from tests.unit.daemon_world import (
    ANN,
    BOB,
    in_a_hurry,  # noqa: F401 - the fixture is used by name
    until,
    world,
)

ROOT = Peer(0, 0, "root", admin=True)
PRINTED = "no patient of that name"
WHY = f"exit_code: ValueError: {PRINTED}"
DOCUMENT: dict[str, Any] = {
    "uid": ANN.uid,
    "why": WHY,
    "waits": None,
    "step": 7,
    "attempts": [{"number": 1, "cause": "exit_code", "reason": PRINTED, "step": 7}],
    "quarantined": [{"number": 3, "cause": "item_error", "reason": PRINTED, "detail": PRINTED}],
}

pytestmark = pytest.mark.usefixtures("hurried")


def test_what_a_job_printed_is_its_owner_s() -> None:
    """Of an ended attempt and of a quarantined item others learn the cause alone."""
    told = lookup.as_told(BOB, DOCUMENT)
    assert PRINTED not in json.dumps(told)
    assert (told["why"], told["step"]) == ("exit_code", 7)
    assert told["attempts"] == [{"number": 1, "cause": "exit_code", "reason": None, "step": 7}]
    assert told["quarantined"][0]["cause"] == "item_error"
    for peer in (ANN, ROOT):
        assert lookup.as_told(peer, DOCUMENT) == DOCUMENT


@pytest.mark.parametrize(
    "why", [PRINTED, f"its runner ended 3 times in a row: {WHY}", "", None, 7, [PRINTED]]
)
def test_words_that_begin_with_no_cause_are_not_told(why: Any) -> None:
    """They may quote one that does."""
    assert lookup.as_told(BOB, DOCUMENT | {"why": why})["why"] == ""


def test_what_a_job_waits_for_is_told_to_all() -> None:
    """It is the queue's word."""
    told = lookup.as_told(BOB, DOCUMENT | {"why": "waits for 1 GPU", "waits": "waits for 1 GPU"})
    assert told["why"] == "waits for 1 GPU"


@pytest.mark.parametrize("rows", [None, 7, PRINTED, {"reason": PRINTED}, [PRINTED], [[PRINTED]]])
def test_a_document_of_any_shape_is_no_trouble(rows: Any) -> None:
    """What a user's own process says of their jobs cannot break the listing of others."""
    told = lookup.as_told(BOB, {"uid": ANN.uid, "waits": None, "attempts": rows})
    assert PRINTED not in json.dumps(told)


@pytest.mark.parametrize(("peer", "why"), [(ANN, WHY), (ROOT, WHY), (BOB, "exit_code")])
def test_what_happened_is_told_as_what_is(peer: Peer, why: str) -> None:
    """The stream of the queue's events says no more than the listing."""
    one = Happening(5, 1.0, "net-0a0a0a", "Ended", {"state": "failed", "why": WHY})
    told = lookup.happening(peer, ANN.uid, one)
    assert (told["job"], told["kind"], told["state"]) == ("net-0a0a0a", "Ended", "failed")
    assert told["why"] == why
    if peer is ANN:
        assert lookup.happening(peer, None, one)["why"] == "exit_code"


def test_every_way_to_a_job_says_the_same(tmp_path: Path) -> None:
    """Listing, document and the stream of events: a secret of ann's reaches ann, and not bob."""

    async def story() -> None:
        async with world(tmp_path) as here:
            (job,) = await here.running(ANN, "net")
            end = {"pid": None, "start_ticks": None, "boot_id": None, "locked_by": None}
            end |= {"id": job, "state": State.FAILED, "why": WHY, "ended": True}
            here.shelf(ANN).say("runner", end)
            here.shelf(ANN).say("document", DOCUMENT | {"id": job, "state": "failed"})
            here.shelf(ANN).say("report", {"id": job, "state": "failed", "why": WHY, "rows": []})
            here.shelf(ANN).say("listing", [{"id": job, "why": WHY}])
            here.runners.end(job, None)
            await until(lambda: here.entry(job).state is State.FAILED)
            seen = {}
            for peer in (ANN, BOB):
                told: list[Any] = [await here.daemon.jobs(peer)]
                told.append(await here.daemon.ask(peer, job, "document"))
                told.append(await here.daemon.ask(peer, job, "report"))
                async for one in here.daemon.subscribe(peer, 0):
                    told.append(one)
                    if one["kind"] == "Ended":
                        break
                seen[peer.name] = [PRINTED in json.dumps(one) for one in told]
            assert seen["ann"][0]
            assert seen["ann"][1:3] == [True, True]
            assert not any(seen["bob"])

    asyncio.run(story())
