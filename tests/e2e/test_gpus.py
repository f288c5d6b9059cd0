"""Jobs on GPUs, on a driver that is not there: leases, limits, troubles, the gate in between.

The driver is tests/fake_nvml: the real pynvml asks it, in the real probe. What a worker uses on a
GPU is put there by the test, once the worker lives.
"""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fake_nvml.driver import GIB

pytestmark = pytest.mark.usefixtures("looks_often")

LONG = ["python", "steps.py", "--steps", "400", "--pause", "0.05"]
ENV = """
import json, os
keys = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
print(json.dumps({key: os.environ.get(key) for key in keys}))
"""


@pytest.fixture
def gpu_job(job: Any, fake_gpus: Any) -> Any:
    """Two GPUs, and a job that wants one of them."""
    job.write(resources={"gpus": 1}, command=LONG)
    return job


def lives(job: Any, number: int) -> int | None:
    """The pid of the worker of this attempt, while it runs and has printed something."""
    attempts = job.attempts()
    if len(attempts) != number or attempts[-1]["ended_at"] or not attempts[-1]["pid"]:
        return None
    began = job.folder / "began.jsonl"
    lines = began.read_text().splitlines() if began.exists() else []
    return attempts[-1]["pid"] if len(lines) >= number else None


def leased(job: Any) -> list[list[str]]:
    """The GPUs of each attempt, as the journal has them."""
    found: list[list[str]] = job.leased()
    return found


def events(job: Any) -> list[dict[str, Any]]:
    """The journal of the job."""
    found: list[dict[str, Any]] = job.events()
    return found


def finish(job: Any, run: Any) -> str:
    """Stop the run as Ctrl-C does, and what it printed."""
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=30)
    assert "Traceback" not in output, output
    return output


