"""What a runner that is gone means to the queue: one table.

Pure: owns the judgement, carries nothing out. The journal says how far the job came; what its owner
wants, and who stopped it, decide what follows.
"""

from dataclasses import dataclass
from enum import StrEnum

from supervisor.core.causes import State
from supervisor.queue.model import Entry, Wish

LOST_LIMIT = 5  # runners in a row that died soon; then a person is needed
SOON_S = 60.0
LONGEST_WAIT_S = 60.0

FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.HOLDING})
RESUMABLE = frozenset({State.FAILED, State.HOLDING, State.STOPPED})


class Next(StrEnum):
    """What is done about it."""

    END = "end"  # the entry has ended, in the state of the job
    SETTLE = "settle"  # first its owner's wish is written into the journal
    PARK = "park"  # it goes on when the host, or the daemon, is back
    AGAIN = "again"  # another runner takes the job over
    GIVE_UP = "give_up"  # runners die as soon as they are started


@dataclass(frozen=True, slots=True)
class Around:
    """What was so when the runner was seen to be gone.

    `state` is the job's in the journal. `leaving`: this daemon stops its jobs, or the host goes
    down, or has been down since.
    """

    state: State
    lived_s: float
    leaving: bool


def after_runner(entry: Entry, around: Around) -> Next:
    """What follows the end of a runner."""
    if entry.wish is Wish.CANCEL and around.state in RESUMABLE:
        return Next.SETTLE
    if around.state in FINAL:
        return Next.END
    if around.state is State.STOPPED:
        return Next.PARK if around.leaving and entry.wish is Wish.RUN else Next.END
    # Its runner died. The next one sees the worker's remains out, also when the job is to stop.
    if around.leaving and entry.wish is Wish.RUN:
        return Next.PARK
    if entry.lost + 1 >= LOST_LIMIT and around.lived_s < SOON_S:
        return Next.SETTLE if entry.wish is Wish.CANCEL else Next.GIVE_UP
    return Next.AGAIN


def lost_after(entry: Entry, lived_s: float) -> int:
    """How many runners in a row died soon, with this one."""
    return entry.lost + 1 if lived_s < SOON_S else 1


def wait_s(lost: int) -> float:
    """How long to wait before the next runner: the first death costs nothing."""
    return 0.0 if lost <= 1 else min(2.0 ** (lost - 2), LONGEST_WAIT_S)
