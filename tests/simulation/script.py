"""What happens to a simulated job: its pace, its faults, and who stops it when.

Owns the choice, all of it drawn from one seed. A script says nothing about the runner: the same
one is played with and without runner crashes.
"""

import random
from dataclasses import dataclass, field

HEARTBEAT_S, STARTUP_S, STOP_S = 20.0, 60.0, 10.0

# How a fault ends the worker: exit code, signal, last lines of its log.
DEATHS: dict[str, tuple[int | None, int | None, tuple[str, ...]]] = {
    "exception": (1, None, ("Traceback (most recent call last):", "KeyError: 'x'")),
    "segfault": (None, 11, ()),
    "killed": (None, 9, ()),
    "terminated": (143, None, ()),
    "cuda_oom": (1, None, ("torch.OutOfMemoryError: CUDA out of memory.",)),
    "illegal_access": (1, None, ("CUDA error: an illegal memory access was encountered",)),
    "nccl": (None, 6, ("Watchdog caught collective operation timeout",)),
    "loader": (1, None, ("RuntimeError: DataLoader worker (pid 3) exited unexpectedly",)),
    "not_finite": (1, None, ("loss: nan", "FloatingPointError: loss is nan")),
    "leaves_early": (0, None, ()),
    "device_assert": (1, None, ("CUDA error: device-side assert triggered",)),
    "shm": (None, 7, ()),
    "torn": (None, 9, ()),
    "deleted": (1, None, ("OSError: cleaning up",)),
    "disk_full": (1, None, ("OSError: [Errno 28] No space left on device",)),
    "import_error": (1, None, ("ModuleNotFoundError: No module named 'torchvision'",)),
    "unloadable": (1, None, ("EOFError: Ran out of input",)),
    "over_limit": (None, 9, ()),
    "fallen": (1, None, ("RuntimeError: unspecified launch failure",)),
    "uncorrectable": (1, None, ("CUDA error: uncorrectable ECC error encountered",)),
}
# Silent for longer than a heartbeat: what it does meanwhile, and for how long (None: for ever).
SILENCES: dict[str, tuple[str, float | None]] = {
    "hang": ("sleeps", None),
    "spins": ("busy", None),
    "collective": ("spins", None),
    "unkillable": ("uninterruptible", None),
    "wakes": ("sleeps", None),  # until somebody looks at its stacks
    "compiles": ("busy", 1.5 * HEARTBEAT_S),
    "downloads": ("works", 3.0 * HEARTBEAT_S),
    "halted": ("stopped", 12.0 * HEARTBEAT_S),
}
# Survived anywhere, survived only where two checkpoints exist, and never survived.
PLAIN = ["exception", "segfault", "killed", "terminated", "cuda_oom", "illegal_access", "nccl"]
PLAIN += ["loader", "leaves_early", "hang", "slow", "slow_start", "spawn_fails", "disk_full"]
PLAIN += ["unkillable", "spins", "compiles", "downloads", "halted", "wakes", "over_limit"]
PLAIN += ["ram_burst"]
WITH_GPU = ["fallen", "uncorrectable", "gpu_burst", "faulty", "collective"]
# A GPU that breaks is told of first, and kills its worker a little later.
BROKEN = {"fallen": 79, "uncorrectable": 48}
LATER = ["not_finite", "torn", "deleted", "unloadable"]
FATAL = ["device_assert", "shm", "import_error", "no_command"]
AT_CHECKPOINT = {"torn", "unloadable"}
AT_START = {"slow_start", "spawn_fails", "no_command", "import_error"}


def rng(seed: int | str) -> random.Random:
    """Numbers that are the same for the same seed, on every machine."""
    return random.Random(seed)


@dataclass(slots=True)
class Fault:
    """Strikes when a worker reaches the step: `times` times, or for ever (None)."""

    kind: str
    step: int
    times: int | None = 1

    def strike(self) -> bool:
        """Whether it happens once more; counts it."""
        if self.times is None:
            return True
        self.times -= 1
        return self.times >= 0


