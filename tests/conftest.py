"""What every test gets: a clean environment, a way to wait, and proof that nothing is left behind.

Owns the fixtures that more than one folder of tests needs. No test sleeps: it waits for an event
with a deadline, through `eventually` or by the event's own means.
"""

import json
import os
import shlex
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

import psutil
import pytest
from hypothesis import settings

from supervisor.journal import Journal
from supervisor.runner.opening import OpenJob, open_job
from supervisor.spec.load import load_job

# Fixtures, which pytest finds by their being here.
from tests.fake_nvml.plugin import (  # noqa: F401 -- used by name, in the tests that ask for one
    fake_driver,
    fake_gpus,
    fake_nvml_folder,
)

# How long an example takes says how busy the host is; benchmarks measure time.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

T = TypeVar("T")

POLL_S = 0.005
WAITING_S = 30.0
"""How long to wait for what takes a moment on an idle host; only a failure waits so long."""

LEAVING_S = 5.0
"""How long a process that was told to end may take, after the last test."""

MARK = "SUPERVISE_TEST_RUN"
"""Environment variable that every descendant of the tests inherits, however far it has escaped."""


class Eventually(Protocol):
    """Waits until `predicate` returns something true, and returns that.

    Fails the test after `timeout_s` seconds. A predicate that raises fails it at once.
    """

    def __call__(self, predicate: Callable[[], T], timeout_s: float = WAITING_S) -> T:
        """Do what the class says."""


@pytest.fixture(scope="session")
def eventually() -> Eventually:
    """Give the one way to wait for what has no event of its own."""

    def wait(predicate: Callable[[], T], timeout_s: float = WAITING_S) -> T:
        never = threading.Event()
        deadline = time.monotonic() + timeout_s
        while not (value := predicate()):
            if time.monotonic() >= deadline:
                pytest.fail(f"not within {timeout_s} s: {predicate}; last value {value!r}")
            never.wait(POLL_S)
        return value

    return wait


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """Give a state directory of this test's own, not made yet."""
    return tmp_path / "state"


@pytest.fixture
def open_a_job(tmp_path: Path, state_dir: Path) -> Iterator[Callable[..., OpenJob]]:
    """Open the job of a job.yaml with these fields; it is closed when the test ends."""
    with ExitStack() as closing:

        def opened(**fields: Any) -> OpenJob:
            file = tmp_path / "job.yaml"
            file.write_text(json.dumps({"name": "net", "command": ["true"], **fields}))
            journal = Journal.open(state_dir)
            closing.callback(journal.close)
            return closing.enter_context(open_job(journal, state_dir, load_job(file, {})))

        yield opened


@pytest.fixture(autouse=True)
def _clean_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Keep a person's own state, terminal and settings out of the tests."""
    for name in list(os.environ):
        if name.startswith("SUPERVISE_") and name not in {
            MARK,
            "SUPERVISE_SEEDS",
        }:
            monkeypatch.delenv(name)
    for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "LINES", "NOTIFY_SOCKET"):
        monkeypatch.delenv(name, raising=False)
    # A name of its own for each test; whoever writes there makes the folder.
    home = tmp_path_factory.getbasetemp() / "xdg" / uuid.uuid4().hex
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(home / name.lower()))
    monkeypatch.setenv("SUPERVISE_LEASE_DIR", str(home / "leases"))  # not this host's own
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")


@pytest.fixture(scope="session", autouse=True)
def _signals_are_heard() -> None:
    """Undo what a shell does to jobs in the background: their children would ignore Ctrl-C too."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            interrupt = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if interrupt else signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Fail, with names, when a process that the tests started is still there after the last one."""
    mark = uuid.uuid4().hex
    os.environ[MARK] = mark
    yield
    del os.environ[MARK]
    deadline = time.monotonic() + LEAVING_S
    never = threading.Event()
    while (left := _descendants(mark)) and time.monotonic() < deadline:
        never.wait(POLL_S)
    names = [_described(process) for process in left]
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    assert not names, "processes left by the tests: " + "; ".join(names)


def _descendants(mark: str) -> list[psutil.Process]:
    """Children that are alive or not reaped, and whatever bears the mark under another parent."""
    found = {process.pid: process for process in psutil.Process().children(recursive=True)}
    for pid in psutil.pids():
        with suppress(psutil.Error, OSError):
            process = psutil.Process(pid)
            if process.environ().get(MARK) == mark:
                found[pid] = process
    found.pop(os.getpid(), None)
    return [process for process in found.values() if not _is_of_the_library(process)]


def _is_of_the_library(process: psutil.Process) -> bool:
    """Tell whether Python keeps this process until the interpreter itself ends."""
    with suppress(psutil.Error):
        return "multiprocessing.resource_tracker" in " ".join(process.cmdline())
    return False


def _described(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {process.status()} {shlex.join(process.cmdline())}"
    except psutil.ZombieProcess:  # one kind of NoSuchProcess, without a command line
        return f"{process.pid}, which nobody has waited for"
    except psutil.Error as error:
        return f"{process.pid} ({error})"
