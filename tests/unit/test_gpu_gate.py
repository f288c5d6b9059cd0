"""The gate before the next attempt: what counts as given back."""

import os

import pytest

from supervisor.gpu.gate import SLACK_BYTES, clean
from supervisor.gpu.model import GpuProcess, Reading

GIB = 1 << 30
TREE = frozenset({11, 12})
DESKTOP = GpuProcess(2**22 - 1, GIB, "graphics")


def read(used=None, processes=None, problems=()):
    """One look at the GPU."""
    return Reading("GPU-0", used_bytes=used, processes=processes, problems=problems)


BEFORE = read(GIB, (DESKTOP,))


@pytest.mark.parametrize(
    "now",
    [
        read(GIB, (DESKTOP,)),
        read(0, ()),
        read(GIB + SLACK_BYTES, None),
        read(None, (DESKTOP,)),
    ],
    ids=["as before", "less than before", "within the slack", "memory not told"],
)
def test_given_back(now):
    """No process of the tree, and no more memory than before, as far as that is told."""
    assert clean(BEFORE, now, TREE) is None


LEFT = {
    "a process of the tree": (
        read(GIB, (DESKTOP, GpuProcess(12, GIB))),
        "still on the GPU from the attempt that ended: process 12",
    ),
    "memory of nobody": (
        read(21 * GIB, (DESKTOP,)),
        "20.0 GiB more GPU memory are in use than before the attempt, by no process that",
    ),
    "just over the slack": (read(GIB + SLACK_BYTES + 1), "0.3 GiB more GPU memory are in use"),
    "a newcomer": (
        read(3 * GIB, (DESKTOP, GpuProcess(os.getpid(), 2 * GIB))),
        f"; on the GPU now: process {os.getpid()} (",
    ),
    "silence": (
        read(problems=("GPU is lost",)),
        "neither which processes are on the GPU nor how much memory is used (GPU is lost)",
    ),
}


@pytest.mark.parametrize("case", LEFT)
def test_not_given_back(case):
    """Each thing that is left is named; silence is not called clean."""
    now, said = LEFT[case]
    assert said in clean(BEFORE, now, TREE)


def test_without_a_figure_from_before_the_processes_decide():
    """Memory at the start unknown: processes named and none of ours is clean; none named is not."""
    assert clean(read(), read(20 * GIB, ()), TREE) is None
    assert clean(read(), read(20 * GIB), TREE) is not None


def test_a_smaller_slack_sees_more():
    """The caller may be stricter."""
    assert clean(BEFORE, read(GIB + 2, ()), TREE, 1) is not None


def test_on_a_shared_gpu_only_processes_count():
    """Memory there is other jobs' as well; a process of the tree is still found."""
    assert clean(BEFORE, read(60 * GIB, (GpuProcess(99, GIB),)), TREE, shared=True) is None
    assert clean(BEFORE, read(60 * GIB), TREE, shared=True) is None
    assert "process 11" in clean(BEFORE, read(GIB, (GpuProcess(11, None),)), TREE, shared=True)
