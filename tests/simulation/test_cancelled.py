"""A job is cancelled at every moment of its life, and whoever does that is killed, too.

What is played here is `runner.concluding`: an attempt without a runner is seen out by one that is
asked to stop beforehand; then JobCancelled is written, and what it asks for is carried out.
"""

import pytest

from supervisor.core.causes import State
from supervisor.core.events import GpusSetAside, JobCancelled
from supervisor.core.machine import TRANSITIONS, step
from tests.simulation.model import Runner, replayed
from tests.simulation.test_simulation import BRIEF, one_runner, play
from tests.simulation.world import RunnerKilled, World

ATTEMPTING = {State.RUNNING, State.STOPPING}
NAMES = [
    "a plain run",
    "a crash and a hang",
    "a GPU falls off the bus",
    "a full disk",
    "beyond a hard limit",
    "the same error for ever",
    "one that cannot be killed",
]


def cancel(world: World) -> None:
    """One try, which may be killed at any instruction."""
    if replayed(world).phase in ATTEMPTING:
        before = replayed(world).attempt
        world.script.stops.insert(0, 0.0)
        Runner(world).run()
        world.script.stops.clear()
        world.rebooted = False
        world.promise(replayed(world).attempt == before, "no attempt begins to see one out")
    state, event = replayed(world), JobCancelled("anna")
    if (state.phase, JobCancelled) in TRANSITIONS:
        state, _ = step(state, event, 0.0)
        world.instruction()
        world.append(event)
    for uuid, reason in state.spoilt:
        world.instruction()
        world.gpus_aside[uuid] = reason
        world.instruction()
        world.append(GpusSetAside((uuid,)))


def cancelled(world: World) -> State:
    """The end of a job whose first runner may be killed, and which is then cancelled."""
    one_runner(world)
    for _ in range(5):
        try:
            cancel(world)
        except RunnerKilled:
            world.script.stops.clear()
            world.runner_died()
        else:
            return replayed(world).phase
    raise AssertionError("it is never cancelled")


@pytest.mark.parametrize("name", NAMES)
def test_a_job_cancelled_at_every_single_instruction(name: str) -> None:
    """It ends cancelled, once, with no worker left; or it had succeeded."""
    _, whole = play(BRIEF[name].script())
    ends = set()
    for at in range(1, whole.instructions + 1):
        for again in (1, 7, 100_000):
            world = World(BRIEF[name].script(), [at, at + again])
            end = cancelled(world)
            ends.add(end)
            story = f"killed at {at} and {at + again}:\n" + "\n".join(world.trace[-40:])
            assert end in {State.CANCELLED, State.SUCCEEDED}, story
            kinds = [kind for kind, _ in world.journal]
            assert kinds.count("JobCancelled") == (end is State.CANCELLED), story
            assert not replayed(world).spoilt or end is State.SUCCEEDED, story
            left = world.worker is not None and world.worker.alive
            assert not left or world.unkillable, story
    assert State.CANCELLED in ends
