"""What the tests in the machine get."""

import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.vm.given import As, Given
from tests.vm.guest import NAME, USER


@pytest.fixture
def given(eventually: Any) -> Iterator[Given]:
    """Give a cgroup to start something in; it is emptied and removed after the test."""
    made = Given.make()
    yield made
    eventually(made.clear, 30)


@pytest.fixture(scope="module")
def somebody() -> As:
    """Give a way to run a command as an ordinary user who has a service manager of his own."""
    subprocess.run(["systemctl", "start", f"user@{USER}.service"], check=True, timeout=120)
    runtime = f"/run/user/{USER}"
    own = {"HOME": pwd.getpwuid(USER).pw_dir, "USER": NAME, "XDG_RUNTIME_DIR": runtime}

    def run(*command: str, cwd: Path = Path("/")) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, **own, "PYTHONPATH": str(Path.cwd())},
            user=USER,
            group=USER,
            extra_groups=[],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    return run


@pytest.fixture
def folder(somebody: As) -> Path:
    """Give a folder of that user's."""
    made = somebody("mktemp", "-d", "-p", pwd.getpwuid(USER).pw_dir)
    return Path(made.stdout.strip())
