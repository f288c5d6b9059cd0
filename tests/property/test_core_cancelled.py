"""The state machine under any sequence of events, and its owner may end the job at any time."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from supervisor.core.causes import State
from supervisor.core.effects import EndRun, SetGpusAside
from supervisor.core.events import JobCancelled, RunnerStarted
from supervisor.core.machine import TRANSITIONS
from tests.property.test_core_machine import Life

ATTEMPTING = {State.RUNNING, State.STOPPING}


class CancelledLife(Life):
    """One job that may be cancelled, by whoever holds it: its runner, or who came after that."""

    def __init__(self) -> None:
        super().__init__()
        self.cancelled_at: int | None = None

    @precondition(lambda self: not self.runs and self.may_begin)
    @rule(rebooted=st.booleans())
    def a_runner_starts(self, *, rebooted: bool) -> None:
        """Nobody starts one for a job that is cancelled."""
        super().a_runner_starts(rebooted=rebooted)

    @precondition(lambda self: (self.state.phase, JobCancelled) in TRANSITIONS)
    @rule()
    def its_owner_cancels_it(self) -> None:
        """Nothing of an attempt is left then, and what it spoilt is set aside."""
        assert self.state.phase not in ATTEMPTING
        spoilt = {uuid for uuid, _ in self.state.spoilt}
        before = list(self.pending)
        self.feed(JobCancelled("anna"))
        self.cancelled_at = len(self.journal)
        asked = self.pending[len(before) :]
        assert asked[-1] == EndRun(State.CANCELLED)
        assert {uuid for one in asked[:-1] for uuid in self.uuids(one)} == spoilt
        self.pending = asked if self.runs else []

    @property
    def may_begin(self) -> bool:
        """Whether a runner may take the job over."""
        known = (self.state.phase, RunnerStarted) in TRANSITIONS
        return known and self.state.phase is not State.SUCCEEDED

    @staticmethod
    def uuids(effect: object) -> tuple[str, ...]:
        """The GPUs that an effect sets aside."""
        assert isinstance(effect, SetGpusAside)
        return effect.gpus

    @invariant()
    def what_is_cancelled_stays_so(self) -> None:
        """No event leads out of it, and none but a GPU's setting aside is ever kept."""
        if self.cancelled_at is None:
            return
        assert self.state.phase is State.CANCELLED
        later = {type(one).__name__ for one in self.journal[self.cancelled_at :]}
        assert later <= {"GpusSetAside"}


CancelledLife.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestCancelledLife = CancelledLife.TestCase
