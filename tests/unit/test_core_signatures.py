"""The table of error signatures, against lines as torch, Python and the driver print them."""

import pytest

from supervisor.core.causes import Cause
from supervisor.core.signatures import (
    LINE_LIMIT,
    SIGNATURES,
    RootError,
    error_line,
    first_root_error,
    same_error,
)

ADVICE = [
    "CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace",
    "For debugging consider passing CUDA_LAUNCH_BLOCKING=1",
    "Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.",
]

# Lines of real logs, by the signature that must recognise them.
LOGS = {
    "disk_full": """
OSError: [Errno 28] No space left on device: 'runs/ckpt_300.pt'
OSError: [Errno 122] Disk quota exceeded
RuntimeError: [enforce fail at inline_container.cc:603] . PytorchStreamWriter failed writing file
""",
    "cuda_oom": """
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity
torch.cuda.OutOfMemoryError: CUDA out of memory.
RuntimeError: CUDA error: out of memory
RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`
""",
    "device_assert": """
RuntimeError: CUDA error: device-side assert triggered
{"error": "CUDA error: device-side assert triggered\\nConsider passing CUDA_LAUNCH_BLOCKING=1"}
""",
    "illegal_access": """
RuntimeError: CUDA error: an illegal memory access was encountered
RuntimeError: CUDA error: unspecified launch failure
""",
    "gpu_hardware": """
NVRM: Xid (PCI:0000:3b:00): 79, pid=8, GPU has fallen off the bus.
RuntimeError: CUDA error: uncorrectable ECC error encountered
ECC error: uncorrectable, row remap pending
GPU 0000:3B:00.0 has fallen off the bus
""",
    "nccl_timeout": """
[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=12, OpType=ALLREDUCE)
torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:1333, remote process exited
""",
    "shm": """
RuntimeError: DataLoader worker (pid 41) is killed by signal: Bus error. It is possible that
This might be caused by insufficient shared memory (shm).
""",
    "dataloader": """
RuntimeError: DataLoader worker (pid(s) 4117) exited unexpectedly
RuntimeError: DataLoader worker (pid 4117) exited unexpectedly with exit code 1.
RuntimeError: DataLoader worker (pid 9) is killed by signal: Killed.
RuntimeError: DataLoader worker (pid 9) is killed by signal: Segmentation fault.
""",
    "bad_checkpoint": """
RuntimeError: PytorchStreamReader failed reading zip archive: failed finding central directory
safetensors_rust.SafetensorError: Error while deserializing header: InvalidHeaderDeserialization
EOFError: Ran out of input
RuntimeError: unexpected EOF, expected 41 more bytes. The file might be corrupted.
_pickle.UnpicklingError: invalid load key, '\\x00'.
""",
    "weights_only": """
_pickle.UnpicklingError: Weights only load failed. This file can still be loaded, to do so you
""",
    "rank_signal": """
  traceback : Signal 9 (SIGKILL) received by PID 4077
  traceback : Signal 11 (SIGSEGV) received by PID 4077
""",
    "size_mismatch": """
	size mismatch for fc.weight: copying a param with shape torch.Size([10, 64]) from checkpoint
RuntimeError: Error(s) in loading state_dict for Net:
""",
    "python_error": """
ModuleNotFoundError: No module named 'torchvision'
ImportError: cannot import name 'x' from 'y'
SyntaxError: invalid syntax
NameError: name 'modle' is not defined
PermissionError: [Errno 13] Permission denied: '/data'
python3: can't open file '/x/trian.py': [Errno 2] No such file or directory
""",
    "usage": """
train.py: error: unrecognized arguments: --epoch 3
train.py: error: the following arguments are required: --out
train.py: error: argument --lr: invalid float value: 'x'
""",
    "non_finite": """
FloatingPointError: Loss became infinite or NaN at iteration=12!
epoch 3 step 120 loss: nan lr 0.1
Loss is nan, stopping training
step 12 grad_norm=inf
""",
}
LINES = [(name, line) for name, log in LOGS.items() for line in log.strip("\n").splitlines()]
PERMANENT = {"device_assert", "shm", "weights_only", "size_mismatch", "python_error", "usage"}

PLAIN = [
    "epoch 3 loss: 0.31",
    "loss: 1e-3 nan_count 0",
    "info: 12 batches",
    "lossless inference",
    "No Xidentifier here",
    "Traceback (most recent call last):",
    "  ImportError is handled below",
    "the DataLoader worker (pid 4) is fine",
    "  traceback : Signal 15 (SIGTERM) received by PID 4077",
    "",
]


