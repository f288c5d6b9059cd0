"""What several checks ask of this host, found out once.

Owns the ways in: files below a root that tests may replace, the survey of control groups, the
driver's answer. Never decides what is good. Invariant: what hangs hangs once, not for every check.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from supervisor.cli.diagnosis.finding import Bounded, Finding
from supervisor.gpu.model import Inventory, Reading
from supervisor.host.cgroup import Offer, survey

SURVEY_S = 5.0
DRIVER_S = 20.0  # a driver that hangs in one GPU is asked on about the others
CHECK_S = 25.0  # for one check, which has bounds of its own inside

Answer = tuple[Inventory, tuple[Reading, ...]]
T = TypeVar("T")


def _ask_driver() -> Answer:
    from supervisor.gpu.probe import look  # noqa: PLC0415 - tests without a driver need none of it

    return look()


class Facts:
    """This host, or a picture of it: `root` stands for `/`."""

    def __init__(
        self,
        state_dir: Path,
        root: Path = Path("/"),
        control_groups: Callable[[], Offer] = survey,
        driver: Callable[[], Answer] = _ask_driver,
    ) -> None:
        self.state_dir = state_dir
        self.root = root
        self._offer = Bounded("the survey of control groups", control_groups, SURVEY_S)
        self._driver = Bounded("the GPU driver", driver, DRIVER_S)

    def offer(self) -> Offer:
        """What this process may use of control groups. Raises TookTooLong."""
        return self._offer.result()

    def gpus(self) -> Answer:
        """What there are of GPUs and what they do. Raises TookTooLong."""
        return self._driver.result()

    def path(self, name: str) -> Path:
        """Where a file of the host is: `proc/version`."""
        return self.root / name

    def says(self, name: str) -> str | None:
        """What a small file says, without spaces around; None where it cannot be read."""
        try:
            return self.path(name).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return None

    def lacks(self, lever: str) -> str:
        """What it would take to have a lever of control groups, in the survey's own words."""
        reasons = self.offer().reasons
        named = [one for one in reasons if lever in one.partition(": ")[0]]
        bare = (one.partition(": ")[2] or one for one in named or reasons)
        return " ".join(f"{one[:1].upper()}{one[1:]}." for one in bare)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at; None says that it does not concern this host.

    Without what is `vital`, `supervise run` cannot run any job.
    """

    name: str
    look: Callable[[Facts], Finding | None]
    vital: bool = False
