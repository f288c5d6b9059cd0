"""Keeps the numeric libraries of a zygote on one thread, and gives its children theirs back.

Owns the sizes of the thread pools of OpenMP, MKL and OpenBLAS, through the libraries' own
functions; loads none of them. Never guesses where it can ask: what a library chose when it was
loaded, under the job's own environment and processors, is what a child gets back.
Invariant: a library whose figure was not changed here is not touched in the child either.

A pool's threads would be missing in a forked child, which then waits for them for ever. OpenMP and
MKL start theirs at the first large operation, so it is enough to say "one" as soon as they are
loaded (torch: at the end of its import). OpenBLAS starts them while it is loaded, so it is told by
its variable, and what it would have chosen without is worked out here (openblas_read_env).
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.util
import os
import sys
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

# Set while modules are imported; the children get the job's own variables.
HELD = {
    "OPENBLAS_NUM_THREADS": "1",
    # Asking torch whether there is a GPU would initialise CUDA, which no fork survives.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}
OPENBLAS_VARIABLES = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")
OPENMP = ("libgomp", "libiomp", "libomp")
MKL = ("libtorch_cpu", "libmkl_rt", "libmkl_core")
# How many threads it would use, and the call that changes that.
OPENMP_CALLS = (("omp_get_max_threads", "omp_set_num_threads"),)
MKL_CALLS = (
    ("MKL_Get_Max_Threads", "MKL_Set_Num_Threads"),
    ("mkl_serv_get_max_threads", "mkl_serv_set_num_threads"),  # all that torch's own copy shows
)
OPENBLAS_CALLS = (
    "openblas_set_num_threads",
    "openblas_set_num_threads64_",
    "scipy_openblas_set_num_threads",
    "scipy_openblas_set_num_threads64_",
)


class Pools:
    """The pools of every such library that is loaded in this process."""

    def __init__(self) -> None:
        self._chosen: dict[tuple[str, str], int] = {}

    def hold(self) -> None:
        """Say "one thread" to OpenMP and MKL, and remember what they had chosen."""
        for path in mapped():
            for ask, tell in calls_of(path):
                chosen = _call(path, ask)
                if chosen is not None and chosen > 1:
                    self._chosen[path, tell] = chosen
                    _call(path, tell, 1)

    def release(self, environ: Mapping[str, str]) -> None:
        """Give them back what they would have had in a fresh process with this environment."""
        for (path, tell), chosen in self._chosen.items():
            _call(path, tell, chosen)
        count = openblas_threads(environ, len(os.sched_getaffinity(0)))
        for path in mapped() if count > 1 else ():
            if "openblas" in os.path.basename(path):  # noqa: PTH119 -- pathlib is slow to import
                for tell in OPENBLAS_CALLS:
                    _call(path, tell, count)


def openblas_threads(environ: Mapping[str, str], processors: int) -> int:
    """Return how many threads OpenBLAS starts when it is loaded."""
    for name in OPENBLAS_VARIABLES:
        with suppress(ValueError):
            if (wanted := int(environ.get(name, "").split(",")[0])) > 0:
                return min(wanted, processors)
    return processors


def calls_of(path: str) -> Sequence[tuple[str, str]]:
    """Return by which pairs of functions this library may be asked and told."""
    name = os.path.basename(path)  # noqa: PTH119 -- see above
    if name.startswith(OPENMP):
        return OPENMP_CALLS
    return MKL_CALLS if name.startswith(MKL) else ()


def mapped() -> Iterator[str]:
    """Yield the files of the libraries that this process has loaded."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123 -- see above
        paths = {line.split(None, 5)[5].strip() for line in file if ".so" in line}
    yield from sorted(paths)


def _call(path: str, name: str, *values: int) -> int | None:
    """Call a function of a library that is loaded already; None when it has no such function."""
    try:
        function = getattr(ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_LAZY), name)
    except (OSError, AttributeError):  # deleted or replaced on the disk, or another build of it
        return None
    return int(function(*map(ctypes.c_int, values)))


class AfterImport:
    """A finder that has something done when a module, whoever asks for it, has been imported."""

    def __init__(self, name: str, act: Callable[[], None]) -> None:
        self._name = name
        self._act = act

    def find_spec(
        self, name: str, _path: object = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec that the other finders have for the module, once."""
        if name != self._name:
            return None
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not self]
        spec = importlib.util.find_spec(name)
        loader: Any = None if spec is None else spec.loader
        if isinstance(loader, importlib.machinery.SourceFileLoader):
            execute = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                del vars(loader)["exec_module"]  # uncovers the class's own
                execute(module)
                self._act()

            vars(loader)["exec_module"] = exec_module  # of this one loader alone
        return spec
