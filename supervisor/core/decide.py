"""From cause and history to a decision: a table of defaults, overridden by job.yaml's `restart`.

Owns the policy. Pure: the age of failures and the jitter arrive as arguments. A restart is counted
against the budget until a checkpoint with a later step is verified; then the count starts anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from supervisor.core.causes import Action, Cause
from supervisor.core.signatures import same_error


@dataclass(frozen=True, slots=True)
class Rule:
    """What a cause leads to.

    `limit` caps restarts for this very cause without progress (None: the budget alone); `after` is
    what follows when it is used up. `deterministic` causes are permanent when they strike twice at
    one step. `counted` is False where the failure says nothing about the job. `unleased` is what
    is done where the job holds no GPU of ours, so that there is no other one to go to.
    """

    action: Action
    limit: int | None = None
    after: Action = Action.GIVE_UP
    deterministic: bool = False
    counted: bool = True
    unleased: "Rule | None" = None


_RESUME = Rule(Action.RESUME)
_GIVE_UP = Rule(Action.GIVE_UP)
_HOLD = Rule(Action.HOLD, counted=False)

RULES = MappingProxyType(
    {
        Cause.COMPLETED: Rule(Action.FINISH, counted=False),
        Cause.STOPPED: Rule(Action.FINISH, counted=False),
        Cause.EXIT_CODE: Rule(Action.RESUME, deterministic=True),
        Cause.SIGNAL: _RESUME,
        Cause.STARTUP_TIMEOUT: _RESUME,
        Cause.HANG: _RESUME,
        Cause.TOTAL_TIMEOUT: _GIVE_UP,
        Cause.HOST_OOM: _RESUME,
        Cause.HOST_MEMORY_LIMIT: _RESUME,
        Cause.CUDA_OOM: Rule(Action.RESUME, limit=1, deterministic=True),
        Cause.GPU_MEMORY_LIMIT: Rule(Action.RESUME, limit=1, deterministic=True),
        Cause.CUDA_ERROR: Rule(Action.RESUME, limit=1, deterministic=True),
        Cause.GPU_HARDWARE: Rule(
            Action.RETRY_OTHER_GPU,
            limit=3,
            after=Action.HOLD,
            unleased=Rule(Action.RESUME, limit=1, after=Action.HOLD),
        ),
        Cause.NCCL: _RESUME,
        Cause.SHM: _GIVE_UP,
        Cause.DATALOADER: _RESUME,
        Cause.DISK_FULL: _HOLD,
        Cause.NON_FINITE: Rule(Action.RESUME_FROM_OLDER, limit=1, deterministic=True),
        Cause.BAD_CHECKPOINT: Rule(Action.RESUME_FROM_OLDER),
        Cause.BAD_CONFIG: _GIVE_UP,
        Cause.SPAWN_FAILED: _RESUME,
        Cause.INCOMPLETE: Rule(Action.RESUME, deterministic=True),
        Cause.POISON_ITEM: _HOLD,
        Cause.UNKILLABLE: Rule(Action.RETRY_OTHER_GPU, limit=3, after=Action.HOLD, unleased=_HOLD),
        Cause.RUNNER_LOST: Rule(Action.RESUME, counted=False),
        Cause.HOST_REBOOTED: Rule(Action.RESUME, counted=False),
    }
)

# The words of `restart.on` in job.yaml.
OVERRIDES = MappingProxyType(
    {
        "resume": Rule(Action.RESUME),
        "retry_once": Rule(Action.RESUME, limit=1),
        "resume_from_older": Rule(Action.RESUME_FROM_OLDER),
        "retry_other_gpu": Rule(Action.RETRY_OTHER_GPU, after=Action.HOLD),
        "hold": _HOLD,
        "give_up": _GIVE_UP,
    }
)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Wait before the next attempt: `initial_s * factor ** n`, at most `max_s`, ± `jitter`."""

    initial_s: float = 1.0
    max_s: float = 300.0
    factor: float = 2.0
    jitter: float = 0.1

    def delay_s(self, failures: int, draw: float) -> float:
        """Seconds to wait after the n-th failure in a row (n >= 1). `draw` lies in [0, 1)."""
        try:
            plain = self.initial_s * self.factor ** (failures - 1)
        except OverflowError:
            plain = self.max_s if self.initial_s else 0.0
        return min(self.max_s, plain) * (1 + self.jitter * (2 * draw - 1))


