"""In the machine: who ran out of memory, and who was killed for another reason."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.vm.given import SUPERVISE, Given

# Each attempt holds 80 MiB. The first one grows past its limit; the last one is content.
HOLDS = """
import os, threading
attempt = int(os.environ["SUPERVISE_ATTEMPT"])
held = bytearray(80 << 20)
print("step", attempt, flush=True)
if attempt == 1:
    held += bytearray(200 << 20)
if attempt < 4:
    with open(f"ready-{attempt}", "w") as file:
        print(os.getpid(), file=file)
    threading.Event().wait()
"""
# Takes more than the machine has, in two pieces that each would do. The kernel kills it, but only
# after the worker, which it was told to take first.
FILLS = """
import mmap
flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
held = [mmap.mmap(-1, 700 << 20, flags) for _ in range(2)]
"""


def test_each_end_is_told_from_the_others(given: Given, tmp_path: Path, eventually: Any) -> None:
    """Its own limit, a SIGKILL from elsewhere, the end of the machine's memory, and a good end."""
    (tmp_path / "holds.py").write_text(HOLDS)
    spec = {
        "name": "vm",
        "command": [sys.executable, "holds.py"],
        "resources": {"memory": "150MiB"},
    }
    spec |= {"restart": {"backoff": {"initial": 0}}}
    run = given.supervise(tmp_path, spec)

    def ready(attempt: int) -> int:
        file = tmp_path / f"ready-{attempt}"
        text = eventually(lambda: file.exists() and file.read_text().strip(), 90)
        return int(text)

    os.kill(ready(2), signal.SIGKILL)
    ready(3)
    filler = subprocess.run([sys.executable, "-ISc", FILLS], timeout=60, check=False)
    assert filler.returncode == -signal.SIGKILL
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 0, output
    shown = [SUPERVISE, "--state-dir", str(tmp_path / "state"), "show", "vm", "--json"]
    told = subprocess.run(shown, check=True, capture_output=True, text=True).stdout
    attempts = json.loads(told)["attempts"]
    causes = [one["cause"] for one in attempts]
    assert causes == ["host_memory_limit", "signal", "host_oom", "completed"]
    reasons = [one["reason"] for one in attempts]
    assert re.search(r"memory limit of 0\.1\d* GiB \(cgroup v2", reasons[0]), reasons
    assert "sent from outside" in reasons[1], reasons
    assert "the host ran out of memory (cgroup v2" in reasons[2], reasons
