"""Makes v1/, the state folder of a daemon that was killed with jobs in every place they can be in.

    python -m tests.golden.daemon.make_v1

It is committed and never made again: it is what users have on their disks. What jobs print is left
out, and so are locks and sockets; of the environment only PATH is in it.
"""

import os
import shutil
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from supervisor.host.identity import boot_id
from tests.e2e.daemon_host import Host
from tests.e2e.reader import Reader
from tests.golden.daemon.state import BOOT, DATABASES, FOLDER, HERE, PYTHON, moved

SEARCHED = "/usr/local/bin:/usr/bin:/bin"
UNTIL = 'test -e "go-{0}" || {{ echo "step 1"; while ! test -e "go-{0}"; do sleep 0.05; done; }}'


def script(name: str, more: str = "") -> list[str]:
    """A command that waits until it is told to go on."""
    return ["sh", "-c", f"{UNTIL.format(name)}{more}"]


def fill(host: Host) -> None:
    """Bring jobs where they are to be."""
    host.start("--cpus", "1")
    for name, code in (("succeeds", 0), ("fails", 3)):
        host.go_on(name)
        more = {"restart": {"budget": 0}}
        key = ("--key", "nightly") if name == "succeeds" else ()
        job = host.submit(name, *key, command=script(name, f"; exit {code}"), **more)
        host.code("wait", job)
    host.go_on("sweep")
    command = ["sh", "-c", "echo lr ${lr}"]
    sweep = host.job("sweep", command=command, params={"lr": 0.1}, array={"lr": [0.1, 0.01]})
    host.code("wait", *host.ok("submit", sweep).split())
    held = ("--group", "nights", "--hold-after", "1")
    first = host.submit("first", *held, command=["false"], restart={"budget": 0})
    host.code("wait", first)
    host.submit("second", *held, command=["true"])
    stops = host.submit("stops", command=script("stops"))
    host.until(lambda: host.show(stops)["step"] == 1)
    host.ok("stop", stops)
    host.until_state(stops, "stopped")
    runs = host.submit("runs", "--priority", "7", command=script("runs"))
    host.until(lambda: host.show(runs)["step"] == 1)
    host.submit("waits", "--after", "runs", command=script("waits"))
    runner = os.pidfd_open(host.runner(runs))
    host.kill()
    signal.pidfd_send_signal(runner, signal.SIGKILL)


def keep(host: Host, into: Path) -> None:
    """Keep what the next version must read, without a trace of where it was made."""
    into.mkdir()
    for name in DATABASES:
        with closing(sqlite3.connect(host.state_dir / name)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        shutil.copyfile(host.state_dir / name, into / name)
        for here, there in (
            (str(host.folder), FOLDER),
            (str(host.state_dir), str(Path(FOLDER).with_name("state"))),
            (sys.executable, PYTHON),
            (boot_id(), BOOT),
        ):
            moved(into / name, here, there)
        with closing(sqlite3.connect(into / name)) as database:
            database.execute("PRAGMA journal_mode = DELETE")  # no second file is committed
            database.execute("VACUUM")
    for file in host.state_dir.glob("jobs/*/surroundings.json"):
        to = into / file.relative_to(host.state_dir)
        to.parent.mkdir(parents=True)
        shutil.copyfile(file, to)


def main() -> None:
    """Write v1/ beside this file."""
    os.environ.clear()
    os.environ["PATH"] = SEARCHED
    os.environ["LC_ALL"] = "C.UTF-8"
    reader = Reader()
    with TemporaryDirectory() as folder:
        host = Host(Path(folder), reader)
        fill(host)
        keep(host, HERE / "v1")
    reader.close()


if __name__ == "__main__":
    sys.exit(main())
