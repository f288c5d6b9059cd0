"""People in the container: they submit jobs to the daemon, and look how these are."""

import json
import sys
from dataclasses import dataclass
from typing import Any

from tests.systemd.container import Container
from tests.systemd.service import SUPERVISE

STATE = "/var/lib/supervise"
LONG = 100_000  # steps, more than any test waits for

# Counts, and saves when it is asked to stop, and only then. It says who it is, and fails when it is
# not the only one of its job.
TRAINING = """
import fcntl, json, os, signal, sys, threading, zipfile
alone = open("alone.lock", "w")
fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
asked = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: asked.set())
os.makedirs("out", exist_ok=True)
step, steps = 0, int(sys.argv[1])
if sys.argv[2:]:
    with zipfile.ZipFile(sys.argv[2]) as archive:
        step = int(archive.read("archive/data.pkl"))
with open("began.jsonl", "a") as began:
    told = {"pid": os.getpid(), "step": step, "ids": os.getresuid() + os.getresgid()}
    told |= {"groups": os.getgroups(), "home": os.environ["HOME"], "cwd": os.getcwd()}
    told |= {"cgroup": open("/proc/self/cgroup").read(), "umask": os.umask(0o22)}
    began.write(json.dumps(told) + chr(10))
while step < steps and not asked.wait(0.02):
    step += 1
    print(f"step {step}/{steps} loss {1 / step:.4f}", flush=True)
    with open("step.new", "w") as now:
        now.write(str(step))
    os.replace("step.new", "step")
if step < steps:
    threading.Event().wait(3 if os.path.exists("slow") else 0)  # a save that takes its time
    with zipfile.ZipFile("out/new", "w") as archive:
        archive.writestr("archive/data.pkl", str(step))
        archive.writestr("archive/version", "3")
        archive.writestr("archive/data/0", b"x" * 1000)
    os.replace("out/new", f"out/ckpt-{step}.pt")
else:
    open("out/DONE", "w").close()
"""


@dataclass(frozen=True)
class Person:
    """A user of the host, and the folder in which they keep a job."""

    container: Container
    name: str
    folder: str
    shelf: str

    @classmethod
    def of(cls, container: Container, name: str, home: str = "") -> "Person":
        """One who has a login; their jobs are in a folder of their home, or of `home`."""
        uid = container.check("id", "-u", name).strip()
        return cls(container, name, f"{home or f'/home/{name}'}/work", f"{STATE}/users/{uid}")

    def give(self, *words: str) -> Any:
        """Type a verb in that folder; how it went."""
        command = ["env", "-C", self.folder, SUPERVISE, *words]
        done = self.container.run(*command, user=self.name)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def ok(self, *words: str) -> str:
        """Type a verb that must not fail; what it printed."""
        done = self.give(*words)
        assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return str(done.stdout).strip()

    def submit(self, steps: int = LONG, **fields: Any) -> str:
        """Submit a training, written into a clean folder; its id."""
        self.container.check("rm", "-rf", self.folder)
        self.container.check("mkdir", "-p", self.folder, user=self.name)
        job = {
            "name": "steps",
            "command": [sys.executable, "training.py", str(steps)],
            "checkpoint": {"dir": "out", "glob": "ckpt-*.pt"},
            "resume": {"argv": ["{path}"]},
            "restart": {"backoff": {"initial": 0}},
            "done": {"file": "out/DONE"},
        }
        self._write("training.py", TRAINING)
        self._write("job.yaml", json.dumps(job | fields))
        return self.ok("submit", "job.yaml")

    def began(self) -> list[dict[str, Any]]:
        """What each worker said of itself, oldest first."""
        done = self.container.run("cat", f"{self.folder}/began.jsonl")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def step(self) -> int:
        """How far the training is; 0: it has not begun."""
        return int(self.container.run("cat", f"{self.folder}/step").stdout or 0)

    def show(self, job: str) -> dict[str, Any]:
        """What the journal on their shelf says of a job, read with their own rights."""
        words = [SUPERVISE, "--state-dir", self.shelf, "show", job, "--json"]
        shown: dict[str, Any] = json.loads(self.container.check(*words, user=self.name, cwd="/"))
        return shown

    def causes(self, job: str) -> list[str | None]:
        """Why each attempt of a job ended."""
        return [one["cause"] for one in self.show(job)["attempts"]]

    def _write(self, name: str, text: str) -> None:
        self.container.check("tee", f"{self.folder}/{name}", input=text, user=self.name)
