"""What `explain` says of GPUs, memory and disks, from stored evidence."""

from typing import Any

import pytest

from supervisor.views import proof_gpu

GIB = 1 << 30


def points(*used: int) -> list[dict[str, float]]:
    """A memory curve, one point every two seconds."""
    return [{"after_s": 2.0 * at, "used_bytes": one} for at, one in enumerate(used)]


def test_a_curve_grows_from_the_lowest_bar_to_the_highest() -> None:
    """The last word is the highest value; as many bars as points, up to a line's worth."""
    line = proof_gpu.curve({"gpu_curve": points(0, 5 * GIB, 10 * GIB)})
    assert line == "GPU memory ▁▅█ up to 10.0 GiB in 4.0 s"
    long = proof_gpu.curve({"gpu_curve": points(*range(0, 120 * GIB, GIB))})
    assert long is not None
    assert long.count("█") >= 1
    assert sum(long.count(bar) for bar in proof_gpu.BARS) == 40


@pytest.mark.parametrize("used", [(), (GIB,), (0, 0)])
def test_no_line_can_be_drawn(used: tuple[int, ...]) -> None:
    """Of no point, of one, of an empty GPU."""
    assert proof_gpu.curve({"gpu_curve": points(*used)}) is None


TOLD: list[tuple[Any, dict[str, Any], str | None]] = [
    (proof_gpu.held, {"gpus": ["GPU-a", "GPU-b"]}, "it held GPU-a, GPU-b"),
    (proof_gpu.held, {}, None),
    (
        proof_gpu.troubles,
        {"gpu_troubles": [{"text": "Xid 79: gone", "uuid": "GPU-a"}] * 2},
        "GPU trouble: Xid 79: gone (GPU-a)",
    ),
    (proof_gpu.troubles, {"gpu_troubles": []}, None),
    (
        proof_gpu.oom,
        {"oom": {"kills": 1, "source": "cgroup v2", "limit_bytes": GIB, "peak_bytes": None}},
        "the kernel killed 1 of its processes for memory (cgroup v2, limit 1.0 GiB)",
    ),
    (proof_gpu.oom, {"oom": None}, None),
    (proof_gpu.no_room, {"no_room": "/data: full"}, "disk: /data: full"),
    (proof_gpu.no_room, {"no_room": ""}, None),
]


@pytest.mark.parametrize(("tell", "raw", "line"), TOLD)
def test_each_line(tell: Any, raw: dict[str, Any], line: str | None) -> None:
    """What is known is told once; what is not known is left out."""
    assert tell(raw) == line
