"""A GPU that shows what the case wants it to: NVIDIA's own binding on the tests' fake driver.

Owns the figures of a stuck and of a working GPU, as such GPUs were seen to show them.
"""

import os
from pathlib import Path

from tests.fake_nvml.driver import VARIABLE, NvmlDriver, build, compiler

FIGURES = {
    "stuck": {"utilization": 100, "memory_utilization": 0, "power_mw": 120_000},
    "working": {"utilization": 100, "memory_utilization": 55, "power_mw": 590_000},
}


def why_not() -> str:
    """Why there can be none here, or nothing."""
    return "" if compiler() else "no C compiler, so no fake driver"


def fake_gpu(shows: str, folder: Path) -> dict[str, str]:
    """Make it below the folder; what its environment must say for a program to see it."""
    library = folder / "library"
    library.mkdir()
    driver = NvmlDriver(folder / "driver")
    driver.add_gpu(power_limit_mw=700_000, **FIGURES[shows])
    path = [str(build(library)), os.environ.get("LD_LIBRARY_PATH")]
    return {
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, path)),
        VARIABLE: str(driver.path),
        "SUPERVISE_LEASE_DIR": str(folder / "leases"),
    }
