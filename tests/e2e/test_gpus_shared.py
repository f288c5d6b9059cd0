"""GPUs that are shared, cut into MIG instances, taken by twos, or seen from inside a container.

A real `supervise` on the fake driver, and `supervise gpus` beside it.
"""

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.fake_nvml.driver import GIB

pytestmark = pytest.mark.usefixtures("looks_often")

LONG = ["python", "steps.py", "--steps", "400", "--pause", "0.05"]
VISIBLE = """
import os
print(os.environ["CUDA_VISIBLE_DEVICES"])
"""


@pytest.fixture
def another(job: Any) -> Iterator[Callable[..., Any]]:
    """Make another job like the first, in a folder of its own, with the same state folder."""
    made = []

    def make(name: str, **changes: Any) -> Any:
        folder = job.folder.with_name(name)
        folder.mkdir()
        (folder / "steps.py").write_text((job.folder / "steps.py").read_text())
        one = type(job)(folder, job.state_dir, dict(job.spec))
        one.write(name=name, **changes)
        made.append(one)
        return one

    yield make
    for one in made:
        one.clean_up()


def pid_of(job: Any, number: int = 1) -> int | None:
    """The pid of the worker of this attempt, once it has begun."""
    name = job.spec["name"]
    if all(one["name"] != name for one in job.listed()):
        return None
    attempts = job.show(name)["attempts"]
    began = job.folder / "began.jsonl"
    lines = began.read_text().splitlines() if began.exists() else []
    if len(attempts) != number or attempts[-1]["ended_at"] or len(lines) < number:
        return None
    pid: int | None = attempts[-1]["pid"]
    return pid


def go_on(job: Any, eventually: Any) -> None:
    """Wait for forty steps more: two seconds, in which its runner looks several times."""
    names = (path.stem for path in (job.folder / "out").glob("ckpt-*.pt"))
    newest = max(int(name.removeprefix("ckpt-")) for name in names)
    eventually(lambda: job.saved(newest + 40), 30)


def ended(job: Any) -> bool:
    """Whether the first attempt is over."""
    attempts = job.show(job.spec["name"])["attempts"]
    return bool(attempts[0]["ended_at"])


