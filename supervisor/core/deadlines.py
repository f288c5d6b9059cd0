"""The four deadlines of an attempt, as absolute instants of the runner's monotonic clock.

Owns their arithmetic; reads no clock. Instants are never stored: a new runner starts them anew.
"""

from dataclasses import dataclass, replace

from supervisor.core.evidence import DeadlineName


@dataclass(frozen=True, slots=True)
class Timeouts:
    """job.yaml's `timeouts`, in seconds; None means never. `stop_s` is the grace of a stop.

    With `heartbeat_auto`, `heartbeat_s` is what the job's own cadence taught so far.
    """

    startup_s: float | None = 600.0
    heartbeat_s: float | None = 1800.0
    stop_s: float = 60.0
    total_s: float | None = None
    heartbeat_auto: bool = False

    def of(self, name: DeadlineName) -> float:
        """The duration that a deadline stands for (0 for one that is never armed)."""
        return {
            DeadlineName.STARTUP: self.startup_s,
            DeadlineName.HEARTBEAT: self.heartbeat_s,
            DeadlineName.STOP: self.stop_s,
            DeadlineName.TOTAL: self.total_s,
        }[name] or 0.0


def _after(now: float, duration_s: float | None) -> float | None:
    return None if duration_s is None else now + duration_s


@dataclass(frozen=True, slots=True)
class Deadlines:
    """What is armed now. At most one of startup and heartbeat is."""

    startup: float | None = None
    heartbeat: float | None = None
    stop: float | None = None
    total: float | None = None

    @classmethod
    def at_spawn(cls, timeouts: Timeouts, now: float, spent_s: float) -> "Deadlines":
        """Armed for a new worker; `spent_s` is what earlier attempts took of the total."""
        left = None if timeouts.total_s is None else max(0.0, timeouts.total_s - spent_s)
        return cls(startup=_after(now, timeouts.startup_s), total=_after(now, left))

    def on_sign(self, timeouts: Timeouts, now: float) -> "Deadlines":
        """A sign of progress: startup is over, the heartbeat starts anew; a stop goes on."""
        if self.stop is not None:
            return self
        return replace(self, startup=None, heartbeat=_after(now, timeouts.heartbeat_s))

    def restarted(self, timeouts: Timeouts, now: float) -> "Deadlines":
        """Startup, where it is armed, begins anew."""
        if self.startup is None:
            return self
        return replace(self, startup=_after(now, timeouts.startup_s))

    def not_before(self, until: float | None) -> "Deadlines":
        """The same, but whichever of startup and heartbeat is armed, not before an instant."""
        if until is None:
            return self
        return replace(
            self,
            startup=None if self.startup is None else max(self.startup, until),
            heartbeat=None if self.heartbeat is None else max(self.heartbeat, until),
        )

    def deferred(self, name: DeadlineName, until: float) -> "Deadlines":
        """The same, but this one, if it is armed, not before an instant."""
        armed = {DeadlineName.STARTUP: self.startup, DeadlineName.HEARTBEAT: self.heartbeat}
        if armed.get(name) is None:
            return self
        if name is DeadlineName.STARTUP:
            return replace(self, startup=until)
        return replace(self, heartbeat=until)

    def on_stop(self, timeouts: Timeouts, now: float) -> "Deadlines":
        """From now on only the grace counts."""
        return Deadlines(stop=now + timeouts.stop_s)

    def next(self) -> tuple[DeadlineName, float] | None:
        """The one that fires first."""
        armed = [
            (at, name)
            for name, at in (
                (DeadlineName.STARTUP, self.startup),
                (DeadlineName.HEARTBEAT, self.heartbeat),
                (DeadlineName.STOP, self.stop),
                (DeadlineName.TOTAL, self.total),
            )
            if at is not None
        ]
        if not armed:
            return None
        at, name = min(armed)
        return name, at
