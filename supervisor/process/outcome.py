"""What became of a call, read from what its child left behind.

Owns the way from a result file or an exit status to a value or a `ChildFailed`. Unpickles what the
user's own function returned. Invariant: whatever is in the file, an outcome comes out of it.
"""

import io
import pickle
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.process.command import ExitStatus
from supervisor.process.failures import (
    CallFacts,
    ChildExited,
    ChildFailed,
    ChildRaised,
    ChildSignaled,
    RemoteError,
)

TAIL_BYTES = 16 * 1024  # a crash prints its stack first, and that may be long
MAIN_IN_CHILD = "__mp_main__"  # multiprocessing's name for it


@dataclass(frozen=True, slots=True)
class Outcome:
    """A value, or the failure that took its place."""

    value: Any = None
    failure: ChildFailed | None = None


class _Unpickler(pickle.Unpickler):
    """Finds in our `__main__` what a child, which imports that under another name, calls so."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 -- any global
        """Return what the pickle refers to."""
        if module == MAIN_IN_CHILD and module not in sys.modules:
            module = "__main__"
        return super().find_class(module, name)


def from_result(result_fd: int, facts: CallFacts) -> Outcome:
    """Return what a complete result file holds (see Channel in call.py)."""
    try:
        with open(f"/proc/self/fd/{result_fd}", "rb") as file:  # noqa: PTH123 -- a descriptor
            kind, payload = _Unpickler(file).load()
    except Exception as error:  # noqa: BLE001 -- unpickling runs the value's own code
        text = f"{error} (the function returned, but its value cannot be rebuilt here)"
        remote = RemoteError(type(error).__qualname__, text, traceback.format_exc())
        return _raised(facts, remote, error)
    if kind == "value":
        return Outcome(value=payload)
    remote = RemoteError(payload["type_name"], payload["message"], payload["traceback"])
    return _raised(facts, remote, _rebuild(payload["error"]))


def from_status(status: ExitStatus | None, facts: CallFacts) -> Outcome:
    """Return the failure of a child that ended without a result."""
    if status is not None and status.signal is not None:
        return Outcome(failure=ChildSignaled(facts, status.signal))
    return Outcome(failure=ChildExited(facts, status.code if status else None))


def size_bytes(path: Path | None) -> int:
    """Return the size of a file; 0 when there is none."""
    return path.stat().st_size if path is not None and path.exists() else 0


def tail(path: Path | None, start_bytes: int) -> str:
    """Return the end of what was appended to the file since it had `start_bytes`."""
    if path is None or not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(start_bytes, size_bytes(path) - TAIL_BYTES))
        return file.read(TAIL_BYTES).decode(errors="replace")


def _raised(facts: CallFacts, remote: RemoteError, cause: BaseException | None) -> Outcome:
    failure = ChildRaised(facts, remote)
    failure.__cause__ = cause
    return Outcome(failure=failure)


def _rebuild(error: bytes | None) -> BaseException | None:
    if error is None:
        return None
    try:
        rebuilt = _Unpickler(io.BytesIO(error)).load()
    except Exception:  # noqa: BLE001 -- its class may exist in the child alone; the text remains
        return None
    return rebuilt if isinstance(rebuilt, BaseException) else None
