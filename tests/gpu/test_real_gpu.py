"""What the tests on the fake driver claim, once more on a real GPU with real CUDA processes."""

import json
import os
import signal
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from supervisor.core.activity import SPIN_POWER_SHARE
from tests.gpu.conftest import (
    GIB,
    GROWN_BYTES,
    HELD_BYTES,
    MIB,
    SLACK_BYTES,
    START_S,
    attempt,
    holding,
    told,
)

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]

RUN_S = 200.0
HEARTBEAT_S = 5.0
FOUND_S = 2.0  # after its deadline a hang is found so soon
EARLY_S = 0.2  # the worker notes the beginning of a hang a moment after its last line


def steps(count: int, *options: str) -> list[str]:
    """The command of a worker that holds HELD_BYTES, ten steps a second."""
    script = ["python", "cuda_steps.py", "--hold", str(HELD_BYTES)]
    return [*script, "--steps", str(count), *options]


def goes_wrong(how: str, count_bytes: int = 0) -> tuple[str, ...]:
    """Options: at its tenth step the worker begins to go wrong."""
    return ("--at", "10", "--wrong", how, "--bytes", str(count_bytes))


def mib(count_bytes: int) -> str:
    """A size as job.yaml has it."""
    return f"{count_bytes // MIB}MiB"


def instants(job: Any, kind: str, name: str = "steps") -> list[float]:
    """When events of a kind were journaled, epoch seconds."""
    told = [one["at"] for one in job.events(name) if one["kind"] == kind]
    return [datetime.fromisoformat(at).timestamp() for at in told]


def test_the_worker_sees_the_leased_gpu_and_no_other(training, bench) -> None:
    """CUDA itself counts one device, and it is the one in the journal."""
    training.write(command=steps(5))
    code, output = training.run(timeout_s=RUN_S)
    assert code == 0, output
    uuid = bench.card.uuid
    assert training.leased() == [[uuid]]
    (began,) = told(training, "began")
    assert (began["visible"], began["count"]) == (uuid, 1)
    assert began["uuid"] in uuid


def test_what_a_worker_allocates_is_what_is_seen_of_it(training, bench, eventually) -> None:
    """A GiB and its context, in the curve of the attempt; `supervise gpus` names the process."""
    training.write(command=[*steps(80), "--hold", str(GIB)])
    run = training.start()
    (began,) = eventually(lambda: told(training, "began"), START_S)
    (seen,) = (
        one
        for one in json.loads(training.ask("gpus", "--json"))["gpus"]
        if one["uuid"] == bench.card.uuid
    )
    assert seen["state"] == "leased"
    if bench.names:
        assert began["pid"] in [one["pid"] for one in seen["processes"]]
    output, _ = run.communicate(timeout=RUN_S)
    assert run.returncode == 0, output
    curve = json.loads((attempt(training) / "evidence.json").read_text())["gpu_curve"]
    expected = GIB + bench.context_bytes
    assert abs(curve[-1]["used_bytes"] - expected) <= SLACK_BYTES, curve


def test_beyond_the_soft_limit_it_saves_leaves_and_goes_on(training, bench) -> None:
    """Asked once, it resumes from what it saved then, and comes to its end."""
    soft = {"gpus": 1, "gpu_memory_soft": mib(bench.within_bytes)}
    training.write(command=steps(120, *goes_wrong("grow", GROWN_BYTES)), resources=soft)
    code, output = training.run(timeout_s=RUN_S)
    assert code == 0, output
    assert training.causes() == ["gpu_memory_limit", "completed"]
    said = (attempt(training) / "output.log").read_text()
    assert "asked to leave, and saved" in said
    first, second = told(training, "began")
    assert (first["step"], second["step"]) == (0, said.count("loss"))


def test_beyond_the_hard_limit_it_is_killed(training, bench) -> None:
    """With the cause, and with how its memory grew."""
    allowed = bench.within_bytes // MIB * MIB
    training.write(
        command=steps(300, *goes_wrong("grow", GROWN_BYTES)),
        resources={"gpus": 1, "gpu_memory": mib(allowed)},
        restart={"budget": 0},
    )
    code, output = training.run(timeout_s=RUN_S)
    assert code == 1, output
    assert training.causes() == ["gpu_memory_limit"]
    seen = json.loads((attempt(training) / "evidence.json").read_text())
    assert seen["breach"]["limit_bytes"] == allowed
    assert seen["gpu_curve"][-1]["used_bytes"] > allowed


def test_what_a_worker_leaves_on_the_gpu_is_gone_before_the_next_attempt(
    training, alive: Callable[[int], bool], record_property
) -> None:
    """A grandchild of its own session with 2 GiB: dead, and CUDA finds as much memory as before."""
    training.write(command=steps(30, *goes_wrong("leak", 2 * GIB)))
    code, output = training.run(timeout_s=RUN_S)
    assert code == 0, output
    assert training.causes() == ["exit_code", "completed"]
    (left,) = told(training, "left")
    assert not alive(left["pid"])
    first, second = told(training, "began")
    assert second["step"] == 10
    assert second["free_bytes"] >= first["free_bytes"] - SLACK_BYTES
    leases = [one["fields"] for one in training.events() if one["kind"] == "GpusLeased"]
    record_property("gate_s", leases[1]["waited_s"])
    assert leases[1]["refused"] == []


