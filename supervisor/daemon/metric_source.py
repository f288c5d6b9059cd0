"""What the metrics ask, answered by the daemon itself.

Owns nothing but these few ways into its parts.
"""

from collections.abc import Mapping, Sequence

from supervisor.daemon.contracts import Json
from supervisor.daemon.daemon import Daemon
from supervisor.queue.model import Phase


class DaemonSource:
    """A `metrics.MetricsSource` over a daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    @property
    def lag_s(self) -> float:
        """How late its event loop was at worst in the last minute."""
        return self._daemon.lag.worst_s

    def waiting(self) -> int:
        """How many jobs wait in its queue."""
        return self._daemon.roster.count(Phase.WAITING)

    def users(self) -> Sequence[int]:
        """The users who have a shelf."""
        return self._daemon.parts.shelves.known()

    def busy(self) -> set[int]:
        """The users of whose jobs some wait or run; a user's own daemon sees none of `run`'s."""
        if not self._daemon.parts.system:
            return set(self.users())
        roster = self._daemon.roster
        return {one.uid for one in (*roster.of(Phase.WAITING), *roster.of(Phase.STARTED))}

    def started(self) -> Mapping[str, int] | None:
        """Whose each started job is; a user's own daemon does not know those of `run`."""
        if not self._daemon.parts.system:
            return None
        return {one.id: one.uid for one in self._daemon.roster.of(Phase.STARTED)}

    async def totals(self, uid: int, after_seq: int | None, limit: int) -> Json:
        """Figures of a user's journal. Raises Refusal."""
        shelf = self._daemon.parts.shelves.of(uid)
        return await shelf.ask("totals", {"after_seq": after_seq, "limit": limit})

    async def gpus(self) -> list[Json]:
        """The GPUs of the host."""
        return await self._daemon.parts.gpus.documents()
