"""Fixtures that put a fake NVIDIA driver under whatever a test starts."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_nvml.driver import VARIABLE, NvmlDriver, build, compiler


@pytest.fixture(scope="session")
def fake_nvml_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the library once; skip whoever needs it where there is no compiler."""
    if compiler() is None:
        pytest.skip("no C compiler (gcc or cc) on PATH: the fake libnvidia-ml.so.1 cannot be built")
    return build(tmp_path_factory.mktemp("fake-nvml"))


@pytest.fixture
def fake_driver(
    fake_nvml_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[NvmlDriver]:
    """Give a driver without GPUs, which every process started from now on sees."""
    driver = NvmlDriver(tmp_path_factory.mktemp("fake-nvml-state") / "state")
    driver.write()
    before = os.environ.get("LD_LIBRARY_PATH")
    path = os.pathsep.join(filter(None, [str(fake_nvml_folder), before]))
    monkeypatch.setenv("LD_LIBRARY_PATH", path)
    monkeypatch.setenv(VARIABLE, str(driver.path))
    yield driver
    driver.mend()  # whoever still hangs in a block can leave


@pytest.fixture
def fake_gpus(fake_driver: NvmlDriver) -> NvmlDriver:
    """Give a driver with two empty GPUs: `fake_gpus.gpus[0].uuid` and `[1]`."""
    fake_driver.add_gpu()
    fake_driver.add_gpu()
    return fake_driver
