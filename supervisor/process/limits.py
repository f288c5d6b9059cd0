"""What a worker may use of the host, as far as it is set in the process itself.

Owns the values and their checks. Limits on memory and on the number of processes belong to the
attempt's cgroup, not here. Invariant: limits that were built can be sent to a launcher as they are.
"""

from dataclasses import dataclass

from workers import protocol

_LEAST_OPEN_FILES = 16  # below that no interpreter starts, and the error would be a riddle
_OOM_SCORE_LIMIT = 1000  # proc(5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits that the worker inherits to everything it starts; None or () leaves one as it is.

    `open_files`: soft and hard limit at once. `core_dumps`: False writes none, True up to the hard
    limit. `cpus`: the processors it may run on. `oom_score_adj`: -1000 (never) to 1000 (first
    victim of the kernel); making it smaller than the parent's takes root and is skipped elsewhere.
    Raises ValueError for what no kernel would accept.
    """

    open_files: int | None = None
    core_dumps: bool | None = None
    cpus: tuple[int, ...] = ()
    oom_score_adj: int | None = None

    def __post_init__(self) -> None:
        if self.open_files is not None and self.open_files < _LEAST_OPEN_FILES:
            raise ValueError(
                f"open_files is {self.open_files}; no program starts with fewer than "
                f"{_LEAST_OPEN_FILES}"
            )
        if any(cpu < 0 for cpu in self.cpus):
            raise ValueError(f"cpus are numbers of processors, from 0: {self.cpus}")
        if self.oom_score_adj is not None and abs(self.oom_score_adj) > _OOM_SCORE_LIMIT:
            raise ValueError(f"oom_score_adj is from -1000 to 1000, not {self.oom_score_adj}")

    def fields(self) -> list[protocol.Field]:
        """Return the fields of the launch message that ask for these limits."""
        found = [(protocol.LAUNCH_CPU, b"%d" % cpu) for cpu in self.cpus]
        if self.oom_score_adj is not None:
            found.append((protocol.LAUNCH_OOM_SCORE_ADJ, b"%d" % self.oom_score_adj))
        if self.open_files is not None:
            found.append((protocol.LAUNCH_LIMIT, b"nofile=%d" % self.open_files))
        if self.core_dumps is not None:
            found.append((protocol.LAUNCH_LIMIT, b"core=hard" if self.core_dumps else b"core=0"))
        return found
