"""Ten items of which the third is bad, in six ways: what comes of the nine others, and of it.

`supervise` and six pools of two workers each, one after the other, with the same function. A limit
of five seconds an item where there is one to set. Whoever has not ended after the hard limit hangs.
Every peer is a session of its own, which alone is killed. No pool has a limit for what leaks, so
the benchmark stands in for the kernel and kills what is too large before others suffer.
"""

import json
import os
import signal
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.batch_items import FAULTS
from benchmarks.figures import arguments
from benchmarks.peers.poison import BAD, ITEM_LIMIT_S, ITEMS, MEMORY_BYTES, PEERS, WORKERS, items
from benchmarks.sessions import ended, members, rss_bytes, session
from benchmarks.supervised import Failed, Job
from benchmarks.table import Promise, Table, show

LIMIT_S, QUICK_LIMIT_S = 20.0, 12.0
OUR_LIMIT_S = 90.0
LOOK_EVERY_S = 0.05
KILLED_ABOVE_BYTES = MEMORY_BYTES * 3 // 2
STANDARD = ("multiprocessing.Pool", "ProcessPoolExecutor")
OURS = "supervise"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many results, what became of the others, seconds; `hung` when it did not end."""

    results: int
    errors: tuple[str, ...]
    took_s: float
    hung: bool = False

    def __str__(self) -> str:
        kinds = sorted(set(self.errors))
        told = f", {len(self.errors)} {'/'.join(kinds)}" if kinds else ""
        return f"{self.results}{told}" + (", hangs for ever" if self.hung else "")


def main() -> int:
    """Measure and tell; 1 if we lost an innocent item, or did not name the guilty one."""
    given = arguments(__doc__)
    limit_s = QUICK_LIMIT_S if given.quick else LIMIT_S
    kept = 0
    with tempfile.TemporaryDirectory(prefix="poison-") as folder:
        ours = []
        for fault in FAULTS:
            outcome, as_promised = supervise(Path(folder) / fault.split("(")[0].strip(), fault)
            ours.append(outcome)
            kept += as_promised
    rows = [(OURS, *ours)]
    rows += [(named(peer), *(str(ask(peer, fault, limit_s)) for fault in FAULTS)) for peer in PEERS]
    title = f"results of {ITEMS} items, {WORKERS} workers; the others' fate; hard limit {limit_s} s"
    table = Table(title, ("item 3:", *FAULTS), rows)
    good = f"{ITEMS - 1} results and item {BAD} quarantined with its cause"
    promise = Promise(good, kept, f"of {len(FAULTS)}", least=len(FAULTS))
    show("poison_table", [table], [promise], as_json=given.json)
    return int(kept < len(FAULTS))


def named(peer: str) -> str:
    """With the version that was measured."""
    of_python = ".".join(map(str, sys.version_info[:3]))
    return f"{peer} {of_python if peer in STANDARD else version(peer)}"


def supervise(folder: Path, fault: str) -> tuple[str, bool]:
    """What a job does with it, in words, and whether that is what is promised."""
    folder.mkdir()
    lines = "".join(f"{line}\n" for line in map(json.dumps, items(fault)))
    (folder / "items.jsonl").write_text(lines, encoding="ascii")
    fields = {
        "map": {"entry": "batch_items:poison", "items": "items.jsonl", "out": "out"},
        "chunks": {"size": 2, "parallel": WORKERS},
        "timeouts": {"item": f"{ITEM_LIMIT_S:.0f}s"},
        "resources": {"memory": f"{MEMORY_BYTES >> 30}GiB"},
    }
    with Job(folder, fields) as job:
        try:
            ended = job.run(OUR_LIMIT_S)
        except Failed as error:
            return f"failed: {str(error).splitlines()[-1]}", False
        results = [line["result"] for line in job.results()]
        bad = job.quarantined()
    causes = "/".join(str(one.get("cause")) for one in bad)
    words = f"{len(results)}, {len(bad)} quarantined: {causes} ({ended.wall_s:.1f} s)"
    others = sorted(set(range(1, ITEMS + 1)) - {BAD})
    guilty = [one["item"] for one in bad] == [{"number": BAD, "fault": fault}]
    return words, sorted(map(str, results)) == sorted(map(str, others)) and guilty


def ask(peer: str, fault: str, limit_s: float) -> Outcome:
    """What the peer does with it."""
    command = [sys.executable, "-m", "benchmarks.peers.poison", peer, fault]
    started = time.monotonic()
    with tempfile.TemporaryFile() as said:
        with session(command, said) as leader:
            while not (over := ended(leader)) and time.monotonic() - started < limit_s:
                time.sleep(LOOK_EVERY_S)
                kill_too_large(leader)
            took_s = time.monotonic() - started
        said.seek(0)
        lines = said.read().decode(errors="replace").splitlines()
    answers = [line.split() for line in lines if line.startswith(("result ", "error "))]
    results = sum(answer[0] == "result" for answer in answers)
    errors = tuple(answer[2] for answer in answers if answer[0] == "error")
    return Outcome(results, errors, took_s, hung=not over)


def kill_too_large(leader: int) -> None:
    """What the kernel does when memory is short, here before it is."""
    for pid in members(leader):
        if rss_bytes(pid) > KILLED_ABOVE_BYTES:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
