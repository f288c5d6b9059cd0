"""All benchmarks, one after the other: `python -m benchmarks [--quick] [--json]`.

Each runs in a process of its own, so that none inherits another's memory or modules.
"""

import json
import subprocess
import sys

from benchmarks.figures import arguments

NAMES = (
    "restart",
    "footprint",
    "overhead",
    "verify",
    "watching",
    "hangs",
    "escapees",
    "gradcam_batch",
    "next_item",
    "million_items",
    "poison_table",
    "batch_kills",
    "session_cost",
    "trainer_overhead",
    "snapshot_cost",
    "lost_work",
    "train_restart",
    "train_kills",
    "daemon_queue",
    "daemon_load",
    "daemon_start",
    "next_job",
    "daemon_kills",
    "cuda_context",
)


def main() -> int:
    """Run them; 0 if all ran to their end, whatever they measured, and kept what they promise."""
    given = arguments(__doc__)
    options = ["--quick"] if given.quick else []
    failed = []
    results: dict[str, object] = {}
    for name in NAMES:
        command = [sys.executable, "-m", f"benchmarks.{name}", *options]
        if given.json:
            done = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, check=False)
            results[name] = json.loads(done.stdout) if done.stdout else None
        else:
            done = subprocess.run(command, check=False)
        failed += [name] if done.returncode else []
    if given.json:
        print(json.dumps(results, indent=2))
    if failed:
        print(f"did not run to its end, or broke a promise: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
