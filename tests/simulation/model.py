"""A runner that performs the effects of `core.step` in the simulated world.

Owns nothing that survives: when it is killed between two instructions, the next one has only the
journal and the world. Effects are generators: `yield 1.5` waits, and whatever else is due may
happen meanwhile, a stop for instance.
"""

import heapq
from collections.abc import Generator
from dataclasses import replace

from supervisor.core.causes import Cause, State
from supervisor.core.conclude import Moment, conclude
from supervisor.core.deadlines import Deadlines, Timeouts
from supervisor.core.decide import Policy
from supervisor.core.effects import (
    ChooseCheckpoint,
    ConcludeAttempt,
    Effect,
    EndRun,
    KillWorker,
    ReclaimWorker,
    SpawnAttempt,
    StopWorker,
    WaitBackoff,
)
from supervisor.core.events import (
    AttemptSpawned,
    BackoffElapsed,
    CheckpointChosen,
    CheckpointVerified,
    DeadlinePassed,
    Event,
    HoldRequired,
    ProgressBegan,
    RejectedCheckpoint,
    RunnerStarted,
    SignSeen,
    StopRequested,
    WorkerExited,
)
from supervisor.core.evidence import Evidence, SpawnError
from supervisor.core.machine import TRANSITIONS, step
from supervisor.core.signatures import error_line, first_root_error
from supervisor.core.state import JobState
from tests.simulation.script import HEARTBEAT_S, STARTUP_S, STOP_S
from tests.simulation.world import Checkpoint, Worker, World

LOOK_S = 2.0
TURNS = 20_000
TIMEOUTS = Timeouts(startup_s=STARTUP_S, heartbeat_s=HEARTBEAT_S, stop_s=STOP_S)
POLICY = Policy()

Task = Generator[float | None, None, None]


def replayed(world: World) -> JobState:
    """The state that the journal tells of."""
    state = JobState(timeouts=TIMEOUTS)
    for event in world.replay():
        state, _ = step(state, event, 0.0)
    return replace(state, deadlines=Deadlines())


