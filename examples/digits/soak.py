"""`make soak`: kills the runner itself, at random moments, again and again.

Each time the same command is given again. In the end the job must have succeeded, no worker may
ever have outlived its runner, and every attempt must have begun from a checkpoint that had been
verified before. Prints the seed, which reproduces the moments. Ends only what it started, by pid.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).parent
DYING_S = 10.0
LONGEST_LIFE_S = 8.0
JOB_LIMIT_S = 300.0


class SoakFailed(Exception):
    """A promise was broken; the message says which."""


class Soak:
    """One job and its folder."""

    def __init__(self, folder: Path, epochs: int) -> None:
        self.folder = folder
        self.supervise = [
            str(Path(sys.executable).with_name("supervise")),
            "--state-dir",
            str(folder / "state"),
        ]
        job = str(folder / "job.yaml")
        self.run = [*self.supervise, "run", job, "-p", f"epochs={epochs}"]
        folder.mkdir(parents=True)
        for name in ("train.py", "job.yaml"):
            shutil.copy(HERE / name, folder / name)

    def kill_after(self, life_s: float) -> bool:
        """Run, and SIGKILL the runner after this long; whether it was still running."""
        with (self.folder / "soak.log").open("ab") as log:
            runner = subprocess.Popen(self.run, stdout=log, stderr=log)
        try:
            runner.wait(life_s)
        except subprocess.TimeoutExpired:
            workers = children(runner.pid)
            runner.send_signal(signal.SIGKILL)
            runner.wait()
            self.see_dead(workers)
            return True
        return False

    def see_dead(self, workers: list[int]) -> None:
        """What the runner had started must die with it."""
        ends = time.monotonic() + DYING_S
        while alive := [pid for pid in workers if is_alive(pid)]:
            if time.monotonic() > ends:
                raise SoakFailed(f"processes {alive} outlived their runner by {DYING_S:.0f} s")
            time.sleep(0.01)

    def finish(self) -> None:
        """The same command once more, and nobody disturbs it."""
        subprocess.run(self.run, check=True, stdout=subprocess.DEVNULL, timeout=JOB_LIMIT_S)

    def judge(self) -> str:
        """Check the whole history; a line about it."""
        shown = json.loads(self.ask("show", "digits", "--json"))
        if shown["state"] != "succeeded":
            raise SoakFailed(f"the job is {shown['state']}")
        verified: set[int] = set()
        for line in self.ask("events", "digits", "--json").splitlines():
            event = json.loads(line)
            if event["kind"] == "CheckpointVerified":
                verified.add(event["fields"]["step"])
            if event["kind"] == "CheckpointChosen":
                step = event["fields"]["step"]
                if step is not None and step not in verified:
                    raise SoakFailed(f"an attempt began from step {step}, which was not verified")
                if step is None and verified:
                    raise SoakFailed("an attempt began from zero although checkpoints had verified")
        numbers = [attempt["number"] for attempt in shown["attempts"]]
        if numbers != list(range(1, len(numbers) + 1)):
            raise SoakFailed(f"the history has gaps: {numbers}")
        result = json.loads((self.folder / "out/result.json").read_text())
        return f"{len(numbers)} attempts, test accuracy {result['accuracy']:.1%}"

    def ask(self, *words: str) -> str:
        """The output of a reading verb."""
        asked = [*self.supervise, *words]
        return subprocess.run(asked, check=True, capture_output=True, text=True).stdout


def children(pid: int) -> list[int]:
    """Direct children, from /proc: the worker, and the launcher that waits to be the next one."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            found += map(int, (task / "children").read_text().split())
    return found


def is_alive(pid: int) -> bool:
    """Whether a process exists and is more than a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def main() -> None:
    """Kill, run again, and in the end look at what is left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=45)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    parser.add_argument("--folder", type=Path, default=Path("demo-run/soak"))
    args = parser.parse_args()
    print(f"seed {args.seed}", flush=True)
    draw = random.Random(args.seed)  # noqa: S311 - the moments must be reproducible
    shutil.rmtree(args.folder, ignore_errors=True)
    soak = Soak(args.folder, args.epochs)
    try:
        for number in range(1, args.kills + 1):
            # Half of them soon after the start, where the runner does most in the shortest time.
            life_s = draw.uniform(0, draw.choice((1.0, LONGEST_LIFE_S)))
            ran = "killed" if soak.kill_after(life_s) else "ended by itself"
            print(f"{number:3}  runner {ran} after {life_s:.2f} s", flush=True)
        soak.finish()
        print(f"succeeded: {soak.judge()}")
    except SoakFailed as error:
        sys.exit(f"soak failed: {error} (seed {args.seed})")


if __name__ == "__main__":
    main()
