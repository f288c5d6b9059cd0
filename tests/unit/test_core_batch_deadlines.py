"""From when on a worker is waited for, in the course of its life."""

import pytest

from supervisor.core.batch import machine
from supervisor.core.batch.deadlines import Due, Wait, first
from supervisor.core.batch.machine import Left, Turn
from supervisor.core.batch.state import Rules
from supervisor.core.batch.words import Failed, Fault, Outgrown, Overdue, Ready, Reported, Word
from supervisor.core.cadence import LONGEST_S
from supervisor.core.deadlines import Timeouts

TIMES = Timeouts(startup_s=600.0, heartbeat_s=1000.0)
RULES = Rules(size=2, item_s=30.0, chunk_s=50.0)


def due(*words: tuple[float, Word], rules: Rules = RULES, times: Timeouts = TIMES) -> Due | None:
    """What comes first, after these words at these times of a crew that began at 0."""
    turn = machine.begin(rules, 1, Left(9, todo=((1, 9),)), 0.0)
    for now, word in words:
        turn = machine.step(turn.state, word, now)
    return first(turn.state, times)


READY = (100.0, Ready(1))
BEGUN = (101.0, Reported(1, (), (1,)))
SILENT = Rules(size=2)

COURSE: list[tuple[str, list[tuple[float, Word]], Due]] = [
    ("it gets ready", [], Due(600, 1, Wait.STARTUP, 600)),
    ("it was given a chunk", [READY], Due(150, 1, Wait.CHUNK, 50)),
    ("an item begins", [READY, BEGUN], Due(131, 1, Wait.ITEM, 30)),
    (
        "the same news is no news",
        [READY, BEGUN, (111, Reported(1, (), (1,)))],
        Due(131, 1, Wait.ITEM, 30),
    ),
    (
        "the next one, in the same chunk",
        [READY, BEGUN, (125, Reported(1, (1,), (2,)))],
        Due(150, 1, Wait.CHUNK, 50),
    ),
    (
        "the next chunk",
        [READY, BEGUN, (125, Reported(1, (1,), (2,))), (130, Reported(1, (2,), ()))],
        Due(180, 1, Wait.CHUNK, 50),
    ),
    (
        "the next chunk, where those before failed",
        [READY, (125, Failed(1, (1,), Fault.ERROR, "x")), (130, Failed(1, (2,), Fault.ERROR, "x"))],
        Due(180, 1, Wait.CHUNK, 50),
    ),
    (
        "it is to leave after its item",
        [READY, BEGUN, (110, Outgrown(1, "it is too large"))],
        Due(131, 1, Wait.ITEM, 30),
    ),
]


@pytest.mark.parametrize(
    ("words", "expected"), [one[1:] for one in COURSE], ids=[one[0] for one in COURSE]
)
def test_what_comes_first(words: list[tuple[float, Word]], expected: Due) -> None:
    """Startup, then the item that it is in, or its chunk."""
    assert due(*words) == expected


def test_a_chunk_goes_on_while_more_is_lying_ready() -> None:
    """With more than a chunk in its hands, the next chunk begins when it is through with one."""
    turn = machine.begin(RULES, 1, Left(9, todo=((1, 9),)), 0.0)
    turn = machine.step(turn.state, READY[1], 100.0)
    fast = Reported(1, (1, 2), ())
    turn = machine.step(turn.state, fast, 100.01)
    assert len(turn.state.workers[0].chunk) > 1
    for now, finished, since in ((110.0, (3,), 100.01), (120.0, (4,), 120.0), (130.0, (5,), 120.0)):
        turn = machine.step(turn.state, Reported(1, finished, ()), now)
        assert turn.state.workers[0].chunk_since == since


def test_silence_counts_from_the_last_sign() -> None:
    """Also of one that is to leave, and by what the job has taught where it says `auto`."""
    assert due(READY, BEGUN, rules=SILENT) == Due(1101, 1, Wait.HEARTBEAT, 1000)
    left = (110.0, Outgrown(1, "it is too large"))
    done = (120.0, Reported(1, (1, 2), ()))
    assert due(READY, BEGUN, left, done, rules=SILENT) == Due(1120, 1, Wait.HEARTBEAT, 1000)
    learned = Timeouts(heartbeat_auto=True)
    wanted = Due(101 + LONGEST_S, 1, Wait.HEARTBEAT, LONGEST_S)
    assert due(READY, BEGUN, rules=SILENT, times=learned) == wanted


def test_one_that_is_being_ended_or_has_no_work_is_not_waited_for() -> None:
    """Its end comes by itself; an idle one may be silent for ever."""
    assert due(READY, (200.0, Overdue(1, "late"))) is None
    spare = Rules(size=16, spare=1, item_s=30.0, chunk_s=50.0)
    turn: Turn = machine.begin(spare, 1, Left(2, todo=((1, 2),)), 0.0)
    for word in (Ready(1), Ready(2), Overdue(1, "late")):
        turn = machine.step(turn.state, word, 1.0)
    assert first(turn.state, TIMES) is None
