"""In the machine, under a real systemd: what its scopes give, and what `doctor` says where not."""

import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.vm.given import ASK, SUPERVISE, TOP

USER = 1000
DELEGATED = ("--scope", "--quiet", "--collect", "-p", "Delegate=yes")
SURVEY = (sys.executable, "-c", ASK)
LEVERS = ("whole-tree kill", "process limit", "memory limit", "out-of-memory kills")
GROWS = "print('step 1', flush=True); held = bytearray(400 << 20); input()"

As = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def somebody() -> As:
    """Give a way to run a command as an ordinary user who has a service manager of his own."""
    subprocess.run(["systemctl", "start", f"user@{USER}.service"], check=True, timeout=120)
    user = pwd.getpwuid(USER)
    own = {"HOME": user.pw_dir, "USER": user.pw_name, "XDG_RUNTIME_DIR": f"/run/user/{USER}"}

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


def told(done: subprocess.CompletedProcess[str]) -> Any:
    """Return what a command said in JSON."""
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_root_divides_its_scope() -> None:
    """A scope with Delegate=yes gives root every lever, in the scope."""
    asked = subprocess.run(
        ["systemd-run", *DELEGATED, "--unit=mine", *SURVEY],
        capture_output=True,
        text=True,
        check=True,
    )
    scope = TOP / "system.slice/mine.scope"
    assert told(asked) == {"levers": [str(scope)] * 3, "reasons": []}


def test_root_needs_no_delegation() -> None:
    """Without it root has every lever, in a tree of its own beside systemd's."""
    asked = subprocess.run(SURVEY, capture_output=True, text=True, check=True)
    assert told(asked) == {"levers": [str(TOP / "supervise")] * 3, "reasons": []}


def test_a_user_is_told_what_to_do(somebody: As) -> None:
    """Outside of a cgroup of his own `doctor` finds no lever, and names the command that helps."""
    found = {one["check"]: one for one in told(somebody(SUPERVISE, "doctor", "--json"))}
    assert [found[one]["status"] for one in LEVERS[:3]] == ["weak"] * 3
    for one in LEVERS[:3]:
        assert "systemd-run --user --scope -p Delegate=yes" in found[one]["do"]
    assert found["systemd"]["status"] == "weak"


def test_what_the_user_was_told_helps(somebody: As) -> None:
    """In the scope that it named every lever works, and nothing is left to do."""
    asked = somebody("systemd-run", "--user", *DELEGATED, SUPERVISE, "doctor", "--json")
    found = {one["check"]: one for one in told(asked)}
    assert [found[one]["status"] for one in (*LEVERS, "systemd")] == ["ok"] * 5
    assert "cgroup v2" in found["memory limit"]["found"]


@pytest.mark.parametrize("bound", ["resources", "scope"])
def test_a_limit_of_the_scope_is_told_from_the_hosts_memory(
    somebody: As, folder: Path, bound: str
) -> None:
    """Its own limit, or that of the scope around it: never the end of the host's memory."""
    spec: dict[str, Any] = {"name": "vm", "command": [sys.executable, "-c", GROWS]}
    spec |= {"resources": {"memory": "100MiB" if bound == "resources" else "500MiB"}}
    spec |= {"restart": {"budget": 0}}
    (folder / "job.yaml").write_text(json.dumps(spec))
    limit = () if bound == "resources" else ("-p", "MemoryMax=200M")
    state = ("--state-dir", str(folder / "state"))
    scope = ("systemd-run", "--user", *DELEGATED, *limit)
    run = somebody(*scope, SUPERVISE, *state, "run", "job.yaml", cwd=folder)
    assert run.returncode == 1, run
    attempts = told(somebody(SUPERVISE, *state, "show", "vm", "--json"))["attempts"]
    assert [one["cause"] for one in attempts] == ["host_memory_limit"], attempts
    assert ("scope, around it" in attempts[0]["reason"]) == (bound == "scope"), attempts
