"""Whole batch jobs with poison items, innocent deaths, stops, and a runner that is killed.

`SUPERVISE_SEEDS=5000 pytest tests/simulation/test_crew.py` plays more jobs; a failure names its
seed, and `SUPERVISE_SEED=17` plays that one alone and tells its story.
"""

import os
from dataclasses import replace
from math import log2

import pytest

from supervisor.core.batch.blame import ALL_FAIL, OUTSIDE_STRIKES
from supervisor.core.batch.state import Isolation, Rules
from supervisor.core.causes import Cause
from tests.simulation.crew import POISON, Script, World, without_faults

SEEDS = 2 * int(os.environ.get("SUPERVISE_SEEDS", "150"))
ONE = os.environ.get("SUPERVISE_SEED")
STORY_LINES = 80
FROM_OUTSIDE = {Cause.STARTUP_TIMEOUT, Cause.SPAWN_FAILED, Cause.SIGNAL}


def play(script: Script) -> World:
    """A job until nothing is left of it; a person runs it again whenever it stops."""
    world = World(script)
    try:
        while not (world.crew() and goes_well(world)):
            world.promise(world.attempt < 60 + 3 * script.count, "it is restarted for ever")
    except AssertionError as error:
        story = "\n".join(world.trace[-STORY_LINES:])
        how = f"SUPERVISE_SEED={script.seed} pytest tests/simulation/test_crew.py"
        pytest.fail(f"{story}\n{script}\n\n{error}\n(again: {how})", pytrace=False)
    return world


def goes_well(world: World) -> bool:
    """Whether all is done that can be; a crew that ends before that has a reason to."""
    ledger, ending = world.ledger, world.ending
    if ending is None:
        everything = set(range(1, world.script.count + 1))
        world.promise(ledger.done | ledger.quarantined == everything, "nothing is lost")
        world.promise(not ledger.suspects, "nobody is left under suspicion")
        return True
    world.promise(ending.reason, "an end has a reason")
    if ending.cause is None:
        world.promise(world.stopped, "it stops when it is asked to")
    elif ending.cause is Cause.BAD_CONFIG:
        world.promise(not world.done_before_end, "given up where nothing ever worked")
    elif ending.cause is Cause.POISON_ITEM:
        world.promise(world.script.rules.poison_fails, "poison ends it where the job says so")
        world.promise(ledger.quarantined, "and says which")
    else:
        world.promise(ending.cause in FROM_OUTSIDE, f"{ending}")
    return False


def ends_as_it_must(script: Script) -> World:
    """Play it; what is poison is quarantined, all else is done."""
    poison = script.poison
    world = play(script)
    if world.ledger.quarantined != poison:
        story = "\n".join(world.trace[-STORY_LINES:])
        pytest.fail(f"{story}\nseed {script.seed}: {world.ledger}, but poison are {poison}")
    return world


@pytest.mark.timeout(3600)
def test_whole_jobs() -> None:
    """Exactly the poison is quarantined, all else is done, however often the runner is killed."""
    for seed in [int(ONE)] if ONE else range(SEEDS):
        ends_as_it_must(Script.of(seed))
        ends_as_it_must(replace(Script.of(seed), crashes=1 + seed % 5))
    assert SEEDS > 0


@pytest.mark.parametrize("kind", POISON)
@pytest.mark.parametrize("isolation", Isolation)
@pytest.mark.parametrize("parallel", [1, 4])
def test_one_poison_among_ten(kind: str, isolation: Isolation, parallel: int) -> None:
    """Nine results and one quarantined item, by one crew, with two tries of it; four of a kill."""
    for item in range(1, 11):
        rules = Rules(size=4, parallel=parallel, isolation=isolation)
        world = ends_as_it_must(Script(item, 10, rules, {item: kind}))
        assert (world.attempt, len(world.ledger.done)) == (1, 9)
        assert world.befell == {item: 1 + OUTSIDE_STRIKES if kind == "sigkill" else 2}


@pytest.mark.parametrize("kind", ["segfault", "raises", "hang", "fatal"])
@pytest.mark.parametrize("size", [2, 8, 64, 1024])
def test_a_batched_call_is_bisected(kind: str, size: int) -> None:
    """One poison costs two calls for each time that its call can be halved, and no innocent."""
    for item in (1, size // 2, size):
        rules = Rules(size=size, batch=size)
        world = ends_as_it_must(Script(item, size, rules, {item: kind}))
        assert world.attempt == 1
        assert world.calls - 1 <= 2 * log2(size)


@pytest.mark.parametrize("kind", POISON)
@pytest.mark.parametrize("batch", [None, 8])
def test_what_never_works_is_given_up_soon(kind: str, batch: int | None) -> None:
    """A function that fails for every item does not quarantine a thousand of them one by one."""
    kinds = dict.fromkeys(range(1, 1001), kind)
    world = World(Script(7, 1000, Rules(batch=batch), kinds))
    assert world.crew()
    assert world.ending is not None
    assert (world.ending.cause, world.ledger.quarantined) == (Cause.BAD_CONFIG, set())
    assert world.calls <= 2 * ALL_FAIL
    small = World(Script(7, 9, Rules(batch=batch), dict.fromkeys(range(1, 10), kind)))
    assert small.crew()
    assert (small.ending, small.ledger.quarantined) == (None, set(range(1, 10)))


def test_a_thousand_raising_items_need_no_thousand_workers() -> None:
    """An exception harms nobody: its item is tried again by the same worker, at the end."""
    kinds = dict.fromkeys(range(500, 1500), "raises")
    world = ends_as_it_must(Script(7, 2000, Rules(), kinds))
    assert (world.starts, world.calls) == (1, 3000)


def test_what_is_too_much_for_a_gpu_is_halved_and_grows_back() -> None:
    """Three at a time fit: of a hundred items all are done, and few workers are lost on the way."""
    script = Script(7, 100, Rules(size=16, batch=16), {}, fits=3)
    world = ends_as_it_must(script)
    assert (world.ledger.quarantined, world.starts <= 12) == (set(), True)


def test_the_same_without_trouble_from_elsewhere() -> None:
    """Left alone, a crew ends by itself unless nothing works or poison is to end it."""
    for seed in range(SEEDS // 2):
        script = without_faults(Script.of(seed))
        script = replace(script, rules=replace(script.rules, poison_fails=False))
        world = World(script)
        assert world.crew()
        if not goes_well(world):
            assert world.ending is not None
            assert world.ending.cause is Cause.BAD_CONFIG
