"""`supervise run`, as a person uses it: done, again, fresh, changed, twice at once, stopped."""

import os
import signal
import subprocess
import sys
from pathlib import Path

SUPERVISE = Path(sys.executable).with_name("supervise")


def test_a_job_that_ends_well_is_done_and_says_so_again(job):
    """The same command on a finished job starts nothing and exits 0."""
    code, output = job.run()
    assert (code, job.causes()) == (0, ["completed"]), output
    code, output = job.run()
    assert code == 0
    assert "already succeeded" in output
    assert job.began() == [0]


def test_fresh_starts_anew_and_leaves_the_old_outputs_alone(job):
    """--fresh begins at zero; what the first run had written is still there, byte for byte."""
    job.run()
    before = {path.name: path.read_bytes() for path in (job.folder / "out").iterdir()}
    code, output = job.run("--fresh")
    assert code == 0, output
    kept = job.folder / "out.before-1"
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == before
    assert job.began() == [0, 0]


def test_fresh_is_refused_where_old_and_new_would_mix(job):
    """Checkpoints beside job.yaml cannot be kept apart: exit 2, and nothing was moved."""
    job.write(checkpoint={"dir": ".", "glob": "out/ckpt-*.pt"})
    job.run()
    code, output = job.run("--fresh")
    assert code == 2
    assert "give checkpoint.dir a folder of its own" in output
    assert job.saved(10)


def test_a_changed_job_file_is_shown_and_asked_about(job, eventually):
    """A different job.yaml is exit 2 with the difference; --continue goes on under the new one."""
    job.write(command=["python", "steps.py", "--steps", "400"])
    run = job.start()
    eventually(lambda: job.saved(3))
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=20)
    job.write(command=["python", "steps.py", "--steps", "12"])
    code, output = job.run()
    assert code == 2
    assert '"400"] -> [python, steps.py, --steps, "12"]' in output
    assert "--continue" in output
    assert "--fresh" in output
    code, output = job.run("--continue")
    assert code == 0, output
    assert len(job.began()) == 2
    assert job.began()[1] >= 3


def test_a_finished_job_goes_on_when_more_is_asked_of_it(job):
    """More steps with --continue resume a job that had succeeded, from its last checkpoint."""
    job.run()
    job.write(command=["python", "steps.py", "--steps", "14"])
    code, output = job.run("--continue")
    assert code == 0, output
    assert job.began() == [0, 10]
    assert job.saved(14)


def test_a_second_run_of_the_same_job_is_refused(job, eventually):
    """While one runner lives, another one exits 2 and names it; the first goes on."""
    job.write(command=["python", "steps.py", "--steps", "250"])
    run = job.start()
    eventually(lambda: job.saved(2))
    code, output = job.run()
    assert code == 2
    assert f"already running (runner: process {run.pid})" in output
    run.communicate(timeout=30)
    assert run.returncode == 0
    assert job.began() == [0]


def test_ctrl_c_stops_gracefully_and_the_same_command_resumes(job, alive, eventually):
    """One SIGINT: exit 75, no worker left; the next run begins where it stopped."""
    job.write(command=["python", "steps.py", "--steps", "60"])
    run = job.start()
    eventually(lambda: job.saved(5))
    worker = job.worker()
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=20)
    assert run.returncode == 75, output
    assert not alive(worker)
    assert job.causes() == ["stopped"]
    assert job.run()[0] == 0
    assert job.began()[1] >= 5


def test_ctrl_c_twice_kills_a_worker_that_does_not_listen(job, alive, eventually):
    """The second SIGINT ends a worker that ignores SIGTERM, long before its grace is over."""
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    (job.folder / "steps.py").write_text(stubborn + (job.folder / "steps.py").read_text())
    job.write(command=["python", "steps.py", "--steps", "5000"], timeouts={"stop": 600})
    run = job.start()
    eventually(lambda: job.saved(3))
    worker = job.worker()
    run.send_signal(signal.SIGINT)
    for line in run.stdout:
        if "asking the worker to stop" in line:
            break
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=20)
    assert run.returncode == 130
    assert not alive(worker)


def test_a_worker_that_does_not_stop_is_killed_after_its_grace(job, alive, eventually):
    """SIGTERM to the runner, a worker that ignores it: killed, exit 75, resumable."""
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    (job.folder / "steps.py").write_text(stubborn + (job.folder / "steps.py").read_text())
    job.write(command=["python", "steps.py", "--steps", "5000"], timeouts={"stop": 0.5})
    run = job.start()
    eventually(lambda: job.saved(3))
    worker = job.worker()
    run.send_signal(signal.SIGTERM)
    output, _ = run.communicate(timeout=20)
    assert run.returncode == 75, output
    assert not alive(worker)
    assert job.show()["attempts"][0]["signal"] == signal.SIGKILL


def test_the_runner_unpickles_nothing_and_needs_neither_torch_nor_numpy(job, monkeypatch):
    """Promise 7: a run and a resume in which that is impossible in the parent end well."""
    (job.folder / "sitecustomize.py").write_text(
        "import sys\nif sys.argv and sys.argv[0].endswith('supervise'):\n"
        "    print('forbidden', file=sys.stderr)\n"
        "    sys.modules['torch'] = sys.modules['numpy'] = None\n"
        "    import pickle\n"
        "    pickle.load = pickle.loads = pickle.Unpickler = pickle._Unpickler = None\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(job.folder))
    code, output = job.run()
    assert code == 0, output
    assert "forbidden" in output


def test_a_run_whose_reader_is_gone_goes_on(job, eventually):
    """`supervise run | head`: the pipe is closed, the training comes home all the same."""
    job.write(command=["python", "steps.py", "--steps", "60"])
    run = job.start()
    eventually(lambda: job.saved(3))
    run.stdout.close()
    assert run.wait(30) == 0
    assert job.causes() == ["completed"]


def test_a_caller_that_closed_the_standard_descriptors_loses_nothing(job):
    """`supervise run job.yaml 0<&- 1>&- 2>&-`: done, and the journal is not its stdout."""
    command = f"{SUPERVISE} --state-dir {job.state_dir} run job.yaml 0<&- 1>&- 2>&-"
    assert subprocess.run(["sh", "-c", command], cwd=job.folder, check=False).returncode == 0
    assert job.causes() == ["completed"]


def test_a_checkpoint_whose_name_is_no_text_holds_the_job(job):
    """A name that is not UTF-8 cannot be journaled: exit 3 with a sentence, no traceback."""
    (job.folder / "out").mkdir()
    job.run()
    newest = job.folder / "out/ckpt-10.pt"
    newest.rename(os.fsdecode(os.fsencode(newest.with_name("ckpt-10")) + b"\xff.pt"))
    job.write(
        command=["python", "steps.py", "--steps", "14"], checkpoint={"dir": "out", "glob": "*"}
    )
    code, output = job.run("--continue")
    assert (code, "not UTF-8" in output) == (3, True), output