class Runner:
    """One process's life."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.state = replayed(world)
        self.result: State | None = None
        self.live: Worker | None = None
        self.known: Checkpoint | None = None
        self.heard = 0
        self.tasks: list[tuple[float, int, Task]] = []
        self.on_exit: Task | None = None
        self.count = 0
        self.look_at = 0.0
        self.lost = (False, False)

    def run(self) -> State:
        """Take the job over and bring it as far as it goes."""
        self.feed(RunnerStarted(1, 2, "boot", self.world.rebooted))
        for _ in range(TURNS):
            if self.result is not None:
                return self.result
            self.turn()
        raise AssertionError("the job does not come to an end")

    def turn(self) -> None:
        """Let the next thing happen: in the world, by the clock, or in a task."""
        world, worker, due = self.world, self.world.worker, self.state.deadlines.next()
        times = [self.tasks[0][0]] if self.tasks else []
        times += [due[1]] if due else []
        times += [worker.next_at] if worker and worker.next_at is not None else []
        times += [self.look_at] if self.live else []
        world.now = max(world.now, min(times))
        if worker and worker.next_at is not None and worker.next_at <= world.now:
            worker.act()
        elif world.script.stops and world.script.stops[0] <= world.now:
            world.script.stops.pop(0)
            self.feed(StopRequested("a person", forced=world.chance.random() < 0.3))
        elif self.tasks and self.tasks[0][0] <= world.now:
            self.resume(heapq.heappop(self.tasks)[2])
        elif self.live and self.look_at <= world.now:
            self.look()
        elif due is not None:
            self.look()
            due = self.state.deadlines.next()
            if due is not None and due[1] <= world.now:
                self.feed(DeadlinePassed(due[0], TIMEOUTS.of(due[0])))
        if self.on_exit is not None and self.live and not self.live.alive:
            waiter, self.on_exit = self.on_exit, None
            self.start(waiter, 0.01)

    def start(self, task: Task, after_s: float = 0.0) -> None:
        """Let a task go on after a while; among equals, chance decides."""
        self.count += 1
        tie = self.count if self.world.chance.random() < 0.8 else -self.count
        heapq.heappush(self.tasks, (self.world.now + after_s, tie, task))

    def resume(self, task: Task) -> None:
        """One instruction of a task."""
        self.world.instruction()
        for wait_s in task:
            if wait_s is None:
                self.on_exit = task
            else:
                self.start(task, wait_s)
            return

    def feed(self, event: Event) -> None:
        """Event, commit, step, effects; the runner may die between any two of them."""
        world = self.world
        world.instruction()
        if (self.state.phase, type(event)) not in TRANSITIONS:
            return
        state, effects = step(self.state, event, world.now)
        if event.durable:
            world.instruction()
            world.append(event)
            if not isinstance(event, CheckpointVerified | ProgressBegan):
                world.note(f"{self.state.phase} -> {state.phase}: {event}"[:180])
            world.instruction()
        self.state = state
        for effect in effects:
            world.instruction()
            if isinstance(effect, EndRun):
                self.result = effect.state
            else:
                self.start(self.perform(effect))

    def perform(self, effect: Effect) -> Task:
        """The task that carries out an effect."""
        match effect:
            case ReclaimWorker(rebooted=rebooted):
                return self.reclaim(rebooted=rebooted)
            case ChooseCheckpoint(below):
                return self.choose(below)
            case SpawnAttempt(number, _, begin):
                return self.spawn(number, begin)
            case StopWorker():
                return self.stop()
            case KillWorker(hung):
                return self.kill(hung=hung)
            case ConcludeAttempt():
                return self.conclude(Evidence())
            case WaitBackoff(delay_s):
                return self.wait(delay_s)
        raise AssertionError(effect)

    def reclaim(self, *, rebooted: bool) -> Task:
        """End what is left of a lost attempt."""
        yield 0.1
        if not self.world.kill(as_hung=False, bounds=(0, 0)):
            yield from self.conclude(Evidence(survivors=(7,), runner_lost=not rebooted))
            return
        self.world.instruction()
        known = self.state.exit_code is not None or self.state.signal is not None
        lost = not known and self.state.fired is None
        seen = Evidence(runner_lost=lost and not rebooted, host_rebooted=lost and rebooted)
        yield from self.conclude(seen)

    def choose(self, below: int | None) -> Task:
        """The newest that verifies; a newer pin is put back; bad ones are set aside."""
        world = self.world
        yield 0.1
        if world.worker is not None and world.worker.alive:
            self.feed(HoldRequired(Cause.UNKILLABLE, "process 7 does not end"))
            return
        rejected = []
        candidates = len(world.disk) + len(world.aside) + len(world.pins)
        for at in sorted(world.disk, reverse=True):
            if world.disk[at].whole and (below is None or at < below):
                break
            world.instruction()
            world.aside.append(world.disk.pop(at))
            rejected.append(RejectedCheckpoint(f"c{at}", at, "bad"))
        allowed = [at for at in world.pins if below is None or at < below]
        newest = max([*world.disk, *allowed], default=None)
        if newest is not None and newest not in world.disk:
            world.instruction()
            if world.full:
                self.feed(HoldRequired(Cause.DISK_FULL, "no space to put the copy back"))
                return
            world.disk[newest] = world.pins[newest]
        yield 0.1
        if newest is None:
            self.feed(CheckpointChosen(None, None, candidates, rejected=tuple(rejected)))
        else:
            self.verified(world.disk[newest])
            yield 0.0
            self.feed(CheckpointChosen(f"c{newest}", newest, candidates, rejected=tuple(rejected)))

    def spawn(self, number: int, begin: int | None) -> Task:
        """Start the worker and see it out."""
        world = self.world
        yield 0.05
        world.took_number(number)
        failed = world.script.struck_at_start(begin or 0, "no_command", "spawn_fails")
        if failed:
            error = SpawnError("exec", 2, "cannot be started", permanent=failed == "no_command")
            yield from self.conclude(Evidence(spawn_error=error))
            return
        worker = world.spawn(number, begin)
        world.instruction()
        self.live, self.heard, self.look_at = worker, 0, world.now + LOOK_S
        self.feed(AttemptSpawned(number, 7, 8))
        yield None
        self.feed(WorkerExited(number, worker.exit_code, worker.signal))

    def stop(self) -> Task:
        """Ask the worker to stop."""
        yield 0.0
        if self.live is not None:
            self.live.asked_to_stop = True

    def kill(self, *, hung: bool) -> Task:
        """Save the stacks of a hang, then SIGKILL."""
        yield 0.3 if hung else 0.0
        if self.live is None:
            return
        if not self.world.kill(as_hung=hung, bounds=(STARTUP_S, HEARTBEAT_S)):
            yield 5.0
            self.on_exit = None
            yield from self.conclude(Evidence(survivors=(7,)))

    def wait(self, delay_s: float) -> Task:
        """Wait until the next attempt is due."""
        yield delay_s
        self.feed(BackoffElapsed())

    def look(self) -> None:
        """Hear what the worker said since the last look, and verify what it saved."""
        self.look_at = self.world.now + LOOK_S
        worker = self.live
        if worker is None:
            return
        if worker.signs > self.heard:
            if not self.heard:
                self.feed(ProgressBegan(worker.number))
            self.heard = worker.signs
            self.feed(SignSeen(self.said(worker)))
        self.survey()

    def said(self, worker: Worker) -> int | None:
        """The last step in the log."""
        steps = [line for line in worker.lines if line.startswith("step ")]
        return int(steps[-1].split()[1]) if steps else None

    def survey(self) -> None:
        """Verify from the newest down to the first good one."""
        for at in sorted(self.world.disk, reverse=True):
            if self.world.disk[at].whole:
                if self.world.disk[at] is not self.known:
                    self.verified(self.world.disk[at])
                return

    def verified(self, found: Checkpoint) -> None:
        """Copy a good checkpoint before anybody relies on it."""
        self.world.pin(found)
        self.known = found
        self.feed(CheckpointVerified(found.step, "c", "zip", "crc", 1, 1.0, pinned=True))
        self.world.verified_one = True

    def conclude(self, seen: Evidence) -> Task:
        """Last words, evidence, cause, decision."""
        yield 0.05
        self.look()
        self.survey()
        world, state = self.world, self.state
        worker = world.worker if world.worker and world.worker.number == state.attempt else None
        self.live = None
        at = self.said(worker) if worker else None
        lines = worker.lines if worker and state.exit_code != 0 else []
        reached = max(at or 0, state.best_checkpoint or 0) >= world.script.total
        seen = replace(
            seen,
            exit_code=state.exit_code,
            signal=state.signal,
            stop_requested=state.stop_requested,
            deadline=state.fired,
            deadline_s=None if state.fired is None else TIMEOUTS.of(state.fired),
            done=state.exit_code == 0 and reached,
            done_detail="steps",
            root_error=first_root_error(lines),
            error_line=error_line(lines),
            step=at,
            resumed_step=state.resumed_step,
            checkpoint_step=state.best_checkpoint,
            progressed=(at or 0) > (state.resumed_step or 0),
        )
        yield 0.0
        moment = Moment(world.now, 1.0, world.chance.random())
        self.feed(conclude(self.state, POLICY, seen, moment))
