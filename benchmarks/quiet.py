"""The worker of the watching benchmark: a tree of a given size that hardly does anything.

After one line of output it is `silent`; or it `reads`, a megabyte a second, so that it can be seen
to work; or it `talks`, a line a second. Names its processes in `pids.txt`. Ends by itself: a
benchmark that is killed leaves it behind for minutes at most.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

LIFE_S = 300.0
READS_PER_S = 16
BLOCK = 64 << 10


def main(children: str, habit: str) -> None:
    """Live like that until the time is over."""
    sleep = ["sleep", f"{LIFE_S:.0f}"]
    started = [subprocess.Popen(sleep) for _ in range(int(children))]
    pids = [os.getpid(), *(child.pid for child in started)]
    new = Path("pids.new")
    new.write_text("".join(f"{pid}\n" for pid in pids), encoding="ascii")
    new.rename("pids.txt")
    print("step 1/100 loss 1.0", flush=True)
    with Path("/dev/zero").open("rb", buffering=0) as source:
        for turn in range(round(LIFE_S * READS_PER_S)):
            if habit == "reads":
                source.read(BLOCK)
            elif habit == "talks" and turn % READS_PER_S == 0:
                print(f"step {turn} loss 0.5", flush=True)
            time.sleep(1 / READS_PER_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
