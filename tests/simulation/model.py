"""A runner that performs the effects of `core.step` in the simulated world.

Owns nothing that survives: when it is killed between two instructions, the next one has only the
journal and the world. Effects are generators: `yield 1.5` waits, and whatever else is due may
happen meanwhile, a stop for instance.
"""

import heapq
from collections.abc import Callable, Generator
from dataclasses import replace

from supervisor.core.activity import Activity, GpuActivity
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
    LeaseGpus,
    ReclaimWorker,
    SetGpusAside,
    SpawnAttempt,
    StopWorker,
    WaitBackoff,
    WaitForSpace,
)
from supervisor.core.events import (
    AttemptSpawned,
    BackoffElapsed,
    CheckpointChosen,
    CheckpointVerified,
    DeadlineDeferred,
    DeadlinePassed,
    Event,
    GpusAwaited,
    GpusLeased,
    GpusSetAside,
    GpuTroubleSeen,
    HoldRequired,
    LimitExceeded,
    ProgressBegan,
    RejectedCheckpoint,
    RunnerStarted,
    SignSeen,
    SpaceReturned,
    StopRequested,
    WorkerExited,
    WorkerRevived,
)
from supervisor.core.evidence import Breach, DeadlineName, Evidence, Limit, Oom, SpawnError
from supervisor.core.hang import LONGEST_WINDOW_S, Verdict, judge
from supervisor.core.machine import TRANSITIONS, step
from supervisor.core.signatures import error_line, first_root_error
from supervisor.core.state import JobState
from tests.simulation.script import HEARTBEAT_S, STARTUP_S, STOP_S
from tests.simulation.world import (
    HARD_BYTES,
    RAM_BYTES,
    SOFT_BYTES,
    Checkpoint,
    Worker,
    World,
)

LOOK_S = 2.0
TURNS = 20_000
TICK_S = 0.01  # a clock that only moves when something is due must not stand still
WATCHED = {DeadlineName.STARTUP, DeadlineName.HEARTBEAT}
TIMEOUTS = Timeouts(startup_s=STARTUP_S, heartbeat_s=HEARTBEAT_S, stop_s=STOP_S)
POLICY = Policy()

Task = Generator[float | None, None, None]

# What is seen of a worker that is silent, by what it does.
SEEN = {
    "sleeps": Activity(LONGEST_WINDOW_S),
    "works": Activity(LONGEST_WINDOW_S, io_bytes_per_s=1e7),
    "busy": Activity(LONGEST_WINDOW_S, cpu_share=1.0),
    "spins": Activity(
        LONGEST_WINDOW_S, cpu_share=1.0, gpus=(GpuActivity("GPU-a", 100.0, 0.0, 100.0, 700.0),)
    ),
    "uninterruptible": Activity(LONGEST_WINDOW_S, uninterruptible=(7,)),
    "stopped": Activity(LONGEST_WINDOW_S, stopped=(7,)),
}


