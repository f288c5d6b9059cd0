"""What an error looks like in a worker's log: one table, first match wins.

Owns the patterns; reads no file. Lines are judged in the order in which they were written, because
the first error is the root and what follows it is mostly its echo.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from supervisor.core.causes import Cause

# A line longer than this is data, not a message; patterns see only its beginning.
LINE_LIMIT = 2000


@dataclass(frozen=True, slots=True)
class Signature:
    """One kind of error line: the cause it proves, and what a person can do about it.

    `permanent` says that no restart can help. `early_only` limits it to attempts that had made no
    progress yet: an import error of a script that trained for days is not a configuration error.
    `weak` marks a symptom, which counts only where the log shows no error: mixed precision prints
    an infinite gradient now and then, and goes on.
    """

    name: str
    cause: Cause
    pattern: str
    hint: str
    permanent: bool = False
    early_only: bool = False
    weak: bool = False


@dataclass(frozen=True, slots=True)
class RootError:
    """The first line of a log that a signature recognises, or its first symptom if none is."""

    signature: str
    cause: Cause
    line: str
    hint: str
    permanent: bool = False
    early_only: bool = False


# Sources: torch's exception texts, glibc's strerror, the NVIDIA driver's Xid messages. No pattern
# may match the advice that torch prints beside every CUDA error (CUDA_LAUNCH_BLOCKING,
# TORCH_USE_CUDA_DSA): it names errors that did not happen.
SIGNATURES: tuple[Signature, ...] = (
    Signature(
        "disk_full",
        Cause.DISK_FULL,
        r"No space left on device|Errno 122\b|Disk quota exceeded"
        r"|PytorchStreamWriter failed writing",
        "free some space; the job goes on by itself",
    ),
    Signature(
        "cuda_oom",
        Cause.CUDA_OOM,
        r"(torch\.)?(cuda\.)?OutOfMemoryError|CUDA (error: )?out of memory"
        r"|CUBLAS_STATUS_ALLOC_FAILED",
        "a smaller batch, or a GPU with more free memory",
    ),
    Signature(
        "device_assert",
        Cause.CUDA_ERROR,
        r"device-side assert triggered",
        "an index or a label is out of range: run once on the CPU to see which",
        permanent=True,
    ),
    Signature(
        "gpu_hardware",
        Cause.GPU_HARDWARE,
        r"\bXid\b|ECC.*(uncorrectable|DBE)|uncorrectable ECC|fallen off the bus",
        "look at `dmesg` and `nvidia-smi -q`; the GPU may need a reset or a replacement",
    ),
    Signature(
        "illegal_access",
        Cause.CUDA_ERROR,
        r"an illegal memory access was encountered|CUDA error:",
        "if it comes back at the same step it is a bug; if not, suspect the GPU",
    ),
    Signature(
        "nccl_timeout",
        Cause.NCCL,
        r"Watchdog caught collective operation timeout|NCCL error|ncclSystemError|ncclRemoteError",
        "one rank died or stalled; the others only noticed",
    ),
    Signature(
        "shm",
        Cause.SHM,
        r"insufficient shared memory \(shm\)|is killed by signal: Bus error",
        "raise the size of /dev/shm (docker: --shm-size) or use fewer loader workers",
        permanent=True,
    ),
    Signature(
        "dataloader",
        Cause.DATALOADER,
        r"DataLoader worker \(pid(\(s\))? .*exited unexpectedly"
        r"|is killed by signal: (Killed|Segmentation|Terminated|Aborted)",
        "a loader worker died: memory, or a bad sample",
    ),
    Signature(
        "bad_checkpoint",
        Cause.BAD_CHECKPOINT,
        r"failed finding central directory|SafetensorError|Ran out of input|unexpected EOF"
        r"|invalid load key|PytorchStreamReader failed",
        "the checkpoint that this attempt loaded cannot be read",
    ),
    Signature(
        "weights_only",
        Cause.BAD_CONFIG,
        r"Weights only load failed",
        "trusted file? set TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 in the job's env",
        permanent=True,
        early_only=True,
    ),
    Signature(
        "rank_signal",
        Cause.SIGNAL,
        r"Signal \d+ \(SIG(?!TERM)\w+\) received by PID \d+",  # torchrun's summary
        "one rank was killed, and the others lost it",
    ),
    Signature(
        "size_mismatch",
        Cause.BAD_CONFIG,
        r"size mismatch for |Error\(s\) in loading state_dict",
        "the checkpoint belongs to another model: check the job's folder and parameters",
        permanent=True,
        early_only=True,
    ),
    Signature(
        "python_error",
        Cause.BAD_CONFIG,
        r"^(ModuleNotFoundError|ImportError|SyntaxError|IndentationError|NameError|PermissionError)"
        r"\b|: can't open file ",
        "the script or its environment is wrong; a restart would fail the same way",
        permanent=True,
        early_only=True,
    ),
    Signature(
        "usage",
        Cause.BAD_CONFIG,
        r": error: (unrecognized arguments|the following arguments are required|argument )",
        "the script refused its arguments: compare `command` with the script's --help",
        permanent=True,
        early_only=True,
    ),
    Signature(
        "non_finite",
        Cause.NON_FINITE,
        r"^FloatingPointError|(?i:(?:loss|grad\w*)\s*[=:]?\s*(?:is\s+)?(?:nan|[-+]?inf(?:inity)?)\b)",
        "lower the learning rate, clip gradients, or look at the batch",
        weak=True,
    ),
)

# What the other ranks say when one has died comes first in the log; how that one died, last.
_CASCADES = frozenset({Cause.NCCL, Cause.DATALOADER})

_COMPILED = tuple((row, re.compile(row.pattern)) for row in SIGNATURES)

# A traceback's last line: `package.SomeError: text`, or `KeyboardInterrupt` alone.
_EXCEPTION = re.compile(
    r"^(?:[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit|Warning))\b(?:: .*)?$"
)
_NUMBERS = re.compile(r"0x[0-9a-fA-F]+|\d+")


def first_root_error(lines: Sequence[str]) -> RootError | None:
    """The first line that a signature recognises; an error before its echo and before a symptom."""
    symptom = echo = None
    before = ""
    for line in lines:
        # In a traceback what is indented behind `  File "x.py", line 3` is source, no message.
        quoted, before = before.startswith('  File "') and line.startswith("    "), line
        seen = "" if quoted else line[:LINE_LIMIT]
        row = _recognised(seen)
        if row is None or (row.weak and symptom) or (echo and row.cause is not Cause.SIGNAL):
            continue
        found = RootError(
            row.name, row.cause, seen.strip(), row.hint, row.permanent, row.early_only
        )
        if row.cause in _CASCADES:
            echo = found
        elif row.weak:
            symptom = found
        else:
            return found
    return echo or symptom


def _recognised(line: str) -> Signature | None:
    return next((row for row, pattern in _COMPILED if pattern.search(line)), None)


def error_line(lines: Sequence[str]) -> str | None:
    """The line that best says how the worker failed: its last exception, else its last words."""
    last = None
    for line in reversed(lines):
        text = line[:LINE_LIMIT].strip()
        if not text:
            continue
        if _EXCEPTION.match(text):
            return text
        last = last or text
    return last


def same_error(one: str | None, other: str | None) -> bool:
    """Whether two error lines tell of one error: equal but for the numbers in them."""
    if one is None or other is None:
        return one is other
    return _NUMBERS.sub("#", one) == _NUMBERS.sub("#", other)
