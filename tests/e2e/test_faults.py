"""What ends a training run, inflicted from outside, and what the job makes of it."""

import os
import signal


def test_a_killed_worker_is_resumed_from_its_newest_checkpoint(job, eventually):
    """SIGKILL from outside: cause signal, the next worker begins at a step that was saved."""
    job.write(command=["python", "steps.py", "--steps", "60", "--pause", "0.06"])
    run = job.start()
    eventually(lambda: job.saved(5))
    os.kill(eventually(job.worker), signal.SIGKILL)
    run.communicate(timeout=30)
    assert run.returncode == 0
    assert job.causes() == ["signal", "completed"]
    assert job.began()[1] >= 5


def test_a_torn_checkpoint_is_set_aside_and_the_one_before_is_used(job, eventually):
    """Promise 3: half of the newest file is missing; it is kept, with the reason, and not used."""
    _die_after(
        job, 8, "newest = 'out/ckpt-8.pt'; os.truncate(newest, os.path.getsize(newest) // 2)"
    )
    code, output = job.run()
    assert code == 0, output
    assert job.began() == [0, 7]
    assert "ckpt-8.pt is not used" in output
    aside = job.folder / "out/.set-aside"
    assert sorted(path.name for path in aside.iterdir()) == [
        "ckpt-8.pt.set-aside-1",
        "ckpt-8.pt.set-aside-1.why.txt",
    ]


def test_it_holds_rather_than_start_from_zero(job):
    """Promise 3: every checkpoint is torn; exit 3, no second worker, nothing deleted."""
    tear = "[os.truncate('out/' + name, 9) for name in os.listdir('out') if name.endswith('.pt')]"
    _die_after(job, 3, tear)
    code, output = job.run()
    assert code == 3, output
    assert "none of 3 checkpoints verifies" in output
    assert job.began() == [0]
    code, _ = job.run()
    assert code == 3
    assert job.began() == [0]


def test_a_script_that_deletes_its_checkpoints_cannot_lose_the_last_one(job, eventually):
    """Promise 4: what had been verified is put back from the supervisor's copy."""
    job.write(command=["python", "steps.py", "--steps", "300"])
    run = job.start()
    eventually(lambda: _pinned(job), 20)
    worker = eventually(job.worker)
    os.kill(worker, signal.SIGSTOP)
    kept = _pinned(job)
    for path in (job.folder / "out").glob("ckpt-*"):
        path.unlink()
    os.kill(worker, signal.SIGKILL)
    output, _ = run.communicate(timeout=30)
    assert run.returncode == 0, output
    assert "restored from the supervisor's copy" in output
    assert job.began()[1] >= kept


def test_a_checkpoint_written_in_place_is_restored_when_it_is_torn(job, eventually):
    """Promise 4 for scripts that overwrite last.pt: a torn write loses one checkpoint, not all."""
    script = (job.folder / "steps.py").read_text()
    script = script.replace('path = f"out/ckpt-{step}.pt"', 'path = "out/last.pt"')
    script = script.replace("os.replace(", "open('out/step.txt','w').write(str(step)); os.replace(")
    (job.folder / "steps.py").write_text(script)
    slow = "while step == 6 and not os.path.exists('go'): pause.wait(0.01)"
    _die_after(job, 9, "os.truncate('out/last.pt', 500)", before=slow)
    job.write(checkpoint={"dir": "out", "glob": "last.pt", "step": {"pointer": "step.txt"}})
    run = job.start()
    eventually(lambda: _pinned(job) == 6, 30)
    (job.folder / "go").touch()
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 0, output
    assert job.began()[1] >= 6
    assert "restored" in output


def test_a_hang_is_killed_and_leaves_a_stack(job, eventually):
    """Silence for the heartbeat's time: cause hang, the stack shows where, then it goes on."""
    _die_after(job, 6, "threading.Event().wait()")
    job.write(timeouts={"heartbeat": 2, "stop": 5})
    code, output = job.run()
    assert code == 0, output
    assert job.causes() == ["hang", "completed"]
    (stack,) = job.state_dir.glob("jobs/*/attempts/1/stack.txt")
    assert "steps.py" in stack.read_text()
    assert job.began()[1] == 6


def test_a_slow_job_that_prints_is_left_alone(job):
    """Promise 8: far slower than the heartbeat as a whole, but never silent for so long."""
    job.write(
        command=["python", "steps.py", "--steps", "6", "--pause", "0.5"],
        timeouts={"heartbeat": 1.5, "stop": 5},
    )
    code, output = job.run()
    assert code == 0, output
    assert job.causes() == ["completed"]


