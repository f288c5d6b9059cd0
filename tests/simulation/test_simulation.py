"""Whole lives of jobs, in simulated time, with every kind of fault and a runner that is killed.

`SUPERVISE_SEEDS=5000 pytest tests/simulation` plays more lives; a failure names its seed, and
`SUPERVISE_SEED=17 pytest tests/simulation` plays that one alone and tells its story.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace

import pytest

from supervisor.core.causes import Cause, State
from supervisor.core.events import AttemptEnded, DeadlinePassed, RunnerStarted, SpaceReturned
from supervisor.core.state import JobState
from tests.simulation.model import Runner, replayed
from tests.simulation.script import HEARTBEAT_S, Fault, Script, rng
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
    whole = script if script.kind == "brief" else Script.of(script.seed)
    faults = ", ".join(f"{one.kind}@{one.step}" for one in whole.faults)
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


@dataclass(frozen=True)
class Brief:
    """A short life of nine steps, with a checkpoint after every third.

    `causes` is why its attempts end, one after the other, when nobody kills the runner.
    """

    faults: list[Fault]
    causes: str
    ends: State = State.SUCCEEDED
    gpus: int = 0
    leaks: int | None = None
    heeds_stop: bool = True

    def script(self) -> Script:
        """To be played once: faults wear out."""
        faults = [replace(one) for one in self.faults]
        return Script(
            7, 9, 3, "brief", faults, heeds_stop=self.heeds_stop, gpus=self.gpus, leaks=self.leaks
        )


FAILED, HOLDING = State.FAILED, State.HOLDING
BRIEF = {
    "a plain run": Brief([], "completed"),
    "a crash and a hang": Brief([Fault("killed", 5), Fault("hang", 7)], "signal hang completed"),
    "a torn checkpoint": Brief([Fault("torn", 6)], "signal completed"),
    "one that cannot be loaded": Brief(
        [Fault("unloadable", 6), Fault("killed", 7)], "signal bad_checkpoint completed"
    ),
    "all checkpoints deleted": Brief([Fault("deleted", 7)], "exit_code completed"),
    "a sick run": Brief([Fault("not_finite", 8)], "non_finite completed"),
    "the same error for ever": Brief([Fault("exception", 5, None)], "exit_code exit_code", FAILED),
    "a hang for ever": Brief([Fault("hang", 4, None)], "hang hang hang hang hang hang", FAILED),
    "a torn first checkpoint": Brief([Fault("torn", 3)], "signal", HOLDING),
    "a GPU falls off the bus": Brief([Fault("fallen", 5)], "gpu_hardware completed", gpus=2),
    "an uncorrectable error": Brief([Fault("uncorrectable", 5)], "gpu_hardware completed", gpus=3),
    "all GPUs break, and somebody comes": Brief(
        [Fault("uncorrectable", at) for at in (2, 4, 8)],
        "gpu_hardware gpu_hardware gpu_hardware completed",
        gpus=2,
    ),
    "every GPU breaks at one step": Brief(
        [Fault("uncorrectable", 5, None)],
        "gpu_hardware gpu_hardware gpu_hardware gpu_hardware",
        HOLDING,
        gpus=3,
    ),
    "a program's own fault on a GPU": Brief([Fault("faulty", 5)], "completed", gpus=2),
    "a leak that leaves when asked": Brief(
        [], "gpu_memory_limit gpu_memory_limit completed", gpus=2, leaks=4
    ),
    "a leak that does not listen": Brief(
        [Fault("slow", 5)], "gpu_memory_limit completed", gpus=2, leaks=3, heeds_stop=False
    ),
    "beyond a hard limit": Brief([Fault("gpu_burst", 5)], "gpu_memory_limit completed", gpus=2),
    "always beyond it": Brief(
        [Fault("gpu_burst", 5, None)], "gpu_memory_limit gpu_memory_limit", FAILED, gpus=2
    ),
    "too much memory": Brief(
        [Fault("ram_burst", 4), Fault("over_limit", 7)],
        "host_memory_limit host_memory_limit completed",
    ),
    "a full disk": Brief([Fault("disk_full", 5)], "disk_full completed"),
    "stopped by a signal for long": Brief([Fault("halted", 5)], "completed"),
    "long phases": Brief([Fault("compiles", 2), Fault("downloads", 5)], "completed"),
    "an endless loop": Brief([Fault("spins", 5)], "hang completed"),
    "a collective that waits": Brief([Fault("collective", 5)], "hang completed", gpus=2),
    "a call that comes back when looked at": Brief([Fault("wakes", 5)], "completed"),
    "one that cannot be killed": Brief([Fault("unkillable", 5)], "unkillable completed", gpus=2),
}


@pytest.mark.parametrize("name", BRIEF)
def test_a_runner_killed_at_every_single_instruction(name: str) -> None:
    """Wherever the runner is killed, the job ends as it does when nobody kills it."""
    brief = BRIEF[name]
    plain, world = play(brief.script())
    causes = " ".join(one.cause for one in world.replay() if isinstance(one, AttemptEnded))
    assert (plain, causes) == (brief.ends, brief.causes)
    for at in range(1, world.instructions + 1):
        state, crashed = play(brief.script(), [at])
        if state is not brief.ends:
            tell(brief.script(), crashed, f"killed at instruction {at}, it ended as {state}")


def deferrals(name: str) -> list[float]:
    """How long a worker had been silent whenever it was given more time, in heartbeats."""
    world = World(BRIEF[name].script())
    patience: list[float] = []
    world.deferred = lambda silent_s: patience.append(silent_s / HEARTBEAT_S)
    live(world)
    return patience


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("a crash and a hang", 0, 0),
        ("a collective that waits", 0, 0),
        ("an endless loop", 1, 2),
        ("long phases", 1, 3),
        ("one that cannot be killed", 3, 4),
    ],
)
def test_how_long_a_silent_worker_is_borne(name: str, least: float, most: float) -> None:
    """Idle or spinning not at all, busy for two heartbeats, working for four."""
    patience = deferrals(name)
    assert all(silent < most for silent in patience)
    assert max(patience, default=0.0) >= least


def test_one_that_somebody_halted_is_waited_for_as_long_as_it_takes() -> None:
    """Twelve heartbeats here; its silence does not count, and it is not told as hung."""
    assert len(deferrals("stopped by a signal for long")) > 12
    _, world = play(BRIEF["stopped by a signal for long"].script())
    assert not any(isinstance(one, DeadlinePassed) for one in world.replay())


def test_a_full_disk_costs_no_restart_and_needs_no_person() -> None:
    """The same runner goes on as soon as there is room."""
    _, world = play(BRIEF["a full disk"].script())
    events = world.replay()
    assert sum(isinstance(one, RunnerStarted) for one in events) == 1
    assert sum(isinstance(one, SpaceReturned) for one in events) == 1
    assert not any(one.counted for one in events if isinstance(one, AttemptEnded))
