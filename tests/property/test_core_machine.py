"""The state machine under any sequence of events that a legal runner could feed it.

The model plays the runner, honestly but at the worst moments: effects wait until a rule carries
them out, a crash forgets all of them, and the next runner has nothing but the journal.
"""

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from supervisor.core.cadence import Cadence
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
from supervisor.core.ending import spoilt_gpus
from supervisor.core.events import (
    AttemptEnded,
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
    RunnerStarted,
    SignSeen,
    SpaceReturned,
    SpecChanged,
    StopRequested,
    WorkerExited,
    WorkerRevived,
)
from supervisor.core.evidence import Breach, DeadlineName, Evidence, Limit, SpawnError
from supervisor.core.gpu import GpuTrouble, Severity, TroubleKind, xid_trouble
from supervisor.core.machine import TRANSITIONS, step
from supervisor.core.signatures import first_root_error
from supervisor.core.state import JobState

TIMEOUTS = Timeouts(startup_s=30.0, heartbeat_s=20.0, stop_s=5.0, total_s=5000.0)
POLICY = Policy(budget=2, on={Cause.NCCL: "retry_other_gpu"})
ENDS = {State.STOPPED, State.SUCCEEDED, State.FAILED, State.HOLDING, State.CANCELLED}
SILENCE = {DeadlineName.STARTUP, DeadlineName.HEARTBEAT}
HOST_GPUS = ("GPU-a", "GPU-b", "GPU-c", "GPU-d")
LOGS = [None, "CUDA out of memory", "No space left on device", "Ran out of input", "loss: nan"]
LOGS += ["ImportError: x", "NCCL error", "CUDA error: device-side assert triggered"]

steps = st.integers(0, 30)
statuses = st.sampled_from([(0, None), (1, None), (137, None), (None, 9), (None, 11), (None, 15)])


def trouble(uuid: str, code: int) -> GpuTrouble:
    """A trouble with this Xid; 0 stands for a driver that gives no answer."""
    if code:
        return xid_trouble(uuid, code, 1.0)
    return GpuTrouble(uuid, TroubleKind.DRIVER_HUNG, None, "no answer", Severity.AVOID, 1.0)


