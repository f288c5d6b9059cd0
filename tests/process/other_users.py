"""Other users of this host, for the tests of a daemon that acts for them. Needs root."""

import functools
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import supervisor
from supervisor.daemon.accounts import Account

UID, GROUP = 23001, 23005
SOMEBODY = Account(UID, UID, "somebody", "/", "/bin/sh", (UID, GROUP))
ELSEWHERE = (sys.executable, "/usr/bin/python3")
WORKS = "import pydantic, supervisor.runner.run, supervisor.daemon.desk"


def lookup(uid: int) -> Account:
    """Know one user more than the user database of this host."""
    assert uid == UID
    return SOMEBODY


@functools.cache
def readable_python() -> tuple[str, ...]:
    """Return an interpreter that other users can run with our packages; empty if there is none."""
    places = [str(Path(supervisor.__file__).parents[1]), sysconfig.get_path("purelib")]
    env = {"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(places)}
    for python in ELSEWHERE:
        try:
            tried = subprocess.run(
                [python, "-P", "-c", WORKS],
                env=env,
                cwd="/",
                user=UID,
                group=UID,
                extra_groups=[],
                capture_output=True,
                check=False,
            )
        except OSError:
            continue
        if tried.returncode == 0:
            return (python, "-P")
    return ()


@pytest.fixture(name="others_python")
def an_others_python(monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Give the interpreter of another user's processes; they find our packages by name."""
    if os.geteuid() != 0:
        pytest.skip("starts processes of other users: root's right")
    python = readable_python()
    if not python:
        pytest.skip("no interpreter here that another user can run with these packages")
    places = [str(Path(supervisor.__file__).parents[1]), sysconfig.get_path("purelib")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(places))
    monkeypatch.setattr("supervisor.daemon.accounts._needed", lambda _: [])
    return python


@pytest.fixture(name="passable")
def a_passable() -> Iterator[Path]:
    """Give a folder that every user may go through; pytest's own are for its user alone."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)
