"""What the daemon's queue says of one job, while the daemon comes and goes.

Owns when it is asked, and what follows for whoever watches: is the job over, what does it wait for.
Invariant: a job without a runner is over when the queue says so, whatever its journal says: a
daemon that stops its jobs goes on with them, and one whose runners keep dying is held.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from supervisor.core.causes import State
from supervisor.runner.alive import ATTENDED
from supervisor.views.frozen import verb

if TYPE_CHECKING:
    from supervisor.journal import JobRecord

ASK_S = 3.0
SOON_S = 0.25  # while the daemon concludes the end of a runner
RETURN_S = 60.0  # for a daemon that stopped the job to go on with it when it is back

Fields = dict[str, Any]


class Served:
    """One job, as the daemon has it."""

    def __init__(self, state_dir: Path, job_id: str) -> None:
        self._state_dir = state_dir
        self._id = job_id
        self._asked_at = float("-inf")
        self._document: Fields | None = None
        self._seen_going_at = float("-inf")

    def over(self, record: "JobRecord", *, submitted: bool) -> "JobRecord | None":
        """A job that has no runner, as it ended; None where it goes on by itself, or might."""
        final = record.state not in ATTENDED
        if not submitted:
            return record if final else None
        concluding = final and (self._document or {}).get("phase") == "started"
        told = self.now(SOON_S if concluding else ASK_S)
        if told is None:
            parked = record.state == State.STOPPED and time.monotonic() < self._expected_until
            return record if final and not parked else None
        if told["phase"] == "ended":
            return replace(record, state=str(told["state"]), why=str(told["why"] or ""))
        self._seen_going_at = time.monotonic()
        return None

    def has_runner(self) -> None:
        """Note that it has one: what the daemon said before is history."""
        self._asked_at, self._seen_going_at = float("-inf"), time.monotonic()

    def waits(self, *, began: bool) -> str:
        """What a job without a runner waits for, in words."""
        told = self.now(ASK_S)
        if told is None:
            run = verb(self._state_dir, "daemon", "run")
            return f"waits for a daemon; none answers. To start one: {run}"
        if told["phase"] == "waiting":
            return str(told.get("waits") or "waits for its turn")
        return "its runner is gone; the daemon starts another" if began else "its runner starts"

    @property
    def _expected_until(self) -> float:
        return self._seen_going_at + RETURN_S

    def now(self, age_s: float) -> Fields | None:
        """Its document, at most so old; None where no daemon answers, or none has the job."""
        if time.monotonic() - self._asked_at >= age_s:
            self._document = self._ask()
            self._asked_at = time.monotonic()
        return self._document

    def _ask(self) -> Fields | None:
        # Not for jobs of `run`.
        from supervisor.client.errors import ClientError  # noqa: PLC0415 - see above
        from supervisor.client.find import find_daemon  # noqa: PLC0415 - see above

        try:
            with find_daemon(self._state_dir).connection as connection:
                from supervisor.client.calls import Daemon  # noqa: PLC0415 - see above

                return cast("Fields", Daemon(connection).document(self._id))
        except ClientError:  # it is being restarted, or has lost the job: the journal knows more
            return None
