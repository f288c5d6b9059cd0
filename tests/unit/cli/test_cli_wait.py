"""`supervise wait` where the daemon does not answer: what is not known is not called a failure."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from supervisor.cli import waiting
from supervisor.client import calls
from tests.unit.fake_daemon import FakeDaemon, Request, served

Supervise = Callable[..., Result]
WAIT = ("GET", "/v1/jobs/net-0a0a0a/wait")


@pytest.fixture(name="daemon")
def _daemon(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    monkeypatch.setattr(calls, "LEAST_ANSWER_S", 0.05)
    monkeypatch.setattr(calls, "WAIT_S", 0.1)
    monkeypatch.setattr(waiting, "PATIENCE_S", 0.3)
    monkeypatch.setattr(waiting, "KNOCK_S", 0.01)
    with served(FakeDaemon(state_dir / "daemon.sock", state_dir)) as one:
        one.has("net-0a0a0a")
        yield one


@pytest.fixture(name="hung")
def _hung(daemon: FakeDaemon) -> Iterator[FakeDaemon]:
    """Its answers to `wait` never come."""
    over = threading.Event()

    def answer(_request: Request) -> Any:
        over.wait(30)
        return 200, {}

    daemon.routes[WAIT] = answer
    yield daemon
    over.set()


@pytest.mark.usefixtures("hung")
def test_a_daemon_that_hangs_is_no_failure_of_the_job(supervise: Supervise) -> None:
    """Exit code 1 means that the job failed; 3, that somebody has to look."""
    result = supervise("wait", "net-0a0a0a")
    assert result.exit_code == 3
    assert "the daemon did not answer" in result.stderr


@pytest.mark.usefixtures("hung")
def test_the_time_is_up_also_where_nobody_answers(supervise: Supervise) -> None:
    """As if the daemon had answered that the job goes on."""
    result = supervise("wait", "net-0a0a0a", "--timeout", "0.1s")
    assert result.exit_code == 124
    assert result.stdout == "net-0a0a0a: has not ended, as far as is known\n"


def test_a_daemon_that_comes_back_is_asked_again(daemon: FakeDaemon, supervise: Supervise) -> None:
    """It hung for a moment."""
    answers = iter([b"", (200, {"id": "net-0a0a0a", "state": "failed", "exit_code": 1})])

    def answer(_request: Request) -> Any:
        told = next(answers)
        return told if isinstance(told, bytes) else (told[0], told[1] | {"ended": True})

    daemon.routes[WAIT] = answer
    result = supervise("wait", "net-0a0a0a")
    assert (result.exit_code, result.stdout) == (1, "net-0a0a0a: failed\n")