@pytest.mark.parametrize(("name", "line"), LINES)
def test_each_line_shows_its_error(name: str, line: str) -> None:
    """A line of a real log is recognised, whatever stands around it."""
    found = first_root_error(["step 1", *ADVICE, line, "bye"])
    assert found is not None
    assert (found.signature, found.line) == (name, line.strip())
    assert found.permanent == (name in PERMANENT)
    assert found.hint


def test_every_signature_is_tried() -> None:
    """No signature stands in the table without a line above."""
    assert set(LOGS) == {one.name for one in SIGNATURES}


@pytest.mark.parametrize("line", PLAIN + ADVICE)
def test_plain_output_and_advice_show_no_error(line: str) -> None:
    """What a healthy run prints, and torch's advice beside other errors, prove nothing."""
    assert first_root_error([line]) is None


def root(lines: list[str]) -> RootError:
    """The root error of a log that has one."""
    found = first_root_error(lines)
    assert found is not None
    return found


def test_the_first_error_is_the_root() -> None:
    """What follows the first error is mostly its echo, so the first wins."""
    lines = ["CUDA out of memory", "DataLoader worker (pid 3) exited unexpectedly", "NCCL error"]
    assert root(lines).signature == "cuda_oom"
    assert root(lines[::-1]).signature == "nccl_timeout"


def test_an_error_outranks_an_earlier_symptom() -> None:
    """An infinite gradient of mixed precision does not hide the error that ended the run."""
    lines = ["step 1 grad_norm: inf", "step 2 loss: nan", "torch.OutOfMemoryError: CUDA out of x"]
    assert root(lines).cause is Cause.CUDA_OOM
    assert root(lines[:2]).line == lines[0]


def test_a_very_long_line_is_read_at_its_beginning_only() -> None:
    """A megabyte without a newline is data; patterns see only the first characters."""
    assert first_root_error(["x" * LINE_LIMIT + " CUDA out of memory"]) is None
    assert len(root(["CUDA out of memory " + "x" * 10**6]).line) == LINE_LIMIT


def test_no_line_takes_long() -> None:
    """Lines made to confuse the patterns are judged like others (the suite's timeout guards)."""
    for hostile in ("ECC" * 700, "DataLoader worker (pid " * 90, "loss " * 400, "Error." * 400):
        assert first_root_error([hostile] * 20) is None
        assert error_line([hostile]) == hostile[:LINE_LIMIT].strip()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], None),
        (["", "  "], None),
        (["step 1", "Killed", ""], "Killed"),
        (["Traceback:", "KeyError: 'x'", "bye"], "KeyError: 'x'"),
        (["ValueError: a", "RuntimeError: b", "end"], "RuntimeError: b"),
        (["KeyboardInterrupt"], "KeyboardInterrupt"),
        (
            ["torch.distributed.DistBackendError: NCCL", "x"],
            "torch.distributed.DistBackendError: NCCL",
        ),
        (["an Error: in prose", "last"], "last"),
    ],
)
def test_error_line(lines: list[str], expected: str | None) -> None:
    """The last exception says best how a worker failed; without one, its last words do."""
    assert error_line(lines) == expected


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (None, None, True),
        (None, "x", False),
        ("x", None, False),
        ("index 17 is out of bounds", "index 4 is out of bounds", True),
        ("at 0x7f00aa", "at 0x1b", True),
        ("KeyError: 'a'", "KeyError: 'b'", False),
    ],
)
def test_same_error(one: str | None, other: str | None, *, same: bool) -> None:
    """Two lines tell of one error when they differ in their numbers alone."""
    assert same_error(one, other) is same


def test_the_source_line_of_a_traceback_is_no_error() -> None:
    """What the code would say is not what it said."""
    lines = [
        "Traceback (most recent call last):",
        '  File "load.py", line 3, in <module>',
        '    raise ValueError("CUDA out of memory, or so")',
        "ValueError: no GPU",
    ]
    assert first_root_error(lines) is None


def test_a_traceback_without_source_lines_keeps_its_error() -> None:
    """`python -c` has no source to show: the error follows the place at once."""
    lines = ['  File "<string>", line 1, in <module>', "ModuleNotFoundError: No module named 'x'"]
    found = first_root_error(lines)
    assert found is not None
    assert found.signature == "python_error"


def test_how_a_rank_died_says_more_than_that_the_others_lost_it() -> None:
    """The echo of a death stands first in the log, and counts where nothing tells of the death."""
    echo = "[rank1]: Watchdog caught collective operation timeout: WorkNCCL(SeqNum=8)"
    killed = "  traceback : Signal 9 (SIGKILL) received by PID 4077"
    later = "torch.OutOfMemoryError: CUDA out of memory"
    alone, told = first_root_error([echo, later]), first_root_error([echo, later, killed])
    assert alone is not None
    assert alone.cause is Cause.NCCL
    assert told is not None
    assert told.cause is Cause.SIGNAL
