"""How a call in a child can fail: one type per way, all of them `ChildFailed`.

Owns the words; knows nothing about processes. Invariant: every failure survives pickling, so that a
child may itself use children and let their failures through.
"""

from dataclasses import dataclass

from supervisor.process.command import signal_name


@dataclass(frozen=True, slots=True)
class CallFacts:
    """Whose failure it is. `output_tail` is the end of the child's output file, if it had one."""

    function: str
    pid: int
    output_tail: str = ""


class ChildFailed(Exception):
    """A function called in a child gave no result."""

    def __init__(self, facts: CallFacts, *details: object) -> None:
        super().__init__(facts, *details)
        self.facts = facts

    @property
    def pid(self) -> int:
        """The pid the child had."""
        return self.facts.pid

    @property
    def output_tail(self) -> str:
        """The end of what the child wrote, stderr included; empty unless it went to a file."""
        return self.facts.output_tail

    def what(self) -> str:
        """Return what happened, in words."""
        return "failed"

    def __str__(self) -> str:
        head = f"{self.facts.function} in child {self.pid} {self.what()}"
        return f"{head}; it last wrote:\n{self.output_tail}" if self.output_tail else head


class ChildExited(ChildFailed):
    """The child ended with this exit code before it sent a result. Code 0 is no success here."""

    def __init__(self, facts: CallFacts, code: int | None) -> None:
        super().__init__(facts, code)
        self.code = code

    def what(self) -> str:
        """Return what happened, in words."""
        if self.code is None:
            return "ended, and another part of this program took its exit status"
        return f"ended with exit code {self.code} and without a result"


class ChildSignaled(ChildFailed):
    """The child was killed by this signal: 11 for a segmentation fault, 9 by the OOM killer."""

    def __init__(self, facts: CallFacts, signal: int) -> None:
        super().__init__(facts, signal)
        self.signal = signal

    def what(self) -> str:
        """Return what happened, in words."""
        return f"was killed by {signal_name(self.signal)}"


class ChildTimedOut(ChildFailed):
    """The child had not finished after `timeout_s` seconds and was ended."""

    def __init__(self, facts: CallFacts, timeout_s: float) -> None:
        super().__init__(facts, timeout_s)
        self.timeout_s = timeout_s

    def what(self) -> str:
        """Return what happened, in words."""
        return f"had not finished after {self.timeout_s:g} s and was ended"


@dataclass(frozen=True, slots=True)
class RemoteError:
    """An exception of the child, as text."""

    type_name: str
    message: str
    traceback: str


class ChildRaised(ChildFailed):
    """The function raised. The exception itself is `__cause__` where it could be rebuilt here."""

    def __init__(self, facts: CallFacts, error: RemoteError) -> None:
        super().__init__(facts, error)
        self.type_name = error.type_name
        self.message = error.message
        self.traceback = error.traceback

    def what(self) -> str:
        """Return what happened, in words."""
        return f"raised {self.type_name}: {self.message}\n\n{self.traceback.rstrip()}"
