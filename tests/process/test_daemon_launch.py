"""Runners that are launched for real, and the words in which systemd is asked for one."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from supervisor.daemon import launch_systemd
from supervisor.daemon.accounts import account
from supervisor.daemon.contracts import Launch, LaunchFailed
from supervisor.daemon.desk import Desk
from supervisor.daemon.launch_command import PYTHON
from supervisor.daemon.launch_session import SessionLauncher
from supervisor.daemon.launch_systemd import SystemdLauncher, unit_name
from supervisor.host import processes
from supervisor.runner.exits import Exit
from tests.conftest import Eventually
from tests.process.other_users import (  # noqa: F401 - the fixtures are used by name
    GROUP,
    UID,
    a_passable,
    an_others_python,
    lookup,
)

# In the place of a runner: tells how it was started, on its standard output.
TELL = """
import json, os, signal, sys
print(json.dumps({
    "arguments": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd(), "umask": os.umask(0),
    "ids": [*os.getresuid(), *os.getresgid()], "groups": sorted(os.getgroups()),
    "session": os.getsid(0) == os.getpid(), "ppid": os.getppid(),
    "stdin": os.readlink("/proc/self/fd/0"),
    "files": sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                    if os.path.exists(f"/proc/self/fd/{fd}") and int(fd) > 2),
    "blocked": [int(one) for one in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
}))
"""
TELLING = (sys.executable, "-c", TELL)
SHOWN = 'case "$*" in *User*) echo {} ;; *) echo 4711 ;; esac'  # of a unit that runs
Job = Callable[..., str]


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Give a shelf with the folder of one job, net-1."""
    made = tmp_path / "shelf"
    (made / "jobs/net-1").mkdir(parents=True)
    return made


def launched(launch: Launch, launcher: SessionLauncher) -> tuple[int, int]:
    """Launch a runner and wait until it has ended: its pid, and its exit code."""
    pid = asyncio.run(launcher.launch(launch))
    ended = os.waitid(os.P_PID, pid, os.WEXITED)
    assert ended is not None
    return pid, ended.si_status


def told(shelf: Path) -> dict[str, Any]:
    """What was printed in the place of a runner."""
    found: dict[str, Any] = json.loads((shelf / "jobs/net-1/runner.out").read_text())
    return found


@pytest.mark.usefixtures("unleaked")
def test_how_a_runner_is_started(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a session of its own, with nothing of the daemon's, its output kept for its user alone."""
    own = ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "WATCHDOG_USEC", "CREDENTIALS_DIRECTORY")
    for name in own:
        monkeypatch.setenv(name, "1")
    launcher = SessionLauncher(python=TELLING)
    with (shelf / "secret").open("w") as secret:
        os.set_inheritable(secret.fileno(), bool(secret))
        launch = Launch("net-1", os.geteuid(), shelf, gpus=("GPU-a", "GPU-b"))
        _, code = launched(launch, launcher)
    launcher.close()
    assert code == 0
    found = told(shelf)
    runner = ["-m", "supervisor.runner", "--state-dir", str(shelf)]
    assert found["arguments"] == [*runner, "--gpus", "GPU-a,GPU-b", "net-1"]
    assert not set(own) & set(found["env"])
    assert found["env"]["PATH"] == os.environ["PATH"]
    assert (found["cwd"], found["umask"], found["stdin"]) == ("/", 0o077, "/dev/null")
    assert found["session"] is True
    assert found["ppid"] == os.getpid()
    assert [one for one in found["files"] if not one.startswith("/proc")] == []
    out = shelf / "jobs/net-1/runner.out"
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_output_is_added_to(shelf: Path) -> None:
    """What an earlier runner said is still there, whatever the path holds."""
    odd = shelf.rename(shelf.with_name("a 'shelf' $HOME %n; true"))
    (odd / "jobs/net-1/runner.out").write_text("earlier\n")
    launched(Launch("net-1", os.geteuid(), odd), SessionLauncher(python=TELLING))
    first, second = (odd / "jobs/net-1/runner.out").read_text().splitlines()
    assert first == "earlier"
    assert json.loads(second)["arguments"][3] == str(odd)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "nothing", "full"])
def test_a_runner_starts_whatever_becomes_of_its_output(shelf: Path, kind: str) -> None:
    """A link is not followed, a pipe not waited for; no folder and no room are no matter."""
    out, secret = shelf / "jobs/net-1/runner.out", shelf / "secret"
    secret.write_text("kept")
    match kind:
        case "link":
            out.symlink_to(secret)
        case "pipe":
            os.mkfifo(out)
        case "folder":
            out.mkdir()
        case "full":
            out.symlink_to("/dev/full")
        case _:
            out.parent.rmdir()
    mark = shelf / "ran"
    python = (sys.executable, "-c", f"print(1); open({str(mark)!r}, 'w')")
    _, code = launched(Launch("net-1", os.geteuid(), shelf), SessionLauncher(python=python))
    assert code == 0
    assert mark.exists()
    assert secret.read_text() == "kept"