@dataclass(slots=True)
class Script:
    """One life of a job. `survivable` ones must succeed, `fatal` ones must not."""

    seed: int
    total: int
    every: int
    kind: str
    faults: list[Fault] = field(default_factory=list)
    stops: list[float] = field(default_factory=list)
    heeds_stop: bool = True
    gpus: int = 0  # of this host; the job wants one of them, where there are any
    leaks: int | None = None  # steps that a worker makes until it is over its soft limit

    @classmethod
    def of(cls, seed: int) -> "Script":
        """The script of a seed."""
        draw = rng(seed)
        every = draw.randint(3, 8)
        kind = draw.choices(["survivable", "fatal", "wild"], [6, 2, 2])[0]
        script = cls(seed, every * draw.randint(3, 7), every, kind)
        script.heeds_stop = draw.random() < 0.7
        script.stops = sorted(draw.uniform(0, 200) for _ in range(draw.choice([0, 0, 1, 2])))
        script.gpus = draw.choice([0, 2, 3])
        if script.gpus and draw.random() < 0.3:
            script.leaks = 4 * every + draw.randint(0, every)
        _FILL[kind](script, draw)
        return script

    @property
    def plain(self) -> list[str]:
        """The faults that may strike anywhere."""
        return PLAIN + (WITH_GPU if self.gpus else [])

    def struck(self, step: int) -> str | None:
        """The fault that strikes a worker at this step; None mostly."""
        for one in self.faults:
            if one.kind not in AT_START and one.step == step and one.strike():
                return one.kind
        return None

    def struck_at_start(self, begin: int, *kinds: str) -> str | None:
        """The fault of these kinds that strikes a worker which starts from this step."""
        for one in self.faults:
            due = one.step - one.step % self.every <= begin
            if one.kind in kinds and due and one.strike():
                return one.kind
        return None

    def pace_s(self, step: int) -> float:
        """How long a step takes: mostly a moment, sometimes nearly a heartbeat."""
        draw = rng(f"{self.seed}:{step}").random()
        return HEARTBEAT_S - 0.5 if draw > 0.97 else 0.2 + 3 * draw


def _fill_survivable(script: Script, draw: random.Random) -> None:
    """At most one fault between two checkpoints, so that each is followed by progress."""
    for start in range(0, script.total, script.every):
        if draw.random() < 0.5:
            kind = draw.choice(script.plain + (LATER if start >= 2 * script.every else []))
            step = start if kind in AT_CHECKPOINT else start + draw.randint(1, script.every - 1)
            script.faults.append(Fault(kind, step))


def _fill_fatal(script: Script, draw: random.Random) -> None:
    """Beside survivable ones, a fault that strikes whenever its step is reached."""
    _fill_survivable(script, draw)
    passing = {"slow", "slow_start", "disk_full", "unkillable", "faulty", "wakes"}
    passing |= {one for one, (_, ends_s) in SILENCES.items() if ends_s is not None}
    kinds = [one for one in [*script.plain, "not_finite", *FATAL] if one not in passing]
    kind = draw.choice(kinds)
    step = draw.randint(1, script.every - 1)
    if kind not in AT_START:
        step += script.every * draw.randrange(script.total // script.every)
    script.faults = [one for one in script.faults if one.step < step - 2 * script.every]
    script.faults.append(Fault(kind, step, times=None))


def _fill_wild(script: Script, draw: random.Random) -> None:
    """Anything, anywhere, in any number."""
    for _ in range(draw.randint(1, 12)):
        step = draw.randrange(0, script.total, draw.choice([1, script.every]))
        kind = draw.choice(script.plain + LATER + FATAL)
        script.faults.append(Fault(kind, step, draw.choice([1, 1, 2, 7])))


_FILL = {"survivable": _fill_survivable, "fatal": _fill_fatal, "wild": _fill_wild}
