"""What the user's code raised, in the words of the channel."""

import errno
import mmap
import sys
from types import SimpleNamespace

import pytest

from workers import faults
from workers.entry import EntryProblem
from workers.footprint import footprint, gpu_bytes
from workers.jsonable import BadResult
from workers.manifest import Torn
from workers.protocol import FAILURE_KINDS


class OutOfMemoryError(RuntimeError):
    """As torch has one."""

    __module__ = "torch"


class Unprintable(Exception):
    """Cannot say what it is."""

    def __str__(self) -> str:
        """Fail."""
        raise RuntimeError("no")


def raised_from(cause: BaseException) -> BaseException:
    """Return an error that a user's code made of another one."""
    error = KeyError("a.jpg")
    error.__context__ = cause  # as a `raise` within an `except` sets it
    return error


KINDS = [
    (ValueError("bad image"), "error"),
    (OutOfMemoryError("Tried to allocate 2.00 GiB"), "cuda_oom"),
    (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "cuda_oom"),
    (RuntimeError("CUDA error: out of memory"), "cuda_oom"),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `x`"), "cuda_oom"),
    (RuntimeError("CUDA error: device-side assert triggered"), "cuda_error"),
    (RuntimeError("CUDA error: an illegal memory access was encountered"), "cuda_error"),
    (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), "cuda_error"),
    (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"), "error"),
    (MemoryError(), "memory"),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), "memory"),
    (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
    (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk_full"),
    (RuntimeError("PytorchStreamWriter failed writing file data/0"), "disk_full"),
    (RuntimeError("NCCL error in: ProcessGroupNCCL.cpp, unhandled cuda error"), "nccl"),
    (RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer"), "nccl"),
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "dataloader"),
    (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), "dataloader"),
    (ValueError("Caught ValueError in DataLoader worker process 0."), "error"),
    (RuntimeError("PytorchStreamReader failed reading zip archive"), "bad_checkpoint"),
    (EOFError("Ran out of input"), "bad_checkpoint"),
    (Torn("state.pt has 5 bytes instead of 9"), "bad_checkpoint"),
    (FloatingPointError("overflow encountered in multiply"), "non_finite"),
    (RuntimeError("Function 'LogBackward0' returned nan values in its 0th output."), "non_finite"),
    (FileNotFoundError(errno.ENOENT, "No such file"), "error"),
    (BadResult("not JSON"), "bad_result"),
    (EntryProblem("no module"), "bad_config"),
    (raised_from(RuntimeError("CUDA out of memory")), "cuda_oom"),
    (raised_from(ValueError("bad image")), "error"),
    (Unprintable(), "error"),
]


@pytest.mark.parametrize(("error", "kind"), KINDS, ids=lambda value: str(type(value).__name__))
def test_the_kind_is_told_by_type_and_message(error: BaseException, kind: str) -> None:
    """Also of what an error was raised from; the GPU's are fatal to the process."""
    failure = faults.describe(error)
    assert failure.kind == kind
    assert failure.fatal == (kind in {"cuda_oom", "cuda_error"})


def test_every_kind_is_told_of_something() -> None:
    """No kind of the protocol is without an error that is of it."""
    assert {kind for _, kind in KINDS} == set(FAILURE_KINDS)


def test_a_users_own_kind_is_not_ours() -> None:
    """An attribute of that name on an exception of theirs says nothing."""

    class Odd(Exception):
        kind = "cuda_oom"

    assert faults.describe(Odd()).kind == "error"


def test_an_exception_that_cannot_be_printed_is_described() -> None:
    """What it does when it is looked at does not hide it."""
    failure = faults.describe(Unprintable())
    assert failure.message == "(its message could not be made)"
    assert "Unprintable" in failure.traceback


def test_long_words_are_cut_in_their_middle() -> None:
    """How a traceback began and what was raised stay, within 16 KiB."""
    failure = faults.describe(ValueError("x" * 100_000 + " the end"))
    assert len(failure.traceback) == 16 * 1024
    assert failure.traceback.startswith("ValueError: xxx")
    assert failure.traceback.endswith("xx the end\n")
    assert "characters are left out" in failure.traceback
    assert len(failure.message) == 4 * 1024
    assert faults.shortened("short", 10, 5) == "short"


def test_what_broke_because_of_our_name_is_explained(tmp_path, monkeypatch) -> None:
    """Where the user has a package `workers`, and only about errors that come of it."""
    module = tmp_path / "workers.py"
    errors = [
        ImportError("cannot import name 'run'", name="workers"),
        ModuleNotFoundError("No module named 'workers.tasks'", name="workers.tasks"),
        AttributeError("module 'workers' has no attribute 'run'"),
    ]
    monkeypatch.setattr(sys, "path", [])
    assert [faults.describe(error).message for error in errors] == [str(one) for one in errors]
    module.write_text("")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for error in errors:
        assert f"your own package {module} has the same name" in faults.describe(error).message
    others = [ImportError("cannot import", name="worker"), AttributeError("no"), ValueError("no")]
    assert [faults.describe(error).message for error in others] == [str(one) for one in others]


def cuda_of(devices: int, *, initialized: bool = True) -> SimpleNamespace:
    """Return what stands in for torch."""
    cuda = SimpleNamespace(
        is_initialized=lambda: initialized,
        device_count=lambda: devices,
        memory_allocated=lambda device: 100 + device,
        max_memory_reserved=lambda device: 1000 + device,
    )
    return SimpleNamespace(cuda=cuda)


@pytest.mark.parametrize(
    ("torch", "figures"),
    [
        (None, (None, None)),
        (SimpleNamespace(), (None, None)),  # half imported
        (cuda_of(1, initialized=False), (None, None)),
        (cuda_of(1), (100, 1000)),
        (cuda_of(2), (201, 2001)),
        (SimpleNamespace(cuda=SimpleNamespace(is_initialized=lambda: 1 / 0)), (None, None)),
    ],
)
def test_gpu_memory_is_read_where_cuda_is_in_use(torch, figures, monkeypatch) -> None:
    """Over all devices, from a torch that is there; else there is no figure."""
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert gpu_bytes() == figures
    assert footprint(5)[1:] == (*figures, 5)


def test_host_memory_is_that_of_this_process(monkeypatch) -> None:
    """Memory that is taken is seen."""
    before = footprint(0).rss_bytes
    held = mmap.mmap(-1, 50_000_000)  # new pages, whatever the heap has free from earlier tests
    held.write(b"x" * 50_000_000)
    assert footprint(0).rss_bytes - before > 45_000_000
    assert len(held) == 50_000_000