def test_the_worker_sees_the_gpu_that_was_leased(job: Any, fake_gpus: Any) -> None:
    """By UUID and in the order of the bus; the lease is in the journal before the worker is."""
    job.write(resources={"gpus": 1}, command=["python", "-c", ENV], done=None, checkpoint=None)
    job.write(resume=None)
    code, _ = job.run()
    assert code == 0
    first = fake_gpus.gpus[0].uuid
    said = json.loads(job.ask("logs", "steps"))
    assert said == {"CUDA_VISIBLE_DEVICES": first, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    kinds = [one["kind"] for one in events(job)]
    assert kinds.index("GpusLeased") < kinds.index("AttemptSpawned")


def test_a_job_without_gpus_leaves_the_environment_alone(job: Any, fake_gpus: Any) -> None:
    """Who picked a GPU by hand keeps it, and no driver is asked."""
    job.write(command=["python", "-c", ENV], done=None, checkpoint=None, resume=None)
    job.write(env={"CUDA_VISIBLE_DEVICES": "3"})
    fake_gpus.block("nvmlInit_v2")
    assert job.run()[0] == 0
    assert json.loads(job.ask("logs", "steps"))["CUDA_VISIBLE_DEVICES"] == "3"


def test_a_foreign_process_keeps_a_gpu_from_being_leased(gpu_job: Any, fake_gpus: Any) -> None:
    """The other GPU is taken instead."""
    first, second = (gpu.uuid for gpu in fake_gpus.gpus)
    fake_gpus.add_process(first, 1, GIB)
    gpu_job.write(command=["python", "steps.py"])
    assert gpu_job.run()[0] == 0
    assert leased(gpu_job) == [[second]]


def test_it_waits_while_no_gpu_is_free_and_says_why(
    gpu_job: Any, fake_gpus: Any, eventually: Any
) -> None:
    """`ps` tells the reason; it goes on when one is given back."""
    for gpu in fake_gpus.gpus:
        fake_gpus.add_process(gpu.uuid, 1, GIB)
    gpu_job.write(command=["python", "steps.py"])
    run = gpu_job.start()
    eventually(lambda: gpu_job.state_dir.exists() and "GPU" in waiting_for(gpu_job), 20)
    fake_gpus.remove_process(fake_gpus.gpus[1].uuid, 1)
    output, _ = run.communicate(timeout=30)
    assert run.returncode == 0, output
    assert "waiting for GPUs" in output
    assert leased(gpu_job) == [[fake_gpus.gpus[1].uuid]]


def waiting_for(job: Any) -> str:
    """Why the job waits, as `ps` says it."""
    listed = job.listed()
    return listed[0]["why"] if listed else ""


def test_a_job_that_wants_more_gpus_than_there_are_holds(gpu_job: Any) -> None:
    """At once, with the numbers."""
    gpu_job.write(resources={"gpus": 3})
    code, output = gpu_job.run()
    assert code == 3
    assert "3" in output
    assert "2" in output


def test_a_host_without_a_driver_says_so(job: Any) -> None:
    """No stack trace, no endless wait."""
    job.write(resources={"gpus": 1})
    code, output = job.run()
    assert code == 3
    assert "driver" in output


def test_two_jobs_get_different_gpus(gpu_job: Any, fake_gpus: Any, eventually: Any) -> None:
    """Two runners, no daemon: never the same one."""
    run = gpu_job.start()
    eventually(lambda: lives(gpu_job, 1), 20)
    twin = gpu_job.folder / "twin.yaml"
    spec = {"name": "twin", "command": ["python", "-c", ENV], "resources": {"gpus": 1}}
    twin.write_text(json.dumps(spec))
    command = [*gpu_job.command(), "run", "twin.yaml"]
    subprocess.run(command, cwd=gpu_job.folder, check=True, capture_output=True, timeout=60)
    assert fake_gpus.gpus[1].uuid in gpu_job.ask("logs", "twin")
    finish(gpu_job, run)
    assert leased(gpu_job) == [[fake_gpus.gpus[0].uuid]]


def test_beyond_the_hard_limit_it_is_killed_with_a_curve(
    gpu_job: Any, fake_gpus: Any, eventually: Any
) -> None:
    """Cause gpu_memory_limit; the evidence holds how its memory grew."""
    uuid = fake_gpus.gpus[0].uuid
    gpu_job.write(resources={"gpus": 1, "gpu_memory": "20GiB"}, restart={"budget": 0})
    run = gpu_job.start()
    pid = eventually(lambda: lives(gpu_job, 1), 20)
    fake_gpus.add_process(uuid, pid, 30 * GIB)
    output, _ = run.communicate(timeout=30)
    fake_gpus.remove_process(uuid, pid)
    assert run.returncode == 1, output
    assert gpu_job.causes() == ["gpu_memory_limit"]
    evidence = json.loads(
        next(gpu_job.state_dir.glob("jobs/*/attempts/1/evidence.json")).read_text()
    )
    assert evidence["gpu_curve"][-1]["used_bytes"] == 30 * GIB
    assert evidence["breach"]["limit_bytes"] == 20 * GIB


def test_beyond_the_soft_limit_it_saves_and_resumes(
    gpu_job: Any, fake_gpus: Any, eventually: Any
) -> None:
    """It is asked to leave; the next attempt begins only when the GPU is clean, where it was."""
    uuid = fake_gpus.gpus[0].uuid
    gpu_job.write(resources={"gpus": 1, "gpu_memory_soft": "10GiB"})
    run = gpu_job.start()
    pid = eventually(lambda: lives(gpu_job, 1), 20)
    eventually(lambda: gpu_job.saved(2))
    fake_gpus.add_process(uuid, pid, 12 * GIB)
    eventually(lambda: gpu_job.attempts()[0]["ended_at"], 20)
    assert gpu_job.causes()[0] == "gpu_memory_limit"
    assert len(gpu_job.attempts()) == 1  # the dead process is still on the GPU
    fake_gpus.remove_process(uuid, pid)
    eventually(lambda: lives(gpu_job, 2), 20)
    finish(gpu_job, run)
    assert leased(gpu_job) == [[uuid], [uuid]]
    assert gpu_job.began()[1] >= 2


def test_a_gpu_that_fell_off_the_bus_is_left_alone_until_it_is_released(
    gpu_job: Any, fake_gpus: Any, eventually: Any
) -> None:
    """The job goes on with the other one; another job does not get the bad one either."""
    bad, good = (gpu.uuid for gpu in fake_gpus.gpus)
    run = gpu_job.start()
    eventually(lambda: lives(gpu_job, 1), 20)
    eventually(lambda: gpu_job.saved(2))
    fake_gpus.raise_xid(bad, 79)
    eventually(lambda: lives(gpu_job, 2), 20)
    output = finish(gpu_job, run)
    assert gpu_job.causes()[0] == "gpu_hardware"
    assert gpu_job.attempts()[0]["decision"] == "retry_other_gpu"
    assert "Xid 79" in output
    assert leased(gpu_job) == [[bad], [good]]
    gpu_job.ask("gpus", "--release", bad)
    assert "set aside" not in gpu_job.ask("gpus")


def test_an_xid_of_the_program_itself_is_evidence_and_no_reason_to_stop(
    gpu_job: Any, fake_gpus: Any, eventually: Any
) -> None:
    """Xid 31 is a fault of the program: it may catch it; the GPU stays in use."""
    gpu_job.write(command=[*LONG[:2], "--steps", "40", "--pause", "0.05"])
    run = gpu_job.start()
    eventually(lambda: lives(gpu_job, 1), 20)
    fake_gpus.raise_xid(fake_gpus.gpus[0].uuid, 31)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 0, output
    assert "Xid 31" in output
    assert gpu_job.causes() == ["completed"]


def test_a_driver_that_hangs_does_not_hold_up_a_training(
    gpu_job: Any, fake_gpus: Any, eventually: Any
) -> None:
    """The worker goes on and is seen to finish; what could not be read is told."""
    gpu_job.write(command=[*LONG[:2], "--steps", "40", "--pause", "0.05"])
    run = gpu_job.start()
    eventually(lambda: lives(gpu_job, 1), 20)
    fake_gpus.block("nvmlDeviceGetMemoryInfo")
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 0, output
    assert gpu_job.causes() == ["completed"]


def test_a_killed_runner_leaves_its_lease_to_the_next(
    gpu_job: Any, fake_gpus: Any, eventually: Any, alive: Callable[[int], bool]
) -> None:
    """SIGKILL of the runner: the worker dies, the lease with it, and the same command goes on."""
    uuid = fake_gpus.gpus[0].uuid
    run = gpu_job.start()
    pid = eventually(lambda: lives(gpu_job, 1), 20)
    eventually(lambda: gpu_job.saved(2))
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=10)
    eventually(lambda: not alive(pid))
    again = gpu_job.start()
    eventually(lambda: lives(gpu_job, 2), 20)
    finish(gpu_job, again)
    assert leased(gpu_job) == [[uuid], [uuid]]
    leases = Path(os.environ["SUPERVISE_LEASE_DIR"])
    assert not [path for path in leases.iterdir() if path.name.startswith("lease")]
