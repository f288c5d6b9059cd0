"""What to do next: the instructions that `machine.step` gives and the runner carries out.

Owns the vocabulary of the imperative. An effect is only ever carried out after the event that led
to it is in the journal.
"""

from dataclasses import dataclass

from supervisor.core.causes import State


@dataclass(frozen=True, slots=True)
class Effect:
    """One instruction to the runner."""


@dataclass(frozen=True, slots=True)
class ReclaimWorker(Effect):
    """Make sure that nothing of a lost attempt is left, then conclude it."""

    number: int
    rebooted: bool


@dataclass(frozen=True, slots=True)
class ChooseCheckpoint(Effect):
    """Find the newest checkpoint that verifies, below a step where one is given (exclusive)."""

    below: int | None = None


@dataclass(frozen=True, slots=True)
class LeaseGpus(Effect):
    """Get the GPUs of the next attempt, those of the last one if they are clean.

    `avoid` are not for this job: an attempt failed there, and it is to be tried elsewhere.
    """

    avoid: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SetGpusAside(Effect):
    """Keep everybody from these GPUs until a person has looked, or the host was restarted.

    Reported as GpusSetAside; a runner does not leave before that.
    """

    gpus: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class WaitForSpace(Effect):
    """Report SpaceReturned when the disks of the job have room again."""


@dataclass(frozen=True, slots=True)
class SpawnAttempt(Effect):
    """Start the worker of this attempt, from this checkpoint or from the beginning."""

    number: int
    path: str | None
    step: int | None
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StopWorker(Effect):
    """Ask the worker to stop at the next batch boundary."""


@dataclass(frozen=True, slots=True)
class KillWorker(Effect):
    """SIGKILL the whole tree; after a hang, save its stacks first."""

    capture_stacks: bool = False


@dataclass(frozen=True, slots=True)
class ConcludeAttempt(Effect):
    """Gather the evidence of the ended attempt, find its cause and decide."""

    number: int


@dataclass(frozen=True, slots=True)
class WaitBackoff(Effect):
    """Report BackoffElapsed after this wait."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class EndRun(Effect):
    """Nothing is left to do in this state: the runner leaves."""

    state: State