def test_a_worker_that_never_says_anything_meets_the_startup_deadline(job):
    """Nothing printed, nothing saved: startup_timeout, retried within the budget, then failed."""
    job.write(
        command=["python", "-c", "import threading; threading.Event().wait()"],
        timeouts={"startup": 0.7, "stop": 1},
        restart={"budget": 1, "backoff": {"initial": 0}},
    )
    code, output = job.run()
    assert code == 1, output
    assert job.causes() == ["startup_timeout", "startup_timeout"]


def test_the_total_time_of_a_job_is_over_once_for_all(job):
    """The job's whole time is used up: stopped, failed, and not restarted."""
    job.write(
        command=["python", "steps.py", "--steps", "5000"],
        timeouts={"total": 1.5, "stop": 5},
    )
    code, output = job.run()
    assert code == 1, output
    assert job.causes() == ["total_timeout"]


def test_exit_0_that_is_not_done_is_not_success(job):
    """Promise 9: the script leaves early with exit 0; the job goes on until DONE is there."""
    _die_after(job, 4, "os._exit(0)")
    code, output = job.run()
    assert code == 0, output
    assert job.causes() == ["incomplete", "completed"]


def test_an_error_that_comes_back_at_the_same_step_is_permanent(job):
    """The same exception at the same step twice ends the job, whatever the budget."""
    script = (job.folder / "steps.py").read_text()
    bomb = "    if step == 7: raise RuntimeError(f'bad sample in {os.getpid()}')\n    step += 1"
    (job.folder / "steps.py").write_text(script.replace("    step += 1", bomb))
    code, output = job.run()
    assert code == 1, output
    assert job.causes() == ["exit_code", "exit_code"]
    assert "the same failure at the same step" in output
    assert "bad sample" in job.ask("explain", "steps")


def test_the_budget_ends_a_job_that_gets_nowhere_and_progress_refunds_it(job):
    """Dying at every second step for ever is fine; dying without progress ends after the budget."""
    script = (job.folder / "steps.py").read_text()
    dying = "    if step % 4 == 3 and step > began_at + 1: os.kill(os.getpid(), 9)\n    step += 1"
    script = script.replace("    step += 1", dying).replace(
        "pause = th", "began_at = step\npause = th"
    )
    (job.folder / "steps.py").write_text(script)
    job.write(
        command=["python", "steps.py", "--steps", "30"],
        restart={"budget": 1, "backoff": {"initial": 0}},
    )
    code, output = job.run()
    assert code == 0, output
    assert len(job.causes()) > 4
    job.write(command=["python", "-c", "import os; print(1); os.kill(os.getpid(), 9)"], done=None)
    code, output = job.run("--fresh")
    assert code == 1, output
    assert job.causes() == ["signal", "signal"]


def test_what_the_tree_leaves_behind_is_ended_before_the_next_attempt(job, eventually, alive):
    """Promise 1 for the group: a background child of a crashed script does not outlive it."""
    _die_after(
        job,
        3,
        "child = subprocess.Popen(['sleep', '1000']); "
        "open('child', 'w').write(str(child.pid)); "
        "os.kill(os.getpid(), 9)",
    )
    code, output = job.run()
    assert code == 0, output
    assert not alive(int((job.folder / "child").read_text()))


def test_no_command_is_a_bad_job_and_no_attempt(job):
    """A program that does not exist is found before anything starts: exit 2, with the line."""
    job.write(command=["no-such-program", "x"])
    code, output = job.run()
    assert code == 2
    assert "job.yaml:" in output
    assert "no-such-program" in output
    assert job.attempts() == []


def test_a_missing_module_is_permanent_at_once(job):
    """A script that cannot import does not burn its budget: one attempt, cause bad_config."""
    job.write(command=["python", "-c", "import no_such_module"], done=None)
    code, output = job.run()
    assert code == 1, output
    assert job.causes() == ["bad_config"]
    assert "no_such_module" in output


def _pinned(job):
    shown = job.show() if job.attempts() else {}
    pins = list(job.state_dir.glob("jobs/*/pins/pin-*/manifest.json"))
    return shown.get("step") if pins else None


def _die_after(job, step, act, before="pass"):
    """Make the script do `act` once, just after it has saved `step` for the first time."""
    script = (job.folder / "steps.py").read_text()
    script = script.replace("import argparse", "import subprocess, argparse")
    once = (
        f"    {before}\n"
        f"    if step == {step} and not os.path.exists('struck'):\n"
        f"        open('struck', 'w').close(); {act}; os.kill(os.getpid(), 9)\n"
        'open("out/DONE"'
    )
    (job.folder / "steps.py").write_text(script.replace('open("out/DONE"', once))
