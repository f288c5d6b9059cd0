"""What a check is, and what it found.

Owns their shapes and the bound on how long a check may take; knows nothing of any host. Invariant:
asking a check gives a finding, whatever the check does: it may raise, or never come back.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

T = TypeVar("T")


class Status(StrEnum):
    """How well something works here. `unknown`: it could not be found out."""

    OK = "ok"
    WEAK = "weak"
    MISSING = "missing"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found; unless that is well, what it means for a job and what to do about it."""

    status: Status
    found: str
    means: str = ""
    do: str = ""


def ok(found: str) -> Finding:
    """It works."""
    return Finding(Status.OK, found)


def weak(found: str, means: str, do: str) -> Finding:
    """It works less well than it could."""
    return Finding(Status.WEAK, found, means, do)


def missing(found: str, means: str, do: str) -> Finding:
    """It does not work."""
    return Finding(Status.MISSING, found, means, do)


class TookTooLong(Exception):
    """A call did not come back in time. It is left to itself, in a thread that ends with us."""


class Bounded(Generic[T]):
    """A call that is made once, when it is first asked for, and is waited for so long at most."""

    def __init__(self, name: str, call: Callable[[], T], limit_s: float) -> None:
        self._name = name
        self._call = call
        self._limit_s = limit_s
        self._thread: threading.Thread | None = None
        self._results: list[T] = []
        self._errors: list[BaseException] = []

    def result(self) -> T:
        """Its result; what it raised is raised. Later calls wait no more.

        Raises:
            TookTooLong: it has not come back.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
            self._thread.join(self._limit_s)
        if self._errors:
            raise self._errors[0]
        if not self._results:
            raise TookTooLong(f"{self._name} did not answer within {self._limit_s:.0f} s")
        return self._results[0]

    def _run(self) -> None:
        try:
            self._results.append(self._call())
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever asks for the result
            self._errors.append(error)


def unknown(error: BaseException) -> Finding:
    """The finding of a check that failed itself."""
    words = str(error) if isinstance(error, TookTooLong) else f"{type(error).__name__}: {error}"
    return Finding(
        Status.UNKNOWN,
        f"the check itself failed: {words}",
        "Whether a job can rely on this is not known.",
        "Look whether the host is well (a device or file system that hangs); else report this.",
    )
