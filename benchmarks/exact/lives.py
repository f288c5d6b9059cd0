"""What the lives of ticking.py tell: who lived, from which step to which, and when.

Owns the reading of `ticks`. A line that is not whole yet is left for the next look.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path

LOOK_EVERY_S = 0.005
NS_PER_S = 1e9
ENDLESS = 10_000_000  # steps: more than anybody waits for


class Silent(Exception):
    """What was waited for did not come; says what."""


@dataclass
class Life:
    """One process: when it passed its stations, and when it had done each step (monotonic s)."""

    pid: int
    stations: dict[str, float] = field(default_factory=dict)
    first_step: int = 0
    steps: list[float] = field(default_factory=list)

    @property
    def last_step(self) -> int:
        """The last one that it did."""
        return self.first_step + len(self.steps) - 1

    def began_from(self) -> int:
        """The step that it resumed from; 0: from nothing."""
        return self.first_step - 1


class Lives:
    """All lives of one training, oldest first."""

    def __init__(self, ticks: Path) -> None:
        self.ticks = ticks
        self.all: list[Life] = []
        self._read_bytes = 0

    def look(self) -> list[Life]:
        """Read what is new."""
        if not self.ticks.exists():
            return self.all
        with self.ticks.open("rb") as file:
            file.seek(self._read_bytes)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        for line in whole.decode("ascii").splitlines():
            what, pid, step, at_ns = line.split()
            self._note(what, int(pid), int(step), int(at_ns) / NS_PER_S)
        return self.all

    def _note(self, what: str, pid: int, step: int, at_s: float) -> None:
        if not self.all or self.all[-1].pid != pid:
            self.all.append(Life(pid))
        life = self.all[-1]
        if what != "step":
            life.stations[what] = at_s
            return
        if not life.steps:
            life.first_step = step
        life.steps.append(at_s)

    def trains(self, number: int, limit_s: float) -> Life:
        """Wait until the life of this number, from 0, has done a step; that life.

        Raises:
            Silent: it had not, after so long.
        """
        deadline = time.monotonic() + limit_s
        while len(self.look()) <= number or not self.all[number].steps:
            if time.monotonic() > deadline:
                raise Silent(f"life {number} of {self.ticks} did no step in {limit_s:.0f} s")
            time.sleep(LOOK_EVERY_S)
        return self.all[number]