def test_an_idle_hang_is_found(training, record_property) -> None:
    """A worker that keeps its context and does nothing: in time, and with its stacks."""
    training.write(command=steps(300, *goes_wrong("idle")), restart={"budget": 0})
    training.write(timeouts={"startup": START_S, "heartbeat": HEARTBEAT_S, "stop": 5})
    code, output = training.run(timeout_s=RUN_S)
    assert code == 1, output
    assert training.causes() == ["hang"]
    (passed,) = instants(training, "DeadlinePassed")
    (wrong,) = told(training, "wrong")
    silent_s = passed - wrong["at_s"]
    record_property("silent_s", silent_s)
    assert HEARTBEAT_S - EARLY_S <= silent_s <= HEARTBEAT_S + FOUND_S
    assert "idle" in (attempt(training) / "stack.txt").read_text()


def test_a_hang_that_spins_on_the_gpu_is_found(
    training, bench, eventually, record_property
) -> None:
    """A kernel that waits for ever shows 100 % and little power, and gets no time for that.

    On a card that takes much of its power for it, it counts as busy, and gets twice the time.
    """
    if bench.card.gpu.parent is not None:
        pytest.skip("NVML has neither utilization nor power of a MIG instance")
    if bench.card.drawn_on():
        pytest.skip("somebody draws on this GPU, and would see it freeze")
    training.write(command=steps(300, *goes_wrong("spin")), restart={"budget": 0})
    training.write(timeouts={"startup": START_S, "heartbeat": HEARTBEAT_S, "stop": 5})
    run = training.start()
    (wrong,) = eventually(lambda: told(training, "wrong"), RUN_S)
    shares = []

    def is_over() -> bool:
        shares.append(bench.card.power_share() or 0.0)
        return run.poll() is not None

    eventually(is_over, 60)
    output, _ = run.communicate()
    assert training.causes() == ["hang"], output
    spins = max(shares) <= SPIN_POWER_SHARE
    (passed,) = instants(training, "DeadlinePassed")
    silent_s = passed - wrong["at_s"]
    record_property("silent_s", silent_s)
    record_property("power_share", max(shares))
    allowed_s = HEARTBEAT_S if spins else 2 * HEARTBEAT_S
    gpu = (attempt(training) / "hang/gpu.txt").read_text()
    assert HEARTBEAT_S - EARLY_S <= silent_s <= allowed_s + FOUND_S, gpu
    assert bench.card.uuid in gpu
    assert ("spinning" in training.attempts()[0]["reason"]) or not spins, gpu


def test_a_second_job_waits_for_the_gpu(training, eventually) -> None:
    """It says for whom, and begins when the first is over: one GPU, never two jobs on it."""
    training.write(command=steps(2000))
    run = training.start()
    eventually(lambda: told(training, "began"), START_S)
    folder = training.folder.with_name("twin")
    folder.mkdir()
    for name in ("cuda.py", "cuda_steps.py"):
        (folder / name).write_text((training.folder / name).read_text())
    twin = type(training)(folder, training.state_dir, dict(training.spec))
    twin.write(name="twin", command=steps(5))
    second = twin.start()
    try:
        eventually(lambda: "GPU" in twin.why("twin"), START_S)
        waits = [one for one in twin.events("twin") if one["kind"] == "GpusAwaited"]
        assert "leased to job steps" in str(waits[0]["fields"])
        training.stop(run)
        output, _ = second.communicate(timeout=RUN_S)
        assert second.returncode == 0, output
    finally:
        twin.clean_up()
    assert instants(training, "AttemptEnded") <= instants(twin, "AttemptSpawned", "twin")


def test_a_process_of_somebody_else_keeps_the_gpu_from_being_leased(
    training, bench, eventually
) -> None:
    """No lease covers it, NVML shows it: by its pid, in a container by the memory in use."""
    training.write(command=steps(5))
    with holding(bench.card, 3 * GIB) as pid:
        run = training.start()
        eventually(lambda: "GPU" in training.why(), START_S)
        waits = [one for one in training.events() if one["kind"] == "GpusAwaited"]
        assert (f"process {pid}" if bench.names else "in use") in str(waits[0]["fields"])
        assert told(training, "began") == []
    output, _ = run.communicate(timeout=RUN_S)
    assert run.returncode == 0, output


def test_a_killed_runner_leaves_nothing_on_the_gpu(
    training, back, alive: Callable[[int], bool], eventually, record_property
) -> None:
    """SIGKILL of the runner: the memory is back within seconds, and the same command goes on."""
    training.write(command=[*steps(60), "--hold", str(2 * GIB)])
    run = training.start()
    (began,) = eventually(lambda: told(training, "began"), START_S)
    eventually(lambda: training.saved(5) and not back(), 30)
    os.kill(run.pid, signal.SIGKILL)
    killed_s = time.monotonic()
    eventually(back, 10)
    record_property("back_s", time.monotonic() - killed_s)
    assert not alive(began["pid"])
    code, output = training.run(timeout_s=RUN_S)
    assert code == 0, output
    assert told(training, "began")[1]["step"] >= 5
