"""Whether a daemon runs, as a person and as a script hear it."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

from tests.unit.fake_daemon import FakeDaemon, refused, served

Supervise = Callable[..., Result]
STATUS = {
    "version": "0.1.0",
    "api": 1,
    "pid": 4242,
    "state_dir": "/home/ada/.local/state/supervise",
    "system": False,
    "launcher": "session",
    "jobs": {"waiting": 2, "started": 1, "ended": 7},
    "lag_s": 0.0012,
    "worst_lag_s": 0.8,
}


@pytest.fixture
def daemon(state_dir: Path) -> Iterator[FakeDaemon]:
    """A daemon that started an hour ago."""
    fake = FakeDaemon(state_dir / "daemon.sock", state_dir)
    fake.routes["GET", "/v1/daemon"] = 200, STATUS | {"started_s": time.time() - 3600}
    with served(fake) as one:
        yield one


def test_a_daemon_that_runs(daemon: FakeDaemon, supervise: Supervise) -> None:
    """All that one asks first: whose it is, since when, its jobs, and whether it keeps up."""
    result = supervise("daemon", "status")

    assert result.exit_code == 0
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert lines["daemon"] == "running, yours: version 0.1.0, process 4242"
    assert lines["since"].endswith(", for 1:00:00")
    assert lines["socket"] == str(daemon.socket)
    assert lines["jobs"] == "2 waiting, 1 started, 7 ended"
    assert lines["lag"] == "its event loop is 1 ms late, at worst 800 ms"


def test_a_daemon_that_does_not_keep_up(daemon: FakeDaemon, supervise: Supervise) -> None:
    """It is said, and so is what an older daemon does not tell."""
    daemon.routes["GET", "/v1/daemon"] = 200, STATUS | {"lag_s": 2.5}
    told = supervise("daemon", "status").stdout
    assert "2500 ms late, at worst 800 ms: it is overloaded, or starved by the host" in told

    daemon.routes["GET", "/v1/daemon"] = 200, {}
    told = supervise("daemon", "status").stdout
    assert "since     unknown" in told


def test_json(daemon: FakeDaemon, supervise: Supervise) -> None:
    """What the daemon says, and where it was found."""
    told = json.loads(supervise("daemon", "status", "--json").stdout)
    assert (told["running"], told["socket"]) == (True, str(daemon.socket))
    assert told["jobs"] == STATUS["jobs"]


def test_no_daemon(supervise: Supervise) -> None:
    """3, with what to do; a script reads the same as JSON."""
    result = supervise("daemon", "status")
    assert result.exit_code == 3
    assert result.stdout.startswith("no daemon is running at ")
    assert "supervise daemon run (in the foreground), or supervise daemon install" in result.stdout

    result = supervise("daemon", "status", "--json")
    assert (result.exit_code, json.loads(result.stdout)["running"]) == (3, False)


def test_a_daemon_that_does_not_answer(daemon: FakeDaemon, supervise: Supervise) -> None:
    """It is as good as none."""
    daemon.routes["GET", "/v1/daemon"] = b""
    result = supervise("daemon", "status")
    assert (result.exit_code, "did not answer" in result.stdout) == (3, True)


def test_a_daemon_that_refuses(daemon: FakeDaemon, supervise: Supervise) -> None:
    """Then it runs, and its words tell what is wrong."""
    daemon.routes["GET", "/v1/daemon"] = refused(403, "not_allowed", "you are not served here")
    result = supervise("daemon", "status")
    assert (result.exit_code, result.stderr) == (2, "supervise: you are not served here\n")
