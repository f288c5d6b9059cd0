"""`make demo`: a real training, and three faults from outside that would each have ended it.

Runs the digits job of this folder under `supervise`, and while it trains: kills it, makes the disk
under its next checkpoint hang, and tears its newest checkpoint. Neither train.py nor `supervise`
knows that this happens. Ends only the processes of its own job.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).parent
RUN = Path("demo-run")
SUPERVISE = [str(Path(sys.executable).with_name("supervise")), "--state-dir", str(RUN / "state")]
EPOCHS = 45
CHECKPOINT_EVERY = 90  # train.py's default
WANTED_ACCURACY = 0.97
LOOK_S = 0.02
LIMIT_S = 170.0
BOLD, RED, GREEN, RESET = (
    ("\033[1m", "\033[1;31m", "\033[1;32m", "\033[0m") if sys.stdout.isatty() else ("",) * 4
)


class DemoFailed(Exception):
    """The demo did not show what it promises."""


def main() -> None:
    """Run the job, inflict the faults, show what they cost."""
    shutil.rmtree(RUN, ignore_errors=True)
    RUN.mkdir()
    for name in ("train.py", "job.yaml"):
        shutil.copy(HERE / name, RUN / name)
    say(f"Training a CNN on handwritten digits for {EPOCHS} epochs, in {RUN}/, under `supervise`.")
    say("Three things will go wrong. Nobody will touch the keyboard.\n")
    started = time.monotonic()
    command = [*SUPERVISE, "run", "--plain", str(RUN / "job.yaml"), "-p", f"epochs={EPOCHS}"]
    with subprocess.Popen(command) as run:
        threading.Thread(target=inflict, args=(run,), daemon=True).start()
        try:
            code = run.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            run.terminate()  # a graceful stop
            raise DemoFailed(f"it was not done after {LIMIT_S:.0f} s") from None
    took_s = time.monotonic() - started
    print()
    subprocess.run([*SUPERVISE, "report", "digits"], check=True)
    judge(code, took_s)


def judge(code: int, took_s: float) -> None:
    """Say whether the run came home, and fail if it did not."""
    if code != 0:
        raise DemoFailed(f"supervise ended with exit code {code}")
    accuracy = json.loads((RUN / "out/result.json").read_text())["accuracy"]
    if accuracy < WANTED_ACCURACY:
        raise DemoFailed(f"the accuracy is {accuracy:.1%}, not {WANTED_ACCURACY:.0%}")
    causes = [attempt["cause"] for attempt in show()["attempts"]]
    if len(causes) != len(FAULTS) + 1:
        raise DemoFailed(f"{len(FAULTS)} faults should make {len(FAULTS) + 1} attempts: {causes}")
    print(f"\n{GREEN}The run came home: test accuracy {accuracy:.1%}, {took_s:.0f} s.{RESET}")
    state = f"--state-dir {RUN / 'state'}"
    print(f"Why each attempt ended: .venv/bin/supervise {state} explain digits")


def say(text: str) -> None:
    """Print as the narrator."""
    print(f"{BOLD}{text}{RESET}", flush=True)


def strike(text: str) -> None:
    """Announce a fault."""
    print(f"{RED}>>> {text}{RESET}", flush=True)


def inflict(run: subprocess.Popen[bytes]) -> None:
    """One fault after the other, at a quarter, a half and three quarters of the way."""
    total = EPOCHS * 45
    for number, fault in enumerate(FAULTS, start=1):
        for _ in looks(run):
            if newest_step() >= total * number // (len(FAULTS) + 1):
                fault(run)
                break


def crash(_run: subprocess.Popen[bytes]) -> None:
    """The training process dies without a word."""
    pid = worker_pid()
    strike(f"crash: SIGKILL for the training process {pid}")
    os.kill(pid, signal.SIGKILL)


def hang(run: subprocess.Popen[bytes]) -> None:
    """The disk under the next checkpoint stops answering: opening a pipe that nobody reads."""
    attempt = show()["attempts"][-1]["number"]
    following = RUN / f"out/ckpt-{newest_step() + CHECKPOINT_EVERY:06d}.pt.tmp"
    strike(f"hang: {following.name}, which it is about to write, will block for ever")
    os.mkfifo(following)
    for _ in looks(run):
        if show()["attempts"][-1]["number"] > attempt:
            following.unlink()
            return


def tear(run: subprocess.Popen[bytes]) -> None:
    """The newest checkpoint is cut in half as it appears, and the power goes."""
    before = newest_step()
    for _ in looks(run):
        if newest_step() > before:
            newest = newest_checkpoint()
            os.truncate(newest, newest.stat().st_size // 2)
            strike(f"torn checkpoint: half of {newest.name} is missing; SIGKILL")
            os.kill(worker_pid(), signal.SIGKILL)
            return


FAULTS: tuple[Callable[[subprocess.Popen[bytes]], None], ...] = (crash, hang, tear)


def looks(run: subprocess.Popen[bytes]) -> Iterator[None]:
    """One look after the other for as long as the run lasts."""
    while run.poll() is None:
        yield
        time.sleep(LOOK_S)


def newest_checkpoint() -> Path:
    """The checkpoint that was written last; a name that does not exist before the first."""
    return max((RUN / "out").glob("ckpt-*.pt"), default=RUN / "out/ckpt-0.pt")


def newest_step() -> int:
    """Its step."""
    return int(newest_checkpoint().stem.removeprefix("ckpt-"))


def show() -> dict:
    """What `supervise show --json` says of the job."""
    result = subprocess.run(
        [*SUPERVISE, "show", "digits", "--json"], capture_output=True, check=True
    )
    return json.loads(result.stdout)


def worker_pid() -> int:
    """The training process, as anybody may learn it."""
    return show()["attempts"][-1]["pid"]


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        try:
            main()
        except DemoFailed as error:
            sys.exit(f"demo failed: {error}")