def replayed(world: World) -> JobState:
    """The state that the journal tells of."""
    state = JobState(timeouts=TIMEOUTS, gpus_wanted=1 if world.gpus else 0)
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
        self.held: tuple[str, ...] = ()
        self.setting_aside = 0
        self.spoke_at = self.excused_at = 0.0

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
                self.passed(due[0])
        if self.on_exit is not None and self.live and not self.live.alive:
            waiter, self.on_exit = self.on_exit, None
            self.start(waiter, 0.01)

    def passed(self, name: DeadlineName) -> None:
        """A deadline passed; of a silent worker it is judged whether it is hung."""
        verdict = self.judged(name) if name in WATCHED else None
        if verdict is None or verdict.kill:
            seen = "" if verdict is None else verdict.reason
            self.feed(DeadlinePassed(name, TIMEOUTS.of(name), seen))
            return
        self.world.deferred(self.world.now - self.spoke_at)
        self.feed(DeadlineDeferred(name, max(verdict.extra_s, TICK_S)))

    def judged(self, name: DeadlineName) -> Verdict | None:
        """As `runner.suspicion` does it: somebody who halts a worker takes its silence away."""
        timeout_s, worker, now = TIMEOUTS.of(name), self.live, self.world.now
        if worker is None or not worker.alive:
            return None
        silent_s = now - max(self.spoke_at, self.excused_at)
        if silent_s < timeout_s:
            return Verdict(kill=False, extra_s=timeout_s - silent_s, reason="")
        verdict = judge(timeout_s, silent_s, SEEN[worker.doing])
        if verdict.excused:
            self.excused_at = now
        return verdict

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
            self.setting_aside += isinstance(effect, SetGpusAside)
            self.start(self.perform(effect))

    def perform(self, effect: Effect) -> Task:
        """The task that carries out an effect."""
        fields = {name: getattr(effect, name) for name in effect.__dataclass_fields__}
        return _TABLE[type(effect)](self, **fields)

    def end(self, state: State) -> Task:
        """Leave, once what others must know of the GPUs is written down."""
        while self.setting_aside:
            yield TICK_S
        if self.result is None:
            self.result = state

    def held_for_survivors(self) -> bool:
        """Whether something of an earlier attempt lives: then nothing may begin."""
        lives = self.world.worker is not None and self.world.worker.alive
        if lives:
            self.feed(HoldRequired(Cause.UNKILLABLE, "process 7 does not end"))
        return lives

    def lease(self, avoid: tuple[str, ...]) -> Task:
        """Get a GPU: the last one, if it is fit; else another, or wait until there is one."""
        world = self.world
        yield 0.1
        if self.held_for_survivors():
            return
        told = False
        while True:
            fit = world.fit_gpus(avoid)
            if fit:
                break
            if not told:
                self.feed(GpusAwaited("all are set aside"))
            told = True
            yield 30.0
        again = [one for one in self.held if one in fit]
        self.held = (again[0] if again else world.chance.choice(fit),)
        yield 0.0
        self.feed(GpusLeased(self.held))

    def set_aside(self, gpus: tuple[str, ...], reason: str) -> Task:
        """Keep everybody from these GPUs; the file outlives this runner."""
        yield 0.05
        self.world.gpus_aside |= dict.fromkeys(gpus, reason)
        self.world.note(f"{' '.join(gpus)} set aside: {reason}")
        yield 0.0
        self.feed(GpusSetAside(gpus))
        self.setting_aside -= 1

    def wait_for_space(self) -> Task:
        """Others may have the GPU meanwhile."""
        self.held = ()
        yield 1.0
        while not self.world.has_room():
            yield 30.0
        self.feed(SpaceReturned())

    def reclaim(self, number: int, *, rebooted: bool) -> Task:
        """End what is left of a lost attempt."""
        self.world.promise(number == self.state.attempt, "the lost attempt is the last one")
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
        if self.held_for_survivors():
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
            if not world.has_room():
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

    def spawn(self, number: int, path: str | None, step: int | None, gpus: tuple[str, ...]) -> Task:
        """Start the worker and see it out."""
        world, begin = self.world, step
        world.promise((path is None) == (step is None), "a checkpoint is named with its step")
        yield 0.05
        world.took_number(number)
        failed = world.script.struck_at_start(begin or 0, "no_command", "spawn_fails")
        if failed:
            error = SpawnError("exec", 2, "cannot be started", permanent=failed == "no_command")
            yield from self.conclude(Evidence(spawn_error=error))
            return
        worker = world.spawn(number, begin, gpus)
        world.instruction()
        self.live, self.heard, self.look_at = worker, 0, world.now + LOOK_S
        self.spoke_at = self.excused_at = world.now
        self.feed(AttemptSpawned(number, 7, 8))
        yield None
        self.feed(WorkerExited(number, worker.exit_code, worker.signal))

    def stop(self) -> Task:
        """Ask the worker to stop."""
        yield 0.0
        if self.live is not None:
            self.live.asked_to_stop = True

    def kill(self, *, capture_stacks: bool) -> Task:
        """Save the stacks of a hang, then SIGKILL; unless it goes on while they are saved."""
        hung = capture_stacks
        heard = self.heard
        if hung and self.live is not None:
            self.live.looked_at()
        yield 0.3 if hung else 0.0
        if self.live is None:
            return
        if hung:
            self.look()
            if self.heard > heard:
                self.feed(WorkerRevived(self.state.attempt))
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
            self.heard, self.spoke_at = worker.signs, self.world.now
            self.feed(SignSeen(self.said(worker)))
        self.look_at_limits(worker)
        self.survey()

    def look_at_limits(self, worker: Worker) -> None:
        """Its memory, and what the driver said."""
        while worker.troubles:
            trouble = worker.troubles[0]
            self.feed(GpuTroubleSeen(worker.number, trouble))
            worker.troubles.pop(0)
        for limit, used, most in (
            (Limit.MEMORY, worker.ram_bytes, RAM_BYTES),
            (Limit.GPU_MEMORY, worker.gpu_bytes, HARD_BYTES),
            (Limit.GPU_MEMORY_SOFT, worker.gpu_bytes, SOFT_BYTES),
        ):
            if worker.alive and used > most:
                self.feed(LimitExceeded(worker.number, Breach(limit, used, most)))

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

    def concluded(self, number: int) -> Task:
        """The worker exited; nothing else is known of it."""
        self.world.promise(number == self.state.attempt, "it is the running attempt that ended")
        return self.conclude(Evidence())

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
        struck = worker is not None and worker.killed_for_memory
        reached = max(at or 0, state.best_checkpoint or 0) >= world.script.total
        seen = replace(
            seen,
            exit_code=state.exit_code,
            signal=state.signal,
            stop_requested=state.stop_requested,
            deadline=state.fired,
            deadline_s=None if state.fired is None else TIMEOUTS.of(state.fired),
            oom=Oom(1, of_limit=True, source="cgroup v2") if struck else None,
            breach=state.breach,
            hang=state.seen,
            gpus=state.gpus,
            gpu_troubles=state.troubles,
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


_TABLE: dict[type[Effect], Callable[..., Task]] = {
    EndRun: Runner.end,
    LeaseGpus: Runner.lease,
    SetGpusAside: Runner.set_aside,
    WaitForSpace: Runner.wait_for_space,
    ReclaimWorker: Runner.reclaim,
    ChooseCheckpoint: Runner.choose,
    SpawnAttempt: Runner.spawn,
    StopWorker: Runner.stop,
    KillWorker: Runner.kill,
    ConcludeAttempt: Runner.concluded,
    WaitBackoff: Runner.wait,
}
