"""The simulated world around a runner: clock, disk, worker, journal.

Owns everything that survives a runner, and the checks that no runner may ever fail. Nothing here
knows the state machine: what is checked is what really happened to processes and files.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from supervisor.core.events import Event, GpuTroubleSeen
from supervisor.core.gpu import GpuTrouble, xid_trouble
from supervisor.journal.codec import decode, encode
from tests.simulation.script import BROKEN, DEATHS, HEARTBEAT_S, SILENCES, STARTUP_S, Script, rng

PINS = 3
KEEP = 3
SOFT_BYTES, HARD_BYTES, RAM_BYTES = 1000, 2000, 5000


class PromiseBroken(AssertionError):
    """What must never happen has happened."""


class RunnerKilled(BaseException):
    """SIGKILL between two instructions of the runner."""


@dataclass(eq=False, slots=True)
class Checkpoint:
    """A file. `whole` ones verify; one that is not `loadable` verifies and is bad all the same."""

    step: int
    whole: bool = True
    loadable: bool = True


@dataclass(eq=False, slots=True)
class Worker:
    """A worker's process tree."""

    world: "World"
    number: int
    begun: Checkpoint | None
    spawned_at: float
    next_at: float | None
    step: int = 0
    started: bool = False
    alive: bool = True
    exit_code: int | None = None
    signal: int | None = None
    signs: int = 0
    last_sign_at: float | None = None
    asked_to_stop: bool = False
    gpus: tuple[str, ...] = ()
    doing: str = "works"
    silence: str = ""
    doomed: str = ""
    gpu_bytes: int = 0
    ram_bytes: int = 0
    killed_for_memory: bool = False
    troubles: list[GpuTrouble] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        """Write a line to the log: a sign of progress."""
        self.lines.append(line)
        self.signs += 1
        self.last_sign_at = self.world.now

    def die(self, kind: str) -> None:
        """Leave as a fault of this kind does."""
        code, signal, lines = DEATHS[kind]
        for line in lines:
            self.say(line)
        self.end(code, signal, kind)

    def end(self, code: int | None, signal: int | None, why: str) -> None:
        """Be gone."""
        self.alive, self.exit_code, self.signal, self.next_at = False, code, signal, None
        self.world.note(f"worker {self.number} ended at step {self.step}: {why}")

    def act(self) -> None:
        """Do what is due: start, or make a step."""
        self.doing, self.silence = "works", ""
        if self.doomed:
            self.die(self.doomed)
        elif self.asked_to_stop and self.world.script.heeds_stop:
            self.save()
            if self.alive:
                self.end(0, None, "stopped")
        elif self.started:
            self.make_step()
        else:
            self.begin()

    def begin(self) -> None:
        """Load the checkpoint, say hello."""
        self.started = True
        if self.begun is not None and not self.begun.loadable:
            self.die("unloadable")
        elif self.world.script.struck_at_start(self.step, "import_error"):
            self.die("import_error")
        elif self.step >= self.world.script.total:
            self.end(0, None, "nothing left to do")
        else:
            self.say("hello")
            self.next_at = self.world.now + 1

    def make_step(self) -> None:
        """Train one step, and suffer what the script has for it."""
        self.step += 1
        self.say(f"step {self.step}")
        self.next_at = self.world.now + self.world.script.pace_s(self.step)
        if self.world.script.leaks is not None:
            self.gpu_bytes += SOFT_BYTES // self.world.script.leaks + 1
        fault = self.world.script.struck(self.step)
        if fault in SILENCES:
            self.fall_silent(fault)
            return
        self.world.suffer(fault, self.step)
        if self.step % self.world.script.every == 0 and fault not in {"torn", "disk_full"}:
            self.save(loadable=fault != "unloadable")
        if fault in DEATHS and fault != "unloadable" and fault not in BROKEN:
            self.killed_for_memory = fault == "over_limit"
            self.die(fault)
        elif self.alive and self.step == self.world.script.total:
            self.end(0, None, "done")

    def fall_silent(self, kind: str) -> None:
        """Say nothing for a while, or for ever."""
        self.silence, (self.doing, ends_s) = kind, SILENCES[kind]
        self.world.unkillable = self.world.unkillable or kind == "unkillable"
        self.next_at = None if ends_s is None else self.world.now + ends_s
        self.world.note(f"worker {self.number} is silent at step {self.step} ({kind})")

    def looked_at(self) -> None:
        """Somebody reads its stacks: a call that hung comes back, now and then."""
        if self.alive and self.silence == "wakes":
            self.silence, self.next_at = "", self.world.now + 1
            self.say("interrupted, going on")

    def save(self, *, loadable: bool = True) -> None:
        """Publish a checkpoint and drop the oldest."""
        if self.world.full:
            self.die("disk_full")
            return
        self.world.write(Checkpoint(self.step, loadable=loadable))


