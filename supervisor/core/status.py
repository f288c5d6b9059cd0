"""The exit status of a worker, as a person says it.

Owns the words; concludes nothing.
"""

import signal

from supervisor.core.evidence import Evidence

SHELL_SIGNAL_BASE = 128  # POSIX: a shell reports a child killed by signal n as 128 + n


def signal_of(seen: Evidence) -> int | None:
    """The signal that ended the main process, also where a shell in between reports 128 + n."""
    if seen.signal is not None:
        return seen.signal
    code = seen.exit_code or 0
    known = set(signal.Signals)
    return code - SHELL_SIGNAL_BASE if code - SHELL_SIGNAL_BASE in known else None


def signal_name(number: int) -> str:
    """`SIGSEGV` for 11; real-time signals by their number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def status_words(seen: Evidence) -> str:
    """The exit status as a person says it."""
    if seen.signal is not None:
        return f"killed by {signal_name(seen.signal)}"
    number = signal_of(seen)
    if number is not None:
        return f"exit code {seen.exit_code} (a shell's word for {signal_name(number)})"
    return f"exit code {seen.exit_code}"
