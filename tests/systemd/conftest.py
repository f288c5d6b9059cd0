"""What the tests in the container get."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.systemd.container import Container, Unavailable, booted
from tests.systemd.service import Service

USERS = ("anna", "bert")


@contextmanager
def skipping() -> Iterator[None]:
    """Skip, with the reason, where no container can be booted."""
    try:
        yield
    except Unavailable as why:
        pytest.skip(str(why))


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory, eventually: Any) -> Iterator[Container]:
    """Give a systemd of this module's own, with two ordinary users who can run this Python."""
    folder = tmp_path_factory.mktemp("container")
    with skipping(), booted(folder, eventually, users=USERS) as made:
        yield made


@pytest.fixture
def host(tmp_path: Path, eventually: Any) -> Iterator[Service]:
    """Give the service on a host of this test's own, to switch off; /kept and the state stay."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "state").mkdir()
    binds = [f"--bind={tmp_path}/kept:/kept", f"--bind={tmp_path}/state:/var/lib/supervise"]
    with skipping(), booted(tmp_path, eventually, *binds, users=USERS) as made:
        service = Service(made)
        service.install()
        yield service


@pytest.fixture(scope="module")
def installed(container: Container) -> Service:
    """Give the system's service, installed by the command line."""
    service = Service(container)
    service.install()
    container.check("usermod", "-aG", "supervise", USERS[0])
    return service


@pytest.fixture
def service(installed: Service) -> Iterator[Service]:
    """Give it with nothing started, and the stand-in for its program."""
    installed.stand_in()
    yield installed
    installed.clear()