def evidence(job: Any) -> dict[str, Any]:
    """What was found out about the end of the first attempt."""
    (path,) = job.state_dir.glob(f"jobs/{job.spec['name']}-*/attempts/1/evidence.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def gpus(job: Any) -> dict[str, dict[str, Any]]:
    """What `supervise gpus` says of each, by uuid."""
    listed = job.read("gpus")["gpus"]
    return {one["uuid"]: one for one in listed}


def holders(job: Any, uuid: str) -> list[str]:
    """The jobs on a GPU, as `supervise gpus` names them, without the end of their ids."""
    return sorted(one["job"].rpartition("-")[0] for one in gpus(job)[uuid]["leases"])


SHARED = {"gpus": 1, "gpu_memory": "60GiB", "share_gpu": True}


@pytest.fixture
def two_on_one(job: Any, another: Any, fake_driver: Any, eventually: Any) -> tuple[Any, Any, str]:
    """One GPU of 140 GiB with two jobs on it, which declared 60 GiB each."""
    uuid = fake_driver.add_gpu()
    job.write(name="first", command=LONG, resources=SHARED)
    second = another("second")
    for one in (job, second):
        one.start()
        fake_driver.add_process(uuid, eventually(lambda one=one: pid_of(one), 30), 50 * GIB)
    return job, second, uuid


def test_two_jobs_share_a_gpu_and_a_third_that_does_not_fit_waits(
    two_on_one: Any, another: Any, fake_driver: Any, eventually: Any
) -> None:
    """Both run at once; the third says who is there, and begins when one of them has left."""
    first, second, uuid = two_on_one
    assert holders(first, uuid) == ["first", "second"]
    seen = gpus(first)[uuid]
    assert seen["state"] == "leased"
    assert [one["memory_bytes"] for one in seen["leases"]] == [60 * GIB] * 2

    third = another("third", command=["python", "steps.py"])
    run = third.start()
    why = eventually(lambda: third.why("third"), 30)
    assert "1 GPU" in why
    waits = [one for one in third.events("third") if one["kind"] == "GpusAwaited"]
    (refused,) = waits[0]["fields"]["refused"]
    assert "120.0 GiB of its 140.0 GiB are promised, and the job wants 60.0 GiB" in str(refused)

    fake_driver.remove_process(uuid, pid_of(second))
    second.stop(second.runs[0])
    output, _ = run.communicate(timeout=30)
    assert run.returncode == 0, output
    assert third.leased("third") == [[uuid]]
    assert holders(first, uuid) == ["first"]
    first.stop(first.runs[0])
    assert gpus(first)[uuid]["leases"] == []


def test_a_job_that_shares_and_one_that_does_not_never_meet(
    two_on_one: Any, another: Any, eventually: Any
) -> None:
    """Who wants a GPU for itself waits, although there would be room."""
    first, second, uuid = two_on_one
    alone = another("alone", resources={"gpus": 1, "gpu_memory": "1GiB"})
    run = alone.start()
    eventually(lambda: alone.why("alone"), 30)
    waits = [one for one in alone.events("alone") if one["kind"] == "GpusAwaited"]
    assert "shared by job " in str(waits[0]["fields"])
    alone.stop(run)
    assert holders(first, uuid) == ["first", "second"]
    for one in (first, second):
        one.stop(one.runs[0])


def test_on_a_shared_gpu_a_job_answers_for_its_own_memory(
    two_on_one: Any, fake_driver: Any, eventually: Any
) -> None:
    """Who goes beyond what it declared is killed; the other one, beside it, is not."""
    first, second, uuid = two_on_one
    pid = pid_of(second)
    fake_driver.remove_process(uuid, pid)
    fake_driver.add_process(uuid, pid, 70 * GIB)
    eventually(lambda: ended(second), 30)
    assert evidence(second)["breach"]["used_bytes"] == 70 * GIB
    fake_driver.remove_process(uuid, pid)  # until then the gate held the next attempt back
    eventually(lambda: pid_of(second, 2), 30)
    assert pid_of(first) is not None
    for one in (first, second):
        one.stop(one.runs[0])
    assert first.leased("first") == [[uuid]]
    assert second.leased("second") == [[uuid], [uuid]]


def test_a_dead_worker_holds_its_own_next_attempt_back_on_a_shared_gpu(
    two_on_one: Any, fake_driver: Any, eventually: Any
) -> None:
    """By its pid: the memory in use is the other job's as well, and proves nothing."""
    first, second, uuid = two_on_one
    pid = pid_of(second)
    os.kill(pid, 9)
    eventually(lambda: ended(second), 30)
    eventually(lambda: gpus(second)[uuid]["processes"], 10)
    assert len(second.show("second")["attempts"]) == 1
    fake_driver.remove_process(uuid, pid)
    eventually(lambda: pid_of(second, 2), 30)
    for one in (first, second):
        one.stop(one.runs[0])


@pytest.fixture
def mig(job: Any, fake_driver: Any) -> tuple[str, list[str]]:
    """A GPU that is cut into two instances: its uuid, and theirs."""
    whole = fake_driver.add_gpu()
    instances = [fake_driver.add_instance(whole) for _ in range(2)]
    job.write(command=LONG, resources={"gpus": 1})
    return whole, instances


def test_a_mig_instance_is_leased_by_its_own_uuid(
    job: Any, another: Any, mig: Any, eventually: Any
) -> None:
    """The worker sees one instance; another job gets the other; the whole is for nobody."""
    whole, (one, two) = mig
    run = job.start()
    eventually(lambda: pid_of(job), 30)
    plain = {"checkpoint": None, "resume": None, "done": None}
    other = another("other", command=["python", "-c", VISIBLE], **plain)
    code, output = other.run()
    assert code == 0, output
    assert other.ask("logs", "other").strip() == two
    states = {uuid: seen["state"] for uuid, seen in gpus(job).items()}
    assert states == {whole: "not_leasable", one: "leased", two: "free"}
    assert gpus(job)[one]["parent"] == whole
    assert "└ NVIDIA H200 MIG" in job.ask("gpus")
    job.stop(run)
    assert job.leased() == [[one]]


def test_the_memory_of_a_mig_instance_is_limited_without_figures_of_processes(
    job: Any, mig: Any, fake_driver: Any, eventually: Any
) -> None:
    """NVML names the process and not its memory: what the instance uses more than before counts."""
    _, (one, _two) = mig
    fake_driver.set(one, used=GIB // 4)
    job.write(resources={"gpus": 1, "gpu_memory": "10GiB"}, restart={"budget": 0})
    run = job.start()
    pid = eventually(lambda: pid_of(job), 30)
    fake_driver.add_process(one, pid, None)
    fake_driver.set(one, used=GIB // 4 + 12 * GIB)
    output, _ = run.communicate(timeout=30)
    assert run.returncode == 1, output
    assert job.causes() == ["gpu_memory_limit"]
    assert evidence(job)["breach"]["used_bytes"] == 12 * GIB


def test_a_mig_instance_of_a_broken_gpu_is_not_exchanged_for_its_sibling(
    job: Any, mig: Any, fake_driver: Any, eventually: Any
) -> None:
    """What broke is the whole: the job waits until that is released, under its own name."""
    whole, (one, two) = mig
    run = job.start()
    eventually(lambda: pid_of(job), 30)
    eventually(lambda: job.saved(2))
    fake_driver.raise_xid(whole, 48)
    why = eventually(lambda: "GPU" in job.why() and job.why(), 30)
    assert "none of 2 is free" in why
    assert job.causes() == ["gpu_hardware"]
    assert {seen["state"] for uuid, seen in gpus(job).items() if uuid != whole} == {"set_aside"}
    job.ask("gpus", "--release", "0")
    eventually(lambda: pid_of(job, 2), 30)
    job.stop(run)
    assert job.leased() == [[one], [one]]
    assert gpus(job)[two]["state"] == "free"


def test_a_job_gets_both_of_its_gpus_or_waits_with_none(
    job: Any, fake_gpus: Any, eventually: Any
) -> None:
    """While a stranger is on one of them the other stays free; then the worker sees both."""
    first, second = (gpu.uuid for gpu in fake_gpus.gpus)
    fake_gpus.add_process(second, os.getpid(), 3 * GIB)
    job.write(command=["python", "-c", VISIBLE], resources={"gpus": 2})
    job.write(done=None, checkpoint=None, resume=None)
    run = job.start()
    why = eventually(lambda: "GPU" in job.why() and job.why(), 30)
    assert why == "the job wants 2 GPUs, and only 1 of 2 is free"
    assert {uuid: seen["state"] for uuid, seen in gpus(job).items()} == {
        first: "free",
        second: "used",
    }
    fake_gpus.remove_process(second, os.getpid())
    output, _ = run.communicate(timeout=30)
    assert run.returncode == 0, output
    assert job.ask("logs", "steps").strip() == f"{first},{second}"


def test_the_limit_is_of_each_gpu_and_the_curve_of_all(
    job: Any, fake_gpus: Any, eventually: Any
) -> None:
    """Two times 15 GiB are within a limit of 20 GiB; 25 GiB on the second one are not."""
    first, second = (gpu.uuid for gpu in fake_gpus.gpus)
    job.write(command=LONG, resources={"gpus": 2, "gpu_memory": "20GiB"}, restart={"budget": 0})
    run = job.start()
    pid = eventually(lambda: pid_of(job), 30)
    for uuid in (first, second):
        fake_gpus.add_process(uuid, pid, 15 * GIB)
    asked = job.ask("gpus", "--json")
    assert asked.count(f'"pid": {pid}') == 2
    go_on(job, eventually)
    assert pid_of(job) == pid, "it was killed within its limit"
    fake_gpus.add_process(second, pid, 0)
    fake_gpus.remove_process(second, pid)
    fake_gpus.add_process(second, pid, 25 * GIB)
    output, _ = run.communicate(timeout=30)
    assert run.returncode == 1, output
    seen = evidence(job)
    assert seen["breach"]["used_bytes"] == 25 * GIB
    assert "GPU 1" in seen["breach"]["where"]
    used = [one["used_bytes"] for one in seen["gpu_curve"]]
    assert (30 * GIB in used, used[-1]) == (True, 40 * GIB)


def refuse(driver: Any) -> None:
    """NVML says nothing of processes at all."""
    driver.fail("nvmlDeviceGetComputeRunningProcesses", "NO_PERMISSION")


def lists_nobody(_driver: Any) -> None:
    """NVML answers with an empty list: it cannot translate pids."""


def lists_strangers(driver: Any) -> None:
    """NVML names pids of another namespace, without figures; here the same pid at each time."""
    driver.add_process(driver.gpus[0].uuid, 4_000_001, None)


@pytest.mark.parametrize("container", [refuse, lists_nobody, lists_strangers])
def test_in_a_container_the_device_minus_its_baseline_is_limited(
    job: Any, fake_driver: Any, eventually: Any, container: Callable[[Any], None]
) -> None:
    """What was in use before the job came is not charged to it; the rest is, all of it."""
    uuid = fake_driver.add_gpu(used=GIB // 2)
    if container is not lists_strangers:
        container(fake_driver)
    job.write(command=LONG, resources={"gpus": 1, "gpu_memory": "20GiB"}, restart={"budget": 0})
    run = job.start()
    pid = eventually(lambda: pid_of(job), 30)
    if container is lists_strangers:
        container(fake_driver)
    seen = gpus(job)[uuid]
    assert (seen["state"], holders(job, uuid)) == ("leased", ["steps"])
    assert (seen["processes"] is None) == (container is refuse)
    fake_driver.set(uuid, used=GIB // 2 + 20 * GIB)
    go_on(job, eventually)
    assert pid_of(job) == pid, "it was killed at its limit, not beyond"
    fake_driver.set(uuid, used=GIB // 2 + 21 * GIB)
    output, _ = run.communicate(timeout=30)
    assert run.returncode == 1, output
    assert job.causes() == ["gpu_memory_limit"]
    assert evidence(job)["breach"]["used_bytes"] == 21 * GIB


def test_in_a_container_the_gate_waits_for_the_memory(
    job: Any, fake_driver: Any, eventually: Any
) -> None:
    """Without names of processes the memory alone tells that the last attempt has left."""
    uuid = fake_driver.add_gpu(used=GIB // 2)
    refuse(fake_driver)
    job.write(command=LONG, resources={"gpus": 1})
    run = job.start()
    pid = eventually(lambda: pid_of(job), 30)
    fake_driver.set(uuid, used=6 * GIB)
    os.kill(pid, 9)
    eventually(lambda: ended(job), 30)
    eventually(lambda: gpus(job)[uuid]["used_bytes"] == 6 * GIB, 10)
    assert len(job.attempts()) == 1
    fake_driver.set(uuid, used=GIB // 2)
    eventually(lambda: pid_of(job, 2), 30)
    job.stop(run)
    assert job.leased() == [[uuid], [uuid]]


def test_a_released_gpu_stays_released(job: Any, fake_driver: Any, eventually: Any) -> None:
    """A job that had it set aside does not do so again when it is run again."""
    uuid = fake_driver.add_gpu()
    job.write(command=LONG, resources={"gpus": 1}, restart={"on": {"gpu_hardware": "hold"}})
    run = job.start()
    eventually(lambda: pid_of(job), 30)
    eventually(lambda: job.saved(2))
    fake_driver.raise_xid(uuid, 79)
    output, _ = run.communicate(timeout=30)
    assert run.returncode == 3, output
    assert gpus(job)[uuid]["state"] == "set_aside"
    job.ask("gpus", "--release", "0")
    again = job.start()
    eventually(lambda: pid_of(job, 2), 30)
    assert gpus(job)[uuid]["set_aside"] == []
    job.stop(again)


def test_another_gpu_is_tried_where_the_job_asks_for_that(
    job: Any, fake_gpus: Any, eventually: Any
) -> None:
    """Nothing is known against the first one: others may have it, this job does not want it."""
    first, second = (gpu.uuid for gpu in fake_gpus.gpus)
    job.write(resources={"gpus": 1}, restart={"on": {"signal": "retry_other_gpu"}})
    job.write(command=LONG)
    run = job.start()
    pid = eventually(lambda: pid_of(job), 30)
    eventually(lambda: job.saved(2))
    os.kill(pid, 11)
    eventually(lambda: pid_of(job, 2), 30)
    job.stop(run)
    assert job.leased() == [[first], [second]]
    assert gpus(job)[first]["state"] == "free"