@dataclass(frozen=True, slots=True)
class Policy:
    """job.yaml's `restart`: budget of restarts without progress, and what overrides the table."""

    budget: int = 5
    window_s: float | None = None
    backoff: Backoff = field(default_factory=Backoff)
    on: Mapping[Cause, str] = field(default_factory=dict)

    def rule(self, cause: Cause) -> Rule:
        """The rule for a cause, the job's own word first."""
        word = self.on.get(cause)
        return RULES[cause] if word is None else OVERRIDES[word]


@dataclass(frozen=True, slots=True)
class Failure:
    """One counted failure since the last checkpoint progress. `at_s` is wall-clock epoch time.

    `at_start` says that the attempt reported no step beyond where it began, `leased` that it held
    GPUs of ours.
    """

    cause: Cause
    step: int | None
    error_line: str | None
    at_s: float
    permanent: bool = False
    at_start: bool = False
    leased: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens next, with its reason in words; `delay_s` is the wait before it happens."""

    action: Action
    reason: str
    delay_s: float = 0.0
    counted: bool = False


_PLAIN = {
    Action.FINISH: "nothing more to do",
    Action.HOLD: "a person is needed",
    Action.GIVE_UP: "a restart cannot help",
}


_UNTIL_ROOM = "it goes on by itself when there is room; costs no restart"


def decide(policy: Policy, past: tuple[Failure, ...], new: Failure, draw: float) -> Decision:
    """What to do after `new`, given the failures before it since the last progress."""
    rule = policy.rule(new.cause)
    if not new.leased and rule.unleased is not None:
        rule = rule.unleased
    if rule.action in _PLAIN:
        waits = rule.action is Action.HOLD and new.cause is Cause.DISK_FULL
        return Decision(rule.action, _UNTIL_ROOM if waits else _PLAIN[rule.action])
    if not rule.counted:
        return Decision(rule.action, "not the job's fault: costs no restart")
    if new.permanent and new.cause not in policy.on:
        return Decision(Action.GIVE_UP, "permanent: a restart cannot help")
    if rule.deterministic and _same_again(past, new):
        return Decision(Action.GIVE_UP, f"the same failure at the same step ({new.step}) twice")
    recent = _within(policy.window_s, past, new.at_s)
    if rule.limit is not None and sum(one.cause is new.cause for one in recent) >= rule.limit:
        times = "once" if rule.limit == 1 else f"{rule.limit} times"
        return Decision(rule.after, f"{new.cause} again: it is retried {times}")
    if len(recent) >= policy.budget:
        return Decision(
            Action.GIVE_UP, f"{len(recent)} restarts without progress: the budget is used up"
        )
    used = len(recent) + 1
    return Decision(
        rule.action,
        f"restart {used} of {policy.budget} without progress",
        delay_s=policy.backoff.delay_s(used, draw),
        counted=True,
    )


def _within(window_s: float | None, past: tuple[Failure, ...], now_s: float) -> list[Failure]:
    return [one for one in past if window_s is None or now_s - one.at_s < window_s]


def _same_again(past: tuple[Failure, ...], new: Failure) -> bool:
    """Whether one of them is the same. An unknown step equals no other.

    Neither do two that are only where the attempts began: a job whose steps cannot be read would
    seem to fail there each time.
    """
    return new.step is not None and any(
        one.cause is new.cause
        and one.step == new.step
        and not (one.at_start and new.at_start)
        and same_error(one.error_line, new.error_line)
        for one in past
    )