class World:
    """All that a killed runner leaves behind."""

    def __init__(self, script: Script, crashes: Iterable[int] = ()) -> None:
        self.script = script
        self.crashes = frozenset(crashes)
        self.chance = rng(script.seed)
        self.now = 0.0
        self.disk: dict[int, Checkpoint] = {}
        self.aside: list[Checkpoint] = []
        self.pins: dict[int, Checkpoint] = {}
        self.worker: Worker | None = None
        self.journal: list[tuple[str, str]] = []
        self.attempts = 0
        self.instructions = 0
        self.full = False
        self.unkillable = False
        self.healed = False
        self.verified_one = False
        self.rebooted = False
        self.gpus = tuple(f"GPU-{name}" for name in "abc"[: script.gpus])
        self.lost: set[str] = set()
        self.known_sick: set[str] = set()
        self.gpus_aside: dict[str, str] = {}
        self.visit_at: float | None = None
        self.room_at = 0.0
        self.deferred: Callable[[float], object] = lambda _silent_s: None
        self.trace: list[str] = []

    def note(self, text: str) -> None:
        """Add a line to the story."""
        self.trace.append(f"{self.now:8.1f}  {text}")

    def promise(self, kept: object, words: str) -> None:
        """Fail the simulation where a promise is not kept."""
        if not kept:
            raise PromiseBroken(words)

    def instruction(self) -> None:
        """One more instruction of the runner; it may be its last."""
        self.instructions += 1
        if self.instructions in self.crashes:
            raise RunnerKilled

    def append(self, event: Event) -> None:
        """Store an event as the journal does."""
        kind, body = type(event).__name__, encode(event)
        self.promise(decode(kind, body) == event, f"{kind} comes back from the journal as it was")
        self.journal.append((kind, body))
        if isinstance(event, GpuTroubleSeen) and event.trouble.ends_attempt:
            self.known_sick.add(event.trouble.uuid)

    def replay(self) -> list[Event]:
        """Every event so far."""
        return [decode(kind, body) for kind, body in self.journal]

    def suffer(self, fault: str | None, step: int) -> None:
        """What a fault does to the disk and to the time."""
        if fault == "torn":
            self.disk.pop(step - self.script.every, None)  # deletes before it writes
            self.write(Checkpoint(step, whole=False))
        elif fault == "deleted":
            self.disk.clear()
        elif fault == "disk_full":
            self.full, self.room_at = True, self.now + self.chance.uniform(1, 400)
        elif fault == "slow" and self.worker is not None:
            self.worker.next_at = self.now + HEARTBEAT_S - 0.5
        elif self.worker is not None:
            self.suffer_on_gpu(fault, self.worker)

    def suffer_on_gpu(self, fault: str | None, worker: Worker) -> None:
        """What a fault does to memory and GPU; the next look is in time to see it."""
        if fault == "gpu_burst":
            worker.gpu_bytes = HARD_BYTES + 1
        elif fault == "ram_burst":
            worker.ram_bytes = RAM_BYTES + 1
        elif fault == "faulty":
            worker.troubles.append(xid_trouble(worker.gpus[0], 31, self.now))
        elif fault in BROKEN:
            worker.doomed = fault
            worker.troubles.append(xid_trouble(worker.gpus[0], BROKEN[fault], self.now))
            self.lost |= {worker.gpus[0]} if fault == "fallen" else set()
            self.note(f"{worker.gpus[0]} breaks: {fault}")
        if fault in {"gpu_burst", "ram_burst", *BROKEN}:
            worker.next_at = self.now + 5

    def fit_gpus(self, avoid: Iterable[str]) -> list[str]:
        """Those that a job may get. When there are none, somebody comes to look after a while.

        Whoever asks the driver sees that one is lost; an uncorrectable error leaves no such trace.
        """
        if self.visit_at is not None and self.visit_at <= self.now:
            self.note("a person replaces the GPUs")
            self.reset_gpus()
        unfit = {*self.gpus_aside, *self.lost, *avoid}
        fit = [one for one in self.gpus if one not in unfit]
        if not fit and self.visit_at is None:
            self.visit_at = self.now + 300
        return fit

    def reset_gpus(self) -> None:
        """They are as new: a person released them, or the host was restarted."""
        self.lost, self.known_sick, self.gpus_aside, self.visit_at = set(), set(), {}, None

    def write(self, checkpoint: Checkpoint) -> None:
        """A file appears in the job's folder, and old ones go."""
        self.disk[checkpoint.step] = checkpoint
        for old in sorted(self.disk)[:-KEEP]:
            del self.disk[old]
        self.note(f"checkpoint {checkpoint.step}" + ("" if checkpoint.whole else " (torn)"))

    def pin(self, checkpoint: Checkpoint) -> None:
        """The runner copies a checkpoint that verified."""
        self.pins[checkpoint.step] = checkpoint
        for old in sorted(self.pins)[:-PINS]:
            del self.pins[old]

    def spawn(self, number: int, step: int | None, gpus: tuple[str, ...]) -> Worker:
        """A worker comes to be. Promises 1, 2 and 3 are checked here."""
        alive = self.worker is not None and self.worker.alive
        self.promise(not alive, "never two workers at once")
        self.promise(number == self.attempts + 1, f"attempt {number} follows {self.attempts}")
        bad = set(gpus) & (self.known_sick | set(self.gpus_aside))
        self.promise(not bad, f"never on {bad}, which is set aside or to be set aside")
        self.promise(len(gpus) == bool(self.gpus), "on as many GPUs as it wants")
        begun = None if step is None else self.disk.get(step)
        if step is None:
            known = self.verified_one or self.disk or self.aside or self.pins
            self.promise(not known, "never from zero once there was a checkpoint")
        else:
            self.promise(begun is not None and begun.whole, f"checkpoint {step} verifies")
        slow = self.script.struck_at_start(step or 0, "slow_start") is not None
        start_s = STARTUP_S - 0.5 if slow else 2.0
        self.worker = Worker(self, number, begun, self.now, self.now + start_s, step or 0)
        self.worker.gpus = gpus
        where = f" on {' '.join(gpus)}" if gpus else ""
        self.note(f"attempt {number} starts from {'zero' if step is None else step}{where}")
        return self.worker

    def took_number(self, number: int) -> None:
        """An attempt number is used up, whether or not a worker comes to be."""
        self.attempts = number - 1

    def kill(self, *, as_hung: bool, bounds: tuple[float, float]) -> bool:
        """SIGKILL to the tree; False where it does not help. Promise 8 is checked here."""
        worker = self.worker
        if worker is None or not worker.alive:
            return True
        if as_hung:
            startup_s, heartbeat_s = bounds
            last = worker.last_sign_at
            since = self.now - (worker.spawned_at if last is None else last)
            limit = startup_s if last is None else heartbeat_s
            self.promise(since >= limit, f"a worker that spoke {since:g} s ago is left alone")
            self.promise(worker.next_at is None, f"one that {worker.doing} goes on, and is spared")
        if self.unkillable:
            return False
        worker.end(None, 9, "killed")
        return True

    def runner_died(self) -> None:
        """What a SIGKILL of the runner does: mostly its worker dies at once, sometimes later."""
        how = self.chance.choice(["reboot", "at once", "at once", "lingers"])
        self.note(f"RUNNER KILLED at instruction {self.instructions} ({how})")
        self.rebooted = how == "reboot"
        if self.rebooted:
            self.reset_gpus()
        if self.rebooted and self.unkillable:
            self.unkillable, self.healed = False, True
        dies = how != "lingers" and not self.unkillable
        if dies and self.worker is not None and self.worker.alive:
            self.worker.end(None, 9, "died with its runner")
        self.now += 3.0

    def has_room(self) -> bool:
        """Whether the disk has room; what fills it is deleted by somebody else after a while."""
        self.full = self.full and self.now < self.room_at
        return not self.full

    def repaired(self) -> bool:
        """A person looks at a job that holds: whether there was something to repair."""
        if self.unkillable:
            self.unkillable = False
            self.reset_gpus()
            if self.worker is not None and self.worker.alive:
                self.worker.end(None, 9, "the driver let go of it")
            return True
        healed, self.healed = self.healed, False
        return healed
