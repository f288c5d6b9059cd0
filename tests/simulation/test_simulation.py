"""Whole lives of jobs, in simulated time, with every kind of fault and a runner that is killed.

`SUPERVISE_SEEDS=5000 pytest tests/simulation` plays more lives; a failure names its seed, and
`SUPERVISE_SEED=17 pytest tests/simulation` plays that one alone and tells its story.
"""

import os
from collections.abc import Iterable
from dataclasses import replace

import pytest

from supervisor.core.causes import Cause, State
from supervisor.core.state import JobState
from tests.simulation.model import Runner, replayed
from tests.simulation.script import Fault, Script, rng
from tests.simulation.world import RunnerKilled, World

SEEDS = int(os.environ.get("SUPERVISE_SEEDS", "150"))
ONE = os.environ.get("SUPERVISE_SEED")
ENDS = {State.SUCCEEDED, State.FAILED, State.HOLDING}
RESTARTS = 200
STORY_LINES = 60


def live(world: World) -> State:
    """One job from its first runner to its end; a person runs the same command again and again."""
    phase = None
    for _ in range(RESTARTS):
        before = len(world.journal)
        while phase is None:
            phase = one_runner(world)
            if phase is None and len(world.journal) > before:
                left = replayed(world).phase
                phase = left if left in {*ENDS, State.STOPPED} else None
        if phase in ENDS and not (phase is State.HOLDING and goes_on(world)):
            return phase
        phase = None
    raise AssertionError("the job is restarted for ever")


def goes_on(world: World) -> bool:
    """Whether a job that holds is run again: a killed runner's, or one that a person repaired."""
    return waited_for_space(replayed(world)) or world.repaired()


def waited_for_space(state: JobState) -> bool:
    """Whether nobody but a runner is needed, to go on waiting."""
    return "no space" in state.why or state.why.startswith(Cause.DISK_FULL)


def one_runner(world: World) -> State | None:
    """The state in which a runner left the job; None if it was killed."""
    runner = None
    try:
        runner = Runner(world)
        phase = runner.run()
    except RunnerKilled:
        world.runner_died()
        return None
    world.rebooted = False
    alive = replace(runner.state, deadlines=replayed(world).deadlines, step=None)
    world.promise(alive == replace(replayed(world), step=None), "replay equals the live state")
    world.promise(runner.state.deadlines.next() is None, "an end has no armed deadline")
    world.promise(not runner.state.spoilt, "what is spoilt is set aside before the runner leaves")
    if phase is State.HOLDING:
        needless = waited_for_space(runner.state)
        world.promise(not needless, "a full disk is waited for, and needs nobody")
    return phase


def play(script: Script, crashes: Iterable[int] = ()) -> tuple[State, World]:
    """The end of a job and the world it left; a failure tells the story that led to it."""
    world = World(script, crashes)
    try:
        return live(world), world
    except AssertionError as error:
        story = "\n".join(world.trace[-STORY_LINES:])
        how = f"SUPERVISE_SEED={script.seed} pytest tests/simulation"
        pytest.fail(f"{story}\n\n{error}\n(again: {how})", pytrace=False)


def crashes_for(seed: int, instructions: int) -> list[int]:
    """A few instructions at which the runner is killed, some of them close together."""
    draw = rng(~seed)
    first = [draw.randrange(1, instructions + 1) for _ in range(draw.randint(1, 6))]
    return first + [at + draw.randint(1, 12) for at in first if draw.random() < 0.4]


def expect(script: Script, plain: State, world: World) -> None:
    """The script's own promise about how the job ends without runner crashes."""
    wanted = {"survivable": {State.SUCCEEDED}, "fatal": {State.FAILED, State.HOLDING}}
    if plain not in wanted.get(script.kind, ENDS):
        tell(script, world, f"a {script.kind} life ended as {plain}")


def tell(script: Script, world: World, words: str) -> None:
    """Fail with the story."""
    story = "\n".join(world.trace[-STORY_LINES:])
    faults = ", ".join(f"{one.kind}@{one.step}" for one in Script.of(script.seed).faults)
    pytest.fail(
        f"{story}\n\nseed {script.seed}, faults {faults}: {words}\n"
        f"(again: SUPERVISE_SEED={script.seed} pytest tests/simulation)",
        pytrace=False,
    )


def check(seed: int) -> None:
    """Play a seed without and with runner crashes, and compare."""
    plain, world = play(Script.of(seed))
    expect(Script.of(seed), plain, world)
    script = Script.of(seed)
    # A person's stop meets another step when a crash came before it, and leaves another checkpoint:
    # which of the two ends that need a person a fatal job comes to may depend on that.
    same = {State.FAILED, State.HOLDING} if script.stops else {plain}
    ended, crashed = play(script, crashes_for(seed, world.instructions))
    if script.kind != "wild" and ended not in {plain} | (same if plain in same else set()):
        tell(script, crashed, f"ended as {plain} without runner crashes, as {ended} with them")


@pytest.mark.timeout(3600)
def test_whole_lives() -> None:
    """Every life keeps the promises, and ends the same however often its runner is killed."""
    for seed in [int(ONE)] if ONE else range(SEEDS):
        check(seed)
    assert SEEDS > 0


BRIEF = {
    "a plain run": ([], State.SUCCEEDED),
    "a crash and a hang": ([Fault("killed", 5), Fault("hang", 7)], State.SUCCEEDED),
    "a torn checkpoint": ([Fault("torn", 6)], State.SUCCEEDED),
    "one that cannot be loaded": ([Fault("unloadable", 6), Fault("killed", 7)], State.SUCCEEDED),
    "all checkpoints deleted": ([Fault("deleted", 7)], State.SUCCEEDED),
    "a sick run": ([Fault("not_finite", 8)], State.SUCCEEDED),
    "the same error for ever": ([Fault("exception", 5, None)], State.FAILED),
    "a hang for ever": ([Fault("hang", 4, None)], State.FAILED),
    "a torn first checkpoint": ([Fault("torn", 3)], State.HOLDING),
}


def brief(name: str) -> Script:
    """A short life of nine steps, with a checkpoint after every third."""
    faults, _ = BRIEF[name]
    return Script(7, 9, 3, "brief", [replace(one) for one in faults])


@pytest.mark.parametrize("name", BRIEF)
def test_a_runner_killed_at_every_single_instruction(name: str) -> None:
    """Wherever the runner is killed, the job ends as it does when nobody kills it."""
    expected = BRIEF[name][1]
    plain, world = play(brief(name))
    assert plain is expected
    for at in range(1, world.instructions + 1):
        ended, crashed = play(brief(name), [at])
        if ended is not expected:
            tell(brief(name), crashed, f"killed at instruction {at}, it ended as {ended}")
