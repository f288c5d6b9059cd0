"""Describes what the user's code raised: its kind, its words, and its own frames only.

Owns the kinds of failures, told by an exception's type and message. Never imports what an exception
comes from, never raises. Invariant: a description has a kind of FAILURE_KINDS and a bounded length,
whatever the exception does when it is looked at.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from workers.messages import Failure
from workers.protocol import FAILURE_KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

TRACEBACK_CHARACTERS = 16 * 1024
HEAD_CHARACTERS = 4 * 1024  # of a longer one: how it began; its end says what was raised
MESSAGE_CHARACTERS = 4 * 1024
CHAIN = 10
STDERR_FD = 2
HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib is slow to import

# After these the CUDA context, or the memory that it holds, is of no use to another item.
FATAL = ("cuda_oom", "cuda_error")

# First that matches; by what is raised, with its type's name before the message.
_BY_WORDS = (
    (
        "cuda_oom",
        re.compile(
            r"torch\S*\.OutOfMemoryError|CUDA out of memory|CUDA error: out of memory"
            r"|CUBLAS_STATUS_ALLOC_FAILED"
        ),
    ),
    (
        "cuda_error",
        re.compile(
            r"CUDA error\b|device-side assert|illegal memory access|unspecified launch failure"
            r"|(CUBLAS|CUDNN|CUSOLVER|CUFFT|CUSPARSE)_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR)"
        ),
    ),
    (
        "disk_full",
        re.compile(
            r"No space left on device|Disk quota exceeded|PytorchStreamWriter failed writing file"
        ),
    ),
    (
        "memory",
        re.compile(r"DefaultCPUAllocator: (can't|not enough)|Cannot allocate memory"),
    ),
    (  # gloo's, too: both mean that another rank died or stalled
        "nccl",
        re.compile(
            r"NCCL error|nccl(System|Remote|Internal|UnhandledCuda)Error|DistNetworkError"
            r"|Watchdog caught collective operation timeout|gloo/transport/"
        ),
    ),
    (
        "dataloader",
        re.compile(r"DataLoader worker \(pid(\(s\))? .*(exited unexpectedly|is killed by signal)"),
    ),
    (
        "bad_checkpoint",
        re.compile(
            r"PytorchStreamReader failed|failed finding central directory|SafetensorError"
            r"|invalid load key|Ran out of input|File is not a zip file"
        ),
    ),
    (
        "non_finite",
        re.compile(r"^FloatingPointError|returned nan values in its \S+ output"),
    ),
)


def describe(error: BaseException) -> Failure:
    """Return an exception as a message can hold it."""
    kind = kind_of(error)
    message = _message(error) + _clash(error)
    return Failure(
        kind,
        type_name(error),
        shortened(message, MESSAGE_CHARACTERS, MESSAGE_CHARACTERS // 2),
        "" if _ours(error) else shortened(_traceback(error), TRACEBACK_CHARACTERS, HEAD_CHARACTERS),
        kind in FATAL,
    )


def kind_of(error: BaseException) -> str:
    """Tell the kind of what was raised, or of what that was raised from."""
    for link in _chain(error):
        kind = _kind(link)
        if kind is not None:
            return kind
    return "error"


def type_name(error: BaseException) -> str:
    """Return the type's name as a traceback would."""
    kind = type(error)
    if kind.__module__ in ("builtins", "__main__"):
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def log(title: str, failure: Failure) -> None:
    """Write a failure to the worker's log."""
    text = failure.traceback.rstrip() or f"{failure.type_name}: {failure.message}"
    with suppress(OSError):  # the log is full; the channel says it too
        os.write(STDERR_FD, f"{title}\n{text}\n".encode("utf-8", "backslashreplace"))


def shortened(text: str, characters: int, head: int) -> str:
    """Return a text, without its middle where it is longer than this."""
    if len(text) <= characters:
        return text
    cut = f"\n... {len(text) - characters:,} characters are left out ...\n"
    return text[:head] + cut + text[len(text) - (characters - head - len(cut)) :]


def _kind(error: BaseException) -> str | None:
    kind = getattr(error, "kind", None) if _ours(error) else None
    if kind in FAILURE_KINDS:
        return str(kind)
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk_full"
    words = f"{type_name(error)}: {_message(error)}"
    return next((name for name, pattern in _BY_WORDS if pattern.search(words)), None)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield what was raised, and what led to it, as a traceback would show it."""
    link: BaseException | None = error
    for _ in range(CHAIN):
        if link is None:
            return
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _ours(error: BaseException) -> bool:
    """Tell whether this is our own word about a mistake, which needs no traceback."""
    return type(error).__module__.startswith("workers.") and hasattr(error, "kind")


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a broken __str__ must not hide the error itself
        return "(its message could not be made)"


def _traceback(error: BaseException) -> str:
    import traceback  # noqa: PLC0415 - half of what a start would cost, and seldom needed

    try:
        lines = traceback.format_exception(type(error), error, _theirs(error.__traceback__))
    except Exception:  # noqa: BLE001 - whatever the user's class does when it is printed
        return f"{type_name(error)}: {_message(error)}\n"
    return "".join(lines)


def _theirs(trace: TracebackType | None) -> TracebackType | None:
    """Return the traceback from the first frame that is not ours."""
    while trace is not None and _folder(trace.tb_frame.f_code.co_filename) == HERE:
        trace = trace.tb_next
    return trace


def _folder(file: str) -> str:
    return os.path.dirname(os.path.abspath(file))  # noqa: PTH100, PTH120 - as above


def _clash(error: BaseException) -> str:
    """Explain what failed because the user's package has the name of ours."""
    if isinstance(error, ImportError):
        return clash() if (error.name or "").partition(".")[0] == "workers" else ""
    if isinstance(error, AttributeError):
        return (
            clash() if _message(error).startswith(("module 'workers'", "module 'workers.")) else ""
        )
    return ""


def clash() -> str:
    """Return what to do about a package `workers` of the user's own; empty without one."""
    from importlib.machinery import PathFinder  # noqa: PLC0415 - seldom needed

    home = os.path.dirname(HERE)  # noqa: PTH120 - as above
    spec = PathFinder.find_spec("workers", [path for path in sys.path if path != home])
    places = [] if spec is None else [*(spec.submodule_search_locations or ()), spec.origin]
    theirs = [place for place in places if place and _folder(place) != HERE and place != HERE]
    if not theirs:
        return ""
    return (
        f"; your own package {theirs[0]} has the same name as supervise's, which is the one "
        f"that `workers` means inside a batch job: rename yours"
    )
