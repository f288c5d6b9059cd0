"""Batch jobs on GPUs, on a driver that is not there: a lease for each worker, limits, the gate."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.fake_nvml.driver import GIB

pytestmark = pytest.mark.usefixtures("looks_often")

SEES = (
    "def sees(item):\n"
    "    gpus = os.environ['CUDA_VISIBLE_DEVICES']\n"
    "    note('seen.txt', f'{gpus} {os.getpid()}')\n"
    "    time.sleep(0.1)\n"
    "    return gpus\n"
    "def waits(item):\n"
    "    note('began.txt', f'{item} {os.getpid()}')\n"
    "    while not os.path.exists('go'): NEVER.wait(0.01)\n"
    "    return square(item)\n"
)


@pytest.fixture
def on_gpus(batch: Any, fake_gpus: Any) -> Any:
    """Two GPUs, and two workers that want one each."""
    batch.add(SEES)
    batch.write("sees", chunks={"size": 2, "parallel": 2}, resources={"gpus": 1})
    return batch


def test_each_worker_sees_a_gpu_of_its_own(on_gpus: Any, fake_gpus: Any) -> None:
    """Two are leased, and each worker sees one of them and no other."""
    code, output = on_gpus.run()
    assert code == 0, output
    first, second = (gpu.uuid for gpu in fake_gpus.gpus)
    assert on_gpus.job.leased("batch") == [[first, second]]
    lines = (on_gpus.folder / "seen.txt").read_text().splitlines()
    by_worker = {line.split()[1]: line.split()[0] for line in lines}
    assert set(by_worker.values()) == {first, second}
    assert len(set(lines)) == len(by_worker) == 2


def test_more_workers_than_gpus_hold_the_job(on_gpus: Any) -> None:
    """Three workers want three GPUs, and there are two."""
    on_gpus.write(chunks={"size": 2, "parallel": 3})
    code, output = on_gpus.run()
    assert code == 3, output
    assert "3" in output


def test_beyond_its_memory_only_the_item_at_hand_is_to_blame(
    on_gpus: Any, fake_gpus: Any, eventually: Any
) -> None:
    """One of two workers uses too much: it is killed, its item suspected, the other goes on."""
    on_gpus.write("waits", resources={"gpus": 1, "gpu_memory": "20GiB"})
    run = on_gpus.start()
    eventually(lambda: len(on_gpus.noted("began.txt")) == 2, 20)
    victim, other = on_gpus.noted("began.txt")
    uuid = gpu_of(victim)
    fake_gpus.add_process(uuid, victim, 30 * GIB)
    eventually(lambda: on_gpus.events("ItemsSuspected"), 20)
    fake_gpus.remove_process(uuid, victim)
    (on_gpus.folder / "go").touch()
    output, _ = run.communicate(timeout=40)
    assert run.returncode == 0, output
    (suspected,) = on_gpus.events("ItemsSuspected")
    assert suspected["cause"] == "gpu_memory_limit"
    assert len(suspected["items"]) == 1
    on_gpus.is_whole(10)
    assert other in on_gpus.noted("called.txt")
    assert on_gpus.processes() == []


def gpu_of(pid: int) -> str:
    """The GPU that a worker sees."""
    texts = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    found = dict(one.split(b"=", 1) for one in texts if b"=" in one)
    return os.fsdecode(found[b"CUDA_VISIBLE_DEVICES"])


def test_the_next_worker_waits_until_the_gpu_is_given_back(
    on_gpus: Any, fake_gpus: Any, eventually: Any
) -> None:
    """A dead worker's memory is still there: nobody gets that GPU before it is gone."""
    on_gpus.write("waits")
    run = on_gpus.start()
    eventually(lambda: len(on_gpus.noted("began.txt")) == 2, 20)
    victim = on_gpus.noted("began.txt")[0]
    uuid = gpu_of(victim)
    fake_gpus.add_process(uuid, victim, 5 * GIB)
    os.kill(victim, 9)
    eventually(lambda: on_gpus.events("WorkerReplaced"), 20)
    (on_gpus.folder / "go").touch()
    eventually(lambda: len(on_gpus.lines()) >= 8, 20)  # the other worker does the rest
    assert len(set(on_gpus.noted("began.txt"))) == 2
    fake_gpus.remove_process(uuid, victim)
    output, _ = run.communicate(timeout=40)
    assert run.returncode == 0, output
    on_gpus.is_whole(10)


def test_stopped_while_a_gpu_is_awaited(on_gpus: Any, fake_gpus: Any, eventually: Any) -> None:
    """Ctrl-C while a worker waits for its GPU: it need not be seen clean first."""
    on_gpus.write("waits", chunks={"size": 2, "parallel": 1})
    run = on_gpus.start()
    eventually(lambda: len(on_gpus.noted("began.txt")) == 1, 20)
    victim = on_gpus.noted("began.txt")[0]
    uuid = gpu_of(victim)
    fake_gpus.add_process(uuid, victim, 5 * GIB)
    os.kill(victim, 9)
    eventually(lambda: on_gpus.events("WorkerReplaced"), 20)
    output = on_gpus.job.stop(run)
    fake_gpus.remove_process(uuid, victim)
    assert run.returncode == 75, output


def test_a_gpu_that_fell_off_the_bus_ends_the_crew_and_another_is_used(
    batch: Any, fake_gpus: Any, eventually: Any
) -> None:
    """No item is to blame; the next crew has the other GPU."""
    batch.add(SEES)
    batch.write("waits", resources={"gpus": 1})
    bad, good = (gpu.uuid for gpu in fake_gpus.gpus)
    run = batch.start()
    eventually(lambda: len(batch.noted("began.txt")) == 1, 20)
    fake_gpus.raise_xid(bad, 79)
    eventually(lambda: batch.causes()[:1] == ["gpu_hardware"], 20)
    (batch.folder / "go").touch()
    output, _ = run.communicate(timeout=40)
    assert run.returncode == 0, output
    assert batch.job.leased("batch") == [[bad], [good]]
    batch.is_whole(10)
    assert batch.events("ItemsSuspected") == []