def test_an_interpreter_that_is_missing_is_told(shelf: Path) -> None:
    """The runner ends at once, and its output says why."""
    launcher = SessionLauncher(python=("/nowhere/python",))
    _, code = launched(Launch("net-1", os.geteuid(), shelf), launcher)
    assert code == 127
    assert "/nowhere/python" in (shelf / "jobs/net-1/runner.out").read_text()


def test_a_runner_that_cannot_be_started(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel refuses is told with the job's id."""

    def refuse(*_: Any, **__: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(LaunchFailed, match=r"net-1 was not started.*unavailable"):
        launched(Launch("net-1", os.geteuid(), shelf), SessionLauncher())


def test_a_runner_is_its_users(passable: Path, others_python: tuple[str, ...]) -> None:
    """User, groups, home and environment are theirs, and what it prints belongs to them."""
    (passable / "jobs/net-1").mkdir(parents=True)
    for folder in (passable, passable / "jobs", passable / "jobs/net-1"):
        os.chown(folder, UID, UID)
    launcher = SessionLauncher(lookup, (others_python[0], "-c", TELL))
    _, code = launched(Launch("net-1", UID, passable), launcher)
    assert code == 0
    found = told(passable)
    assert found["ids"] == [UID] * 6
    assert found["groups"] == [UID, GROUP]
    assert (found["env"]["HOME"], found["env"]["USER"]) == ("/", "somebody")
    assert "XDG_STATE_HOME" not in found["env"]
    out = (passable / "jobs/net-1/runner.out").stat()
    assert (out.st_uid, stat.S_IMODE(out.st_mode)) == (UID, 0o600)


def test_a_link_of_the_users_leads_root_nowhere(
    passable: Path, others_python: tuple[str, ...]
) -> None:
    """Whatever a user puts on the way to the output, root's file is not written."""
    secret = passable / "secret"
    secret.write_text("kept")
    shelf = passable / "shelf"
    (shelf / "jobs").mkdir(parents=True)
    (passable / "roots").mkdir(mode=0o700)
    (shelf / "jobs/net-1").symlink_to(passable / "roots")
    (passable / "roots/runner.out").write_text("kept")
    os.chown(shelf, UID, UID)
    launcher = SessionLauncher(lookup, (others_python[0], "-c", TELL))
    _, code = launched(Launch("net-1", UID, shelf), launcher)
    assert code == 0
    assert (passable / "roots/runner.out").read_text() == "kept"


@pytest.fixture
def job(state_dir: Path, tmp_path: Path) -> Iterator[str]:
    """Give a job that counts and can be stopped; whatever is left of its runner is ended."""
    script = """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: (open("saved", "w"), sys.exit(0)))
        step = 0
        while True:
            step += 1
            print("step", step, flush=True)
            signal.sigtimedwait([], 0.02)
    """
    (tmp_path / "count.py").write_text(textwrap.dedent(script))
    desk = Desk(state_dir)
    fields = {"name": "net", "command": [sys.executable, "count.py"], "stop": {"signals": ["TERM"]}}
    found = desk.answer("examine", {"job": fields, "folder": str(tmp_path)})
    new = {"id": "net-1", "spec": found["spec"], "surroundings": None, "created_s": 1.0}
    desk.answer("accept", {"jobs": [new]})
    yield "net-1"
    with suppress(ProcessLookupError):
        os.kill(desk.answer("runner", {"id": "net-1"})["pid"] or 1 << 30, signal.SIGKILL)
    desk.close()


DAEMON = """
import asyncio, os, pathlib, sys, threading
from supervisor.daemon.contracts import Launch
from supervisor.daemon.launch_session import SessionLauncher
def launch():
    made = Launch("net-1", os.geteuid(), pathlib.Path(sys.argv[1]))
    print(asyncio.run(SessionLauncher().launch(made)), flush=True)
thread = threading.Thread(target=launch)  # one that ends, as threads of a pool may
thread.start()
thread.join()
sys.stdin.read()
"""


def test_a_runner_survives_the_daemon(
    state_dir: Path, tmp_path: Path, job: str, eventually: Eventually
) -> None:
    """The daemon is killed, and the thread that launched has ended: the worker counts on."""
    daemon = subprocess.Popen(
        [sys.executable, "-c", DAEMON, state_dir], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with daemon:
        assert daemon.stdout
        runner = int(daemon.stdout.readline())
        log = state_dir / "jobs" / job / "attempts/1/output.log"
        eventually(lambda: log.exists() and b"step 3\n" in log.read_bytes())
        daemon.kill()
    seen = log.read_bytes()
    eventually(lambda: len(log.read_bytes()) > len(seen) + 20)
    desk = Desk(state_dir)
    assert desk.answer("runner", {"id": job})["locked_by"] == runner
    assert desk.answer("stop", {"id": job}) == {"heard": True}
    eventually(lambda: processes.living(runner) is None)
    assert desk.answer("record", {"id": job})["state"] == "stopped"
    assert (tmp_path / "saved").exists()
    assert (state_dir / "jobs" / job / "runner.out").read_text() == ""
    desk.close()


@pytest.mark.parametrize(
    ("job_id", "unit"),
    [
        ("net-3fa2c1", "supervise-job-net-3fa2c1.service"),
        ("a.b_c-2", "supervise-job-a.b_c-2.service"),
        ("a@b/c d", r"supervise-job-a\x40b\x2fc\x20d.service"),
        ("\u00e4%n", r"supervise-job-\xc3\xa4\x25n.service"),
    ],
)
def test_the_name_of_a_unit(job_id: str, unit: str) -> None:
    """Each job has a unit of its own, whose name says which."""
    assert unit_name(job_id) == unit


def test_an_id_too_long_for_a_unit() -> None:
    """It is refused before systemd is asked."""
    with pytest.raises(LaunchFailed, match="too long"):
        unit_name("a" * 300)


class FakeSystemd:
    """Tools in systemd's place, which note how they were called and answer as they are told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def tool(self, name: str, script: str) -> None:
        """Put a tool in place; `$calls` is where it notes how it was called."""
        path = self.folder / name
        note = f'printf "%s\\0" "{name}" "$@" "+" >>{self.folder}/calls\n'
        path.write_text(f"#!/bin/sh\n{note}{script}\n")
        path.chmod(0o755)

    def calls(self) -> list[list[str]]:
        """Each call so far, as words."""
        text = (self.folder / "calls").read_text()
        return [call.strip("\0").split("\0") for call in text.split("\0+\0")[:-1]]


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSystemd:
    """Give tools that start nothing and say that process 4711 runs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    fake = FakeSystemd(folder)
    fake.tool("systemd-run", "exit 0")
    fake.tool("systemctl", "echo 4711")
    return fake


def asked(launch: Launch, *, user: bool = False) -> int:
    """Launch by systemd."""
    launcher = SystemdLauncher(user=user)
    try:
        return asyncio.run(launcher.launch(launch))
    finally:
        launcher.close()


def test_what_systemd_is_asked_for(systemd: FakeSystemd, tmp_path: Path) -> None:
    """The unit says all that keeps a runner alive beside the daemon, and whose it is."""
    launch = Launch("net-1", os.geteuid(), tmp_path / "a $b", gpus=("GPU-a",), stop_s=90.0)
    assert asked(launch) == 4711
    run, show = systemd.calls()
    assert show[1:] == ["show", "--property=MainPID", "--value", "supervise-job-net-1.service"]
    options, command = run[: run.index("--")], run[run.index("--") + 1 :]
    assert "--user" not in options
    expected = {
        "--collect",
        "--no-ask-password",
        "--unit=supervise-job-net-1.service",
        "--slice=supervise.slice",
        "--service-type=exec",
        "--property=Delegate=yes",
        "--property=KillMode=mixed",
        "--property=TimeoutStopSec=120",
        "--property=OOMPolicy=continue",
        "--property=Restart=no",
        "--property=UMask=0077",
        f"--property=SuccessExitStatus={int(Exit.STOPPED)} {int(Exit.HOLDING)}",
        f"--property=User={os.geteuid()}",
    }
    assert expected <= set(options)
    assert command[0] == "/bin/sh"
    assert "$$@" in "\n".join(command)
    runner = ["-m", "supervisor.runner", "--state-dir", f"{tmp_path}/a $$b", "--gpus", "GPU-a"]
    assert command[-len(runner) - 3 :] == [*PYTHON, *runner, "net-1"]


def test_a_users_own_systemd_is_asked(systemd: FakeSystemd, tmp_path: Path) -> None:
    """Nobody is named there: the manager is the user's."""
    assert asked(Launch("net-1", os.geteuid(), tmp_path), user=True) == 4711
    run, show = systemd.calls()
    assert run[1] == show[1] == "--user"
    assert not [one for one in run if one.startswith("--property=User=")]


def test_the_environment_of_a_unit(
    systemd: FakeSystemd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What finds our modules is given, and no secret: units can be looked at by everybody."""
    monkeypatch.setenv("PYTHONPATH", "/modules")
    monkeypatch.setenv("SUPERVISE_TOKEN", "secret")
    monkeypatch.setenv("HF_TOKEN", "secret")
    asked(Launch("net-1", os.geteuid(), tmp_path))
    given = [one for one in systemd.calls()[0] if one.startswith("--setenv=")]
    assert "--setenv=PYTHONPATH=/modules" in given
    assert not [one for one in given if "secret" in one or "HOME" in one]


def test_a_unit_that_runs_is_that_runner(systemd: FakeSystemd, tmp_path: Path) -> None:
    """A launch that is repeated finds the runner that the first one started."""
    systemd.tool("systemd-run", "exit 1")
    for owner in (os.geteuid(), account(os.geteuid()).name):
        systemd.tool("systemctl", SHOWN.format(owner))
        assert asked(Launch("net-1", os.geteuid(), tmp_path)) == 4711
    assert {one[0] for one in systemd.calls()} == {"systemd-run", "systemctl"}
    assert not [one for one in systemd.calls() if "reset-failed" in one]


@pytest.mark.parametrize("owner", ["4001", "no-such-user", ""])
def test_a_unit_of_another_user_is_no_runner(
    systemd: FakeSystemd, tmp_path: Path, owner: str
) -> None:
    """One whose journal was moved away keeps the id of their job, and their runner its unit."""
    systemd.tool("systemd-run", "exit 1")
    systemd.tool("systemctl", SHOWN.format(owner))
    with pytest.raises(LaunchFailed, match="somebody else's job of that id"):
        asked(Launch("net-1", os.geteuid(), tmp_path))


def test_what_is_left_of_a_failed_unit_is_forgotten(systemd: FakeSystemd, tmp_path: Path) -> None:
    """A dead unit of that name is in the way once only."""
    systemd.tool("systemd-run", f'test -e {tmp_path}/reset || {{ echo "was loaded" >&2; exit 1; }}')
    reset = f'[ "$1" = reset-failed ] && touch {tmp_path}/reset'
    systemd.tool("systemctl", f"{reset}; test -e {tmp_path}/reset && echo 4711 || echo 0")
    assert asked(Launch("net-1", os.geteuid(), tmp_path)) == 4711
    verbs = [one[1] for one in systemd.calls() if one[0] == "systemctl"]
    assert verbs == ["show", "reset-failed", "show"]


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        (
            ("echo Access denied >&2; exit 1", "echo 0"),
            "not start supervise-job.*Access denied",
        ),
        (("exit 0", "echo 0"), "ended at once; see: journalctl -u supervise-job-net-1"),
        (("exit 0", "exit 1"), "ended at once"),
        (("exit 0", "echo rubbish"), "ended at once"),
        (("exec sleep 60", "echo 0"), "did not answer"),
    ],
)
def test_what_systemd_refuses(
    systemd: FakeSystemd,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tools: tuple[str, str],
    said: str,
) -> None:
    """Its own words are told, or where they are to be read; nobody waits for ever."""
    if "sleep" in tools[0]:
        monkeypatch.setattr(launch_systemd, "ANSWER_S", 0.2)
    systemd.tool("systemd-run", tools[0])
    systemd.tool("systemctl", tools[1])
    with pytest.raises(LaunchFailed, match=said):
        asked(Launch("net-1", os.geteuid(), tmp_path))


def available(*, user: bool = False) -> str | None:
    """Ask whether runners can be units."""
    launcher = SystemdLauncher(user=user)
    try:
        return asyncio.run(launcher.available())
    finally:
        launcher.close()


def test_where_there_is_no_systemd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, systemd: FakeSystemd
) -> None:
    """Each thing that is missing is named."""
    monkeypatch.setattr(launch_systemd, "BOOTED", tmp_path / "nothing")
    assert "does not run this host" in str(available())
    assert systemd.folder.exists()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert available() == "systemd-run and systemctl is not installed"


def test_where_systemd_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, systemd: FakeSystemd
) -> None:
    """A manager that cannot be reached is none; one of the user's ends with the login."""
    monkeypatch.setattr(launch_systemd, "BOOTED", systemd.folder)
    monkeypatch.setattr(launch_systemd, "SYSTEM_SOCKET", tmp_path / "none")
    monkeypatch.setattr(launch_systemd, "LINGERING", tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert f"{tmp_path}/none: No such file" in str(available())
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert available() == "only root's daemon may"
    assert "does not answer" in str(available(user=True))
    monkeypatch.setattr(launch_systemd, "_unanswered", lambda _: None)
    assert "loginctl enable-linger" in str(available(user=True))
    (tmp_path / account(os.getuid()).name).touch()
    assert available(user=True) is None