class Life(RuleBasedStateMachine):
    """One job, its runners and its workers."""

    def __init__(self) -> None:
        super().__init__()
        self.born = JobState(timeouts=TIMEOUTS)
        self.state = self.born
        self.journal: list[Event] = []
        self.pending: list[Effect] = []
        self.now = 0.0
        self.runs = self.stop_asked = False
        self.worker_alive = False
        self.spawns = self.free = 0
        self.leased: tuple[str, ...] = ()
        self.aside: set[str] = set()

    @initialize(gpus=st.integers(0, 2), auto=st.booleans())
    def it_is_accepted(self, gpus: int, *, auto: bool) -> None:
        """As job.yaml says."""
        self.born = JobState(timeouts=replace(TIMEOUTS, heartbeat_auto=auto), gpus_wanted=gpus)
        self.state = self.born

    def replayed(self) -> JobState:
        """The state that a new runner starts from."""
        state = self.born
        for event in self.journal:
            state, _ = step(state, event, 0.0)
        return replace(state, deadlines=Deadlines())

    def feed(self, event: Event) -> None:
        """Step, commit, and note what is to be done. Too late an event is dropped, as ever."""
        row = TRANSITIONS.get((self.state.phase, type(event)))
        if row is None:
            return
        before, (self.state, effects) = self.state, step(self.state, event, self.now)
        assert self.state.phase in row[1]
        if event.durable:
            self.journal.append(event)
        if before.failures and not self.state.failures:
            self.spawns = self.free = 0
        if isinstance(event, AttemptEnded) and not event.counted:
            self.free += 1
        for effect in effects:
            self.will(effect)

    def will(self, effect: Effect) -> None:
        """What must hold at the moment in which an effect is asked for."""
        if isinstance(effect, SpawnAttempt):
            assert not self.worker_alive
            earlier = [one.number for one in self.journal if isinstance(one, AttemptEnded)]
            assert earlier == list(range(1, effect.number))
            assert effect.gpus == self.leased
            assert len(effect.gpus) == self.state.gpus_wanted
            self.spawns += 1
        if isinstance(effect, EndRun):
            assert effect.state is self.state.phase
        if isinstance(effect, LeaseGpus):
            self.leased = ()
            assert {uuid for uuid, _ in self.state.spoilt} <= set(effect.avoid)
        if isinstance(effect, WaitBackoff | WaitForSpace):
            assert not self.stop_asked
        self.pending.append(effect)

    def take(self, kind: type[Effect]) -> Effect | None:
        """The next pending effect of a kind, if there is one."""
        for one in self.pending:
            if isinstance(one, kind):
                self.pending.remove(one)
                return one
        return None

    def end(self, seen: Evidence, draw: float = 0.5) -> None:
        """Conclude the attempt from this evidence and what the state knows."""
        state = self.state
        seen = replace(
            seen,
            exit_code=state.exit_code,
            signal=state.signal,
            stop_requested=state.stop_requested,
            deadline=state.fired,
            deadline_s=None if state.fired is None else state.timeouts.of(state.fired),
            breach=state.breach,
            hang=state.seen,
            gpus=state.gpus,
            gpu_troubles=state.troubles,
            step=state.step,
            resumed_step=state.resumed_step,
            progressed=state.saved_step is not None,
        )
        event = conclude(state, POLICY, seen, Moment(self.now, 1.0, draw))
        assert seen.breach is None or seen.done or event.cause is not Cause.COMPLETED
        self.feed(event)

    @precondition(lambda self: not self.runs and self.state.phase is not State.SUCCEEDED)
    @rule(rebooted=st.booleans())
    def a_runner_starts(self, *, rebooted: bool) -> None:
        """A person, or a daemon, runs the job again."""
        self.runs, self.stop_asked, self.leased = True, False, ()
        self.aside -= set(HOST_GPUS) if rebooted else set()
        if self.state.phase in {State.FAILED, State.HOLDING}:
            self.spawns = self.free = 0
        self.feed(RunnerStarted(1, 2, "boot", rebooted))

    @precondition(lambda self: self.runs)
    @rule(worker_dies=st.booleans())
    def the_runner_is_killed(self, *, worker_dies: bool) -> None:
        """Everything but the journal is lost; the worker may live a little longer."""
        self.runs, self.pending = False, []
        self.worker_alive = self.worker_alive and not worker_dies
        self.state = self.replayed()

    @precondition(lambda self: self.take_is_due(EndRun) and not self.take_is_due(SetGpusAside))
    @rule()
    def the_runner_leaves(self) -> None:
        """It has nothing left to do; what a spoilt GPU needs was done before."""
        self.runs, self.pending = False, []

    @precondition(lambda self: not self.runs)
    @rule(gpus=st.integers(0, 2))
    def the_job_file_changes(self, gpus: int) -> None:
        """A person continues under a changed job.yaml."""
        self.born = replace(self.born, gpus_wanted=gpus)
        self.state = self.replayed()
        self.feed(SpecChanged(("lr: 1 -> 2",)))

    @precondition(lambda self: self.take_is_due(LeaseGpus))
    @rule(first=st.integers(0, 3), never=st.booleans())
    def gpus_are_asked_for(self, first: int, *, never: bool) -> None:
        """Leased where enough are free and fit; else waited for, or the host has too few."""
        asked = next(one for one in self.pending if isinstance(one, LeaseGpus))
        fit = [one for one in HOST_GPUS if one not in self.aside and one not in asked.avoid]
        wanted = self.state.gpus_wanted
        if len(fit) >= wanted:
            self.take(LeaseGpus)
            self.leased = tuple((fit + fit)[first % len(fit) :][:wanted])
            self.feed(GpusLeased(self.leased))
        elif never:
            self.take(LeaseGpus)
            self.feed(HoldRequired(Cause.BAD_CONFIG, "too few"))
        else:
            self.feed(GpusAwaited("none is free"))

    @precondition(lambda self: self.take_is_due(SetGpusAside))
    @rule()
    def gpus_are_set_aside(self) -> None:
        """Nobody on this host gets them."""
        asked = self.take(SetGpusAside)
        assert isinstance(asked, SetGpusAside)
        self.aside |= set(asked.gpus)
        self.feed(GpusSetAside(asked.gpus))

    @precondition(lambda self: self.aside)
    @rule()
    def a_person_releases_the_gpus(self) -> None:
        """`supervise gpus --release`."""
        self.aside.clear()

    @precondition(lambda self: self.take_is_due(WaitForSpace))
    @rule()
    def the_disk_has_room_again(self) -> None:
        """Somebody else made room."""
        self.take(WaitForSpace)
        self.feed(SpaceReturned())

    @precondition(lambda self: self.take_is_due(ChooseCheckpoint))
    @rule(newest=st.none() | steps, candidates=st.integers(0, 2))
    def a_checkpoint_is_chosen(self, newest: int | None, candidates: int) -> None:
        """The newest that verifies, below the ceiling; or none of however many."""
        asked = self.take(ChooseCheckpoint)
        assert isinstance(asked, ChooseCheckpoint)
        if newest is None or (asked.below is not None and newest >= asked.below):
            self.feed(CheckpointChosen(None, None, candidates))
        else:
            self.verify(newest)
            self.feed(CheckpointChosen("c", newest, candidates + 1))

    @precondition(lambda self: self.take_is_due(ChooseCheckpoint))
    @rule()
    def nothing_may_start_now(self) -> None:
        """The disk is full, or something of an earlier worker does not end."""
        self.take(ChooseCheckpoint)
        self.feed(HoldRequired(Cause.DISK_FULL, "full"))

    @precondition(lambda self: self.take_is_due(SpawnAttempt))
    @rule(works=st.booleans(), permanent=st.booleans())
    def the_worker_is_spawned(self, *, works: bool, permanent: bool) -> None:
        """Or not: then the attempt ends without ever having begun."""
        if self.take(SpawnAttempt) and works:
            self.worker_alive = True
            self.feed(AttemptSpawned(self.state.attempt, 7, 8))
        else:
            self.end(Evidence(spawn_error=SpawnError("exec", 2, "no", permanent)))

    @precondition(lambda self: self.watched)
    @rule(at=st.none() | steps, wait_s=st.floats(0, 19))
    def the_worker_speaks(self, at: int | None, wait_s: float) -> None:
        """A sign of progress, within the heartbeat."""
        self.now += wait_s
        self.feed(ProgressBegan(self.state.attempt))
        self.feed(SignSeen(at))

    @precondition(lambda self: self.runs and self.state.exited)
    @rule(at=st.none() | steps)
    def its_last_words_are_heard(self, at: int | None) -> None:
        """What it wrote before it ended is read afterwards."""
        self.feed(ProgressBegan(self.state.attempt))
        self.feed(SignSeen(at))

    @precondition(lambda self: self.watched)
    @rule(at=steps)
    def verify(self, at: int) -> None:
        """A checkpoint verified."""
        self.feed(CheckpointVerified(at, "c", "zip", "crc", 1, 1.0, pinned=True))

    @precondition(lambda self: self.watched)
    @rule(limit=st.sampled_from(Limit), leaves=st.booleans())
    def a_limit_is_exceeded(self, limit: Limit, *, leaves: bool) -> None:
        """Which is said at every look, until it is gone; perhaps at once, and with exit code 0."""
        self.feed(LimitExceeded(self.state.attempt, Breach(limit, 2, 1)))
        if leaves:
            self.the_worker_exits((0, None), then_stopped=False)

    @precondition(lambda self: self.runs and self.state.attempt and self.state.gpus)
    @rule(code=st.sampled_from([0, 31, 63, 79]))
    def a_gpu_is_in_trouble(self, code: int) -> None:
        """Heard of while the attempt runs, or a moment later."""
        if self.worker_alive or self.state.exited:
            self.feed(GpuTroubleSeen(self.state.attempt, trouble(self.state.gpus[0], code)))

    @precondition(lambda self: self.watched)
    @rule(status=statuses, then_stopped=st.booleans())
    def the_worker_exits(
        self, status: tuple[int | None, int | None], *, then_stopped: bool
    ) -> None:
        """By itself, or because of a stop; and a stop may come a moment too late."""
        self.worker_alive = False
        self.feed(WorkerExited(self.state.attempt, *status))
        if then_stopped:
            self.a_person_stops_it(forced=False)

    @precondition(lambda self: self.runs and self.state.deadlines.next() is not None)
    @rule(moves=st.booleans())
    def a_deadline_passes(self, *, moves: bool) -> None:
        """The one that is due first; never one that is not armed."""
        due = self.state.deadlines.next()
        assert due is not None
        self.now = max(self.now, due[1])
        self.feed(DeadlinePassed(due[0], self.state.timeouts.of(due[0]), "and idle"))
        if moves and self.being_killed_as_hung:
            self.it_moves_while_its_stacks_are_saved()

    @precondition(lambda self: self.watched and self.is_silent)
    @rule(extra_s=st.floats(0.1, 30))
    def it_is_silent_but_works(self, extra_s: float) -> None:
        """It is looked at, and gets more time: exactly as much as it was given."""
        due = self.state.deadlines.next()
        assert due is not None
        self.now = max(self.now, due[1])
        self.feed(DeadlineDeferred(due[0], extra_s))
        later = self.state.deadlines.next()
        assert later is not None
        assert later[1] <= self.now + extra_s

    @precondition(lambda self: self.being_killed_as_hung)
    @rule()
    def it_moves_while_its_stacks_are_saved(self) -> None:
        """Then it is left alone; unless it is to leave for another reason."""
        self.pending.remove(KillWorker(capture_stacks=True))
        self.feed(WorkerRevived(self.state.attempt))

    @precondition(lambda self: self.runs)
    @rule(forced=st.booleans())
    def a_person_stops_it(self, *, forced: bool) -> None:
        """At any moment, gently or not."""
        self.stop_asked = True
        self.feed(StopRequested("Ctrl-C", forced))

    @precondition(lambda self: self.take_is_due(KillWorker) and self.watched)
    @rule(ends=st.booleans())
    def the_worker_is_killed(self, *, ends: bool) -> None:
        """Or cannot be: then the attempt ends while the worker lives on."""
        self.take(KillWorker)
        if ends:
            self.worker_alive = False
            self.feed(WorkerExited(self.state.attempt, None, 9))
        else:
            self.end(Evidence(survivors=(7,)))
            self.worker_alive = False  # it must be gone before anybody may choose again

    @precondition(lambda self: self.take_is_due(StopWorker))
    @rule()
    def the_worker_is_asked_to_stop(self) -> None:
        """Which by itself changes nothing."""
        self.take(StopWorker)

    @precondition(lambda self: self.take_is_due(ConcludeAttempt))
    @rule(log=st.sampled_from(LOGS), done=st.sampled_from([True, False, None]), oom=st.booleans())
    def the_attempt_is_concluded(self, log: str | None, *, done: bool | None, oom: bool) -> None:
        """From whatever evidence there is."""
        self.take(ConcludeAttempt)
        error = None if log is None else first_root_error([log])
        done = done and self.state.exit_code == 0
        self.end(Evidence(root_error=error, error_line=log, done=done, oom_kills=int(oom)))

    @precondition(lambda self: self.take_is_due(ReclaimWorker))
    @rule()
    def the_lost_attempt_is_concluded(self) -> None:
        """What is left of it is ended first."""
        asked = self.take(ReclaimWorker)
        assert isinstance(asked, ReclaimWorker)
        self.worker_alive = False
        state = self.state
        known = state.exit_code is not None or state.signal is not None or state.fired is not None
        lost = not known
        self.end(
            Evidence(runner_lost=lost and not asked.rebooted, host_rebooted=lost and asked.rebooted)
        )

    @precondition(lambda self: self.take_is_due(ChooseCheckpoint) or self.take_is_due(LeaseGpus))
    @rule(at=st.none() | steps, signal=st.sampled_from([9, 11]), code=st.sampled_from([31, 79]))
    def a_whole_attempt_goes_by_and_crashes(self, at: int | None, signal: int, code: int) -> None:
        """The rules above in the usual order, so that long histories come about."""
        if self.take_is_due(LeaseGpus):
            self.gpus_are_asked_for(0, never=False)
        if not self.take_is_due(ChooseCheckpoint):
            return
        best = self.state.best_checkpoint
        self.a_checkpoint_is_chosen(newest=best, candidates=0 if best is None else 1)
        if self.take_is_due(SpawnAttempt):
            self.the_worker_is_spawned(works=True, permanent=False)
            self.the_worker_speaks(at, 1.0)
            if self.state.gpus:
                self.a_gpu_is_in_trouble(code)
            self.the_worker_exits((None, signal), then_stopped=False)
            self.the_attempt_is_concluded(None, done=None, oom=False)
        if self.take_is_due(WaitBackoff):
            self.the_wait_is_over()

    @precondition(lambda self: self.take_is_due(WaitBackoff))
    @rule()
    def the_wait_is_over(self) -> None:
        """The next attempt is due."""
        self.take(WaitBackoff)
        self.feed(BackoffElapsed())

    def take_is_due(self, kind: type[Effect]) -> bool:
        """Whether a runner is there that has such an effect to carry out."""
        return self.runs and any(isinstance(one, kind) for one in self.pending)

    @property
    def is_silent(self) -> bool:
        """Whether the next deadline is about its silence."""
        due = self.state.deadlines.next()
        return due is not None and due[0] in SILENCE

    @property
    def being_killed_as_hung(self) -> bool:
        """Whether its stacks are being saved."""
        return self.watched and KillWorker(capture_stacks=True) in self.pending

    @property
    def watched(self) -> bool:
        """Whether a runner watches a living worker."""
        return self.runs and self.worker_alive and not self.state.exited

    @invariant()
    def replay_equals_the_live_state(self) -> None:
        """All but `deadlines`, `step` and what was learned is in the journal."""
        kept = {"deadlines": Deadlines(), "step": None, "cadence": Cadence(), "timeouts": TIMEOUTS}
        assert replace(self.replayed(), **kept) == replace(self.state, **kept)

    @invariant()
    def no_deadline_without_a_worker(self) -> None:
        """Deadlines are armed only while an attempt runs that nobody has seen the end of."""
        waiting = self.state.phase in {State.RUNNING, State.STOPPING} and not self.state.exited
        assert waiting or self.state.deadlines == Deadlines()

    @invariant()
    def a_job_that_is_not_over_has_a_next_thing_to_happen(self) -> None:
        """While a runner is there, an effect, a worker or a deadline keeps the job going."""
        if self.runs:
            assert self.pending or self.worker_alive
            if self.state.phase in ENDS:
                waits = self.state.phase is State.HOLDING and self.take_is_due(WaitForSpace)
                assert waits or self.take_is_due(EndRun)

    @invariant()
    def nobody_waits_for_a_worker_that_says_nothing(self) -> None:
        """One that lives, and is not being killed, has a deadline of its own, besides the total."""
        armed = self.state.deadlines
        if self.watched and not self.take_is_due(KillWorker):
            one = (armed.startup, armed.heartbeat, armed.stop)
            assert any(at is not None for at in one)

    @invariant()
    def what_was_stopped_does_not_begin_again(self) -> None:
        """Not before somebody runs it again."""
        if self.runs and self.stop_asked:
            assert self.state.phase in {*ENDS, State.STOPPING}

    @invariant()
    def a_spoilt_gpu_is_not_forgotten(self) -> None:
        """Until somebody has confirmed that it is set aside, whoever runs the job knows of it."""
        for event in reversed(self.journal):
            if isinstance(event, GpusSetAside) or getattr(event, "rebooted", False):
                return
            if isinstance(event, AttemptEnded):
                spoilt = set(spoilt_gpus(event.cause, event.evidence))
                assert spoilt <= {uuid for uuid, _ in self.state.spoilt}

    @invariant()
    def restarts_without_progress_are_bounded(self) -> None:
        """By the budget, and by the ends that cost none: each of those took a crash or a stop."""
        assert len(self.state.failures) <= POLICY.budget
        assert self.spawns <= 1 + POLICY.budget + self.free


Life.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestLife = Life.TestCase
