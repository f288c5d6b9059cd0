"""In the machine, under a real systemd: a job in a scope that has a limit of its own."""

import json
import sys
from pathlib import Path

from tests.vm.given import DELEGATED, SUPERVISE, As, told

GROWS = "print('step 1', flush=True); held = bytearray(400 << 20); input()"


def test_a_limit_around_the_job_is_no_lack_of_the_hosts_memory(somebody: As, folder: Path) -> None:
    """Below its own limit but beyond that of its scope: the reason names the scope."""
    spec = {
        "name": "vm",
        "command": [sys.executable, "-c", GROWS],
        "resources": {"memory": "500MiB"},
        "restart": {"budget": 0},
    }
    (folder / "job.yaml").write_text(json.dumps(spec))
    state = ("--state-dir", str(folder / "state"))
    scope = ("systemd-run", "--user", *DELEGATED, "--unit=small", "-p", "MemoryMax=200M")
    run = somebody(*scope, SUPERVISE, *state, "run", "job.yaml", cwd=folder)
    assert run.returncode == 1, run
    attempts = told(somebody(SUPERVISE, *state, "show", "vm", "--json"))["attempts"]
    assert [one["cause"] for one in attempts] == ["host_memory_limit"], attempts
    assert "limit of 0.20 GiB (cgroup v2: the limit of /" in attempts[0]["reason"], attempts
    assert "/small.scope, around it" in attempts[0]["reason"]
