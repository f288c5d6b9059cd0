"""The desk of a shelf: what is asked, what lies there, and what is refused."""

import base64
import json
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.events import RunnerStarted
from supervisor.core.machine import step
from supervisor.core.state import JobState
from supervisor.daemon import clerk_answers
from supervisor.daemon.contracts import (
    Conflict,
    NoSuchJob,
    NotYours,
    Refusal,
    ShelfUnavailable,
    Unacceptable,
    UnknownItem,
)
from supervisor.daemon.desk import QUESTIONS, Desk, answer, is_slow
from supervisor.journal import Journal, JournalUnavailable
from supervisor.runner import control
from supervisor.runner.locks import AlreadyRunning, Lock
from supervisor.runner.remove import NotRemoved
from supervisor.spec.frozen import thaw
from tests.unit.daemon_desks import (  # noqa: F401 - the fixtures are used by name
    SURROUNDINGS,
    Accept,
    a_desk,
    a_folder,
    an_acceptance,
    begin_attempt,
    examined,
)


def test_a_job_is_examined(desk: Desk, folder: Path) -> None:
    """All that the queue wants to know is in the answer, and a frozen job gives the very same."""
    found = examined(
        desk,
        folder,
        resources={"gpus": 2, "gpu_memory": "1GiB", "share_gpu": True, "memory": "2GiB"},
        checkpoint={"preset": "hf", "dir": "runs"},
        timeouts={"stop": "90s"},
        priority=7,
        after=["prepare"],
        key="nightly",
        group="sweep",
        hold_after=3,
        env_keep=["HF_TOKEN"],
    )
    assert thaw(found["spec"]).name == "net"
    assert {key: value for key, value in found.items() if key != "spec"} == {
        "name": "net",
        "folder": str(folder),
        "needs": {
            "gpus": 2,
            "gpu_memory_bytes": 1 << 30,
            "share_gpu": True,
            "cpus": 1,
            "memory_bytes": 2 << 30,
        },
        "priority": 7,
        "after": ["prepare"],
        "key": "nightly",
        "group": "sweep",
        "hold_after": 3,
        "claims": [str(folder / "runs")],
        "env_keep": ["HF_TOKEN"],
        "stop_s": 90.0,
        "generation": 1,
    }
    assert desk.answer("examine", {"spec": found["spec"]}) == found


def test_params_are_put_in(desk: Desk, folder: Path) -> None:
    """Values of params come as text or as numbers, as a person would write them."""
    job = {"name": "net", "command": ["run", "${lr}", "${on}"], "params": {"lr": 0.1, "on": True}}
    asked = {"job": job, "folder": str(folder), "params": {"lr": 0.5, "on": False}}
    assert thaw(desk.answer("examine", asked)["spec"]).command == ("run", "0.5", "false")
    with pytest.raises(Refusal, match="neither text nor number"):
        desk.answer("examine", asked | {"params": {"lr": [1]}})


def test_every_problem_of_a_job_is_told(desk: Desk, folder: Path) -> None:
    """Who submits a bad job sees all that is wrong with it at once."""
    with pytest.raises(Unacceptable) as caught:
        examined(desk, folder, comand=["x"], priority=1000, timeouts={"stop": "soon"})
    assert all(word in str(caught.value) for word in ("comand", "priority", "soon"))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "either spec, or job and folder"),
        ({"job": {"name": "x", "command": ["y"]}, "folder": "relative"}, "no folder"),
        ({"job": {"name": "x", "command": ["y"]}, "folder": "/nowhere/at/all"}, "no folder"),
        ({"spec": "{}"}, "not a frozen job"),
        ({"spec": "[" * 100_000}, "not JSON"),
        ({"job": {"name": "x", "command": ["y" * 2_000_000]}, "folder": "/"}, "1 MiB"),
    ],
)
def test_what_is_no_job_is_refused(desk: Desk, asked: dict[str, Any], said: str) -> None:
    """Nothing that can be sent in a job's place gets further than the answer."""
    with pytest.raises(Refusal, match=said):
        desk.answer("examine", asked)


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "../../etc"},
        {"name": ""},
        {"priority": 10**9},
        {"after": ["../x"]},
        {"group": "a/b"},
        {"key": "\u0007"},
        {"hold_after": 0},
        {"folder": "relative"},
        {"resources": {"gpus": -4}},
        {"resources": {"cpus": -4}},
        {"resources": {"memory": -1}},
        {"timeouts": {"stop": -1.0}},
        {"timeouts": {"stop": float("inf")}},
        {"timeouts": {"stop": float("nan")}},
    ],
    ids=str,
)
def test_a_frozen_job_is_not_believed(desk: Desk, folder: Path, changed: dict[str, Any]) -> None:
    """Bounds hold also for what somebody else froze, or says that they did."""
    frozen = json.loads(examined(desk, folder)["spec"])
    for name, value in changed.items():
        if isinstance(value, dict):
            frozen["job"][name] |= value
        else:
            frozen["job"][name] = value
    with pytest.raises(Unacceptable):
        desk.answer("examine", {"spec": json.dumps(frozen)})


def test_an_array_is_several_jobs(desk: Desk, folder: Path) -> None:
    """An array that leaves values open is refused here, in words that say what to do."""
    with pytest.raises(Unacceptable, match="supervise submit"):
        examined(desk, folder, params={"lr": 0.1}, array={"lr": [0.1, 0.2]})


def test_generations_go_on(desk: Desk, folder: Path, state_dir: Path) -> None:
    """The next job of a name and folder gets the next number, whoever took the ones before."""
    spec = examined(desk, folder)["spec"]
    from supervisor.runner.opening import job_id  # noqa: PLC0415 - where it is wanted

    def taken_by(other: Desk, generation: int) -> None:
        job = {"id": job_id("net", str(folder), generation), "spec": spec, "created_s": 1.0}
        other.answer("accept", {"jobs": [job | {"surroundings": None}]})

    taken_by(desk, 1)
    assert examined(desk, folder)["generation"] == 2
    other = Desk(state_dir)
    taken_by(other, 2)
    taken_by(other, 3)
    other.close()
    assert examined(desk, folder)["generation"] == 4
    assert examined(desk, folder, name="other")["generation"] == 1


def test_acceptance_is_complete_and_can_be_repeated(
    desk: Desk, accept: Accept, state_dir: Path
) -> None:
    """The surroundings are there for the user alone; asked again, nothing changes."""
    job = accept()
    kept = state_dir / "jobs" / job / "surroundings.json"
    assert json.loads(kept.read_text())["env"] == SURROUNDINGS["env"]
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    record = desk.answer("record", {"id": job})
    again = {"id": job, "spec": record["spec"], "surroundings": SURROUNDINGS, "created_s": 99.0}
    desk.answer("accept", {"jobs": [again]})
    assert desk.answer("record", {"id": job}) == record
    assert (record["state"], record["created_s"]) == ("queued", 7.5)
    other = json.loads(record["spec"])
    other["job"]["command"] = ["false"]
    with pytest.raises(Conflict, match="another one"):
        desk.answer("accept", {"jobs": [again | {"spec": json.dumps(other)}]})


@pytest.mark.parametrize("bad", [{"env": {"A=B": "c"}, "umask": 18, "limits": {}}, {"env": 3}])
def test_bad_surroundings_leave_no_job(
    desk: Desk, folder: Path, bad: dict[str, Any], state_dir: Path
) -> None:
    """A job is not half accepted: what its runner could not use is refused before."""
    spec = examined(desk, folder)["spec"]
    taken = {"id": "net-1", "spec": spec, "surroundings": bad, "created_s": 1.0}
    with pytest.raises(Unacceptable):
        desk.answer("accept", {"jobs": [taken]})
    assert desk.answer("records", {}) == []
    assert not (state_dir / "jobs/net-1/surroundings.json").exists()


def test_a_fresh_start_keeps_old_outputs_apart(desk: Desk, accept: Accept, folder: Path) -> None:
    """What the earlier job wrote gets another name, as by `run --fresh`."""
    checkpoint = {"dir": "ck", "glob": "step-*.json", "step": r"step-(\d+)"}
    fields = {"checkpoint": checkpoint, "resume": {"mode": "inplace"}}
    old = accept(**fields)
    (folder / "ck").mkdir()
    (folder / "ck/step-5.json").write_text("{}")
    spec = examined(desk, folder, **fields)["spec"]
    new = {"id": "net-x", "spec": spec, "surroundings": None, "created_s": 1.0, "fresh_of": old}
    desk.answer("accept", {"jobs": [new]})
    assert (folder / "ck.before-1/step-5.json").exists()
    assert not (folder / "ck/step-5.json").exists()


def test_the_documents_are_those_of_the_views(desk: Desk, accept: Accept) -> None:
    """What is answered is what the reading verbs print."""
    job = accept()
    asked = {"id": job}
    shown = desk.answer("document", asked)
    assert (shown["id"], shown["state"], shown["attempts"]) == (job, "queued", [])
    assert desk.answer("explain", asked)["next"]["words"]
    assert desk.answer("report", asked)["rows"] == []
    assert [one["id"] for one in desk.answer("listing", {"ids": None})] == [job]
    assert desk.answer("listing", {"ids": ["nobody"]}) == []
    assert "spec" not in desk.answer("records", {"ids": [job]})[0]
    assert desk.answer("attempts", asked) == desk.answer("checkpoints", asked) == []
    progress = desk.answer("progress", {"ids": [job, "nobody"]})
    assert progress == {job: progress[job] | {"state": "queued", "step": None, "attempt": None}}


def test_many_jobs_are_asked_about_at_once(desk: Desk, accept: Accept) -> None:
    """A long list of ids finds what a short one finds."""
    jobs = [accept(name=f"job{number}") for number in range(3)]
    many = [f"no-{number}" for number in range(100)] + jobs[1:]
    assert [one["id"] for one in desk.answer("records", {"ids": many})] == jobs[1:]


def test_events_come_in_parts(desk: Desk, accept: Accept, state_dir: Path) -> None:
    """Events are told in order, behind a number and at most so many."""
    job = accept()
    journal = Journal.open(state_dir)
    state = JobState()
    for number in range(3):
        event = RunnerStarted(pid=number + 1, start_ticks=1, boot_id="b")
        state, _ = step(state, event, 0.0)
        journal.append(job, event, state)
    journal.close()
    first = desk.answer("events", {"id": job, "limit": 2})
    assert [one["fields"]["pid"] for one in first] == [1, 2]
    rest = desk.answer("events", {"id": job, "after": first[-1]["seq"]})
    assert [one["kind"] for one in rest] == ["RunnerStarted"]


def test_a_log_is_read_in_parts(desk: Desk, accept: Accept, state_dir: Path) -> None:
    """Bytes come as they are; an offset beyond the end is where the file ends now."""
    job = accept()
    empty = desk.answer("log", {"id": job})
    assert (empty["attempt"], empty["data"], empty["ended"]) == (None, "", False)
    begin_attempt(state_dir, job, b"one\xff\n\0two")
    part = desk.answer("log", {"id": job, "offset": 2, "limit": 5})
    assert base64.b64decode(part["data"]) == b"e\xff\n\0t"
    assert (part["attempt"], part["offset"], part["next"], part["size"]) == (1, 2, 7, 9)
    assert desk.answer("log", {"id": job, "offset": 1 << 60})["next"] == 9
    with pytest.raises(NoSuchJob, match="no attempt 2"):
        desk.answer("log", {"id": job, "attempt": 2})


def test_the_runners_own_logs_can_be_asked_for(desk: Desk, accept: Accept, state_dir: Path) -> None:
    """Why a runner died is in its output; what it did is in its log."""
    job = accept()
    (state_dir / "jobs" / job / "runner.out").write_text("no module named x\n")
    (state_dir / "jobs" / job / "runner.log").write_text("{}\n")
    out = desk.answer("log", {"id": job, "file": "runner_out"})
    assert base64.b64decode(out["data"]) == b"no module named x\n"
    assert desk.answer("log", {"id": job, "file": "runner"})["size"] == 3


def test_who_runs_a_job(desk: Desk, accept: Accept, state_dir: Path) -> None:
    """The holder of the lock is told, but never the desk itself."""
    job = accept()
    path = state_dir / "jobs" / job / "runner.lock"
    nobody = {"pid": None, "start_ticks": None, "locked_by": None, "ended": False}
    assert nobody.items() <= desk.answer("runner", {"id": job}).items()
    lock = Lock(path)
    assert lock.try_hold()
    assert desk.answer("runner", {"id": job})["locked_by"] is None
    lock.close()
    hold = "import fcntl,sys; f=open(sys.argv[1]); fcntl.flock(f, 2); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout
        holder.stdout.readline()
        assert desk.answer("runners", {"ids": [job]})[job]["locked_by"] == holder.pid
        with pytest.raises(Conflict, match="stop it first"):
            desk.answer("remove", {"id": job})


def test_ending_a_job_that_nobody_runs(desk: Desk, accept: Accept) -> None:
    """Stopped it can go on, cancelled it cannot; there is no runner to hear of a stop."""
    job = accept()
    assert desk.answer("stop", {"id": job}) == {"heard": False}
    assert desk.answer("stop", {"id": job, "kill": True}) == {"heard": False}
    desk.answer("conclude_stop", {"id": job, "source": "a test"})
    assert desk.answer("record", {"id": job})["state"] == "stopped"
    desk.answer("conclude_cancel", {"id": job, "source": "a test"})
    assert desk.answer("record", {"id": job})["state"] == "cancelled"
    assert desk.answer("runner", {"id": job})["ended"] is True


def test_removing(desk: Desk, accept: Accept, state_dir: Path) -> None:
    """A job goes with its folder; retention names those that are old."""
    job = accept()
    desk.answer("conclude_cancel", {"id": job, "source": "a test"})
    assert desk.answer("old", {"older_than_s": 3600, "keep_bytes": None}) == {"ids": []}
    assert desk.answer("old", {"older_than_s": None, "keep_bytes": 0}) == {"ids": [job]}
    desk.answer("remove", {"id": job})
    assert desk.answer("records", {}) == []
    assert not (state_dir / "jobs" / job).exists()
    assert desk.answer("sweep", {}) == {"ids": []}


def test_items_are_of_batch_jobs(desk: Desk, accept: Accept) -> None:
    """A job without items has none to be tried again; one with items none that is set aside."""
    plain = accept()
    with pytest.raises(Conflict, match="no batch job"):
        desk.answer("requeue", {"id": plain, "items": ["quarantined"]})
    batch = accept(name="b", command=None, map={"entry": "m:f", "items": "*.x", "out": "o"})
    answered = desk.answer("requeue", {"id": batch, "items": ["quarantined"]})
    assert answered == {"numbers": [], "words": "no item is quarantined"}
    with pytest.raises(UnknownItem, match="no item"):
        desk.answer("requeue", {"id": batch, "items": ["x.png"]})


def test_only_what_waits_for_others_is_slow() -> None:
    """A question that takes long is told apart, so that it is in nobody's way."""
    assert is_slow("stop", {"id": "x", "kill": True})
    assert not is_slow("stop", {"id": "x"})
    assert is_slow("remove", {})
    assert not is_slow("listing", {})
    assert not is_slow("no question", {})


def test_one_answer_and_no_more(state_dir: Path) -> None:
    """A single question opens the shelf and lets it go; reading makes nothing."""
    assert answer(state_dir, "records", {}) == []
    assert not state_dir.exists()


def test_readers_need_no_schema() -> None:
    """The desk of a reader starts quickly: the models are loaded when a job is taken in."""
    code = "import sys, supervisor.daemon.desk; print('pydantic' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert said.stdout == "False\n"


def test_an_answer_keeps_no_lock(desk: Desk, accept: Accept, state_dir: Path) -> None:
    """After a job was taken in its runner can start at once."""
    job = accept()
    lock = Lock(state_dir / "jobs" / job / "runner.lock")
    assert lock.try_hold()
    lock.close()
    assert time.time() > desk.answer("record", {"id": job})["created_s"]


def test_items_that_were_set_aside_are_tried_again(
    desk: Desk, accept: Accept, state_dir: Path
) -> None:
    """All of them, or those that are named; one that was not set aside is not touched."""
    job = accept(name="b", command=None, map={"entry": "m:f", "items": "*.x", "out": "o"})
    journal = Journal.open(state_dir)
    for _ in journal.ledger(job).plan(['"a.x"', '"b.x"', '"c.x"']):
        pass
    journal.close()
    with sqlite3.connect(state_dir / "journal.sqlite") as rows:
        rows.execute("UPDATE items SET state = 3 WHERE number < 3")
        rows.execute("INSERT INTO quarantine SELECT 1, number, 1, 1, '', '', '' FROM items LIMIT 2")
    rows.close()
    with pytest.raises(Refusal, match="not quarantined"):
        desk.answer("requeue", {"id": job, "items": ["c.x"]})
    found = desk.answer("requeue", {"id": job, "items": ["b.x"]})
    assert found == {"numbers": [2], "words": "1 item to be tried again"}
    assert desk.answer("requeue", {"id": job, "items": ["quarantined"]})["numbers"] == [1]
    assert desk.answer("requeue", {"id": job, "items": ["quarantined"]})["numbers"] == []


@pytest.mark.parametrize(
    ("raised", "refused"),
    [
        (AlreadyRunning(77), (Conflict, "77.*stop it first")),
        (NotRemoved("its worker lives"), (Conflict, "its worker lives")),
        (control.NotHeard("it does not react"), (Conflict, "does not react")),
        (PermissionError("it is another's"), (NotYours, "another's")),
        (OSError(28, "No space left"), (ShelfUnavailable, "No space left")),
        (KeyError("net-1"), (NoSuchJob, "no job net-1")),
        (KeyError("other"), (ShelfUnavailable, "cannot be understood.*KeyError")),
        (JournalUnavailable("disk is full"), (ShelfUnavailable, "disk is full")),
    ],
    ids=str,
)
def test_what_the_runners_side_refuses(
    desk: Desk,
    accept: Accept,
    monkeypatch: pytest.MonkeyPatch,
    raised: Exception,
    refused: tuple[type[Refusal], str],
) -> None:
    """Each refusal has its kind and its words; none is a fault of the daemon's."""
    job = accept()

    def refuse(*_: Any) -> None:
        raise raised

    monkeypatch.setattr(control, "conclude_cancel", refuse)
    with pytest.raises(refused[0], match=refused[1]):
        desk.answer("conclude_cancel", {"id": job, "source": "a test"})
    assert desk.answer("record", {"id": job})["state"] == "queued"


def test_a_removal_that_was_broken_off_is_finished(
    desk: Desk, accept: Accept, folder: Path, state_dir: Path
) -> None:
    """A new job never gets the folder of one that is on its way out."""
    (state_dir / "jobs/net-1").mkdir(parents=True)
    (state_dir / "jobs/net-1/old").touch()
    (state_dir / "jobs/.removing-net-1").touch()
    assert accept() == "net-1"
    assert not (state_dir / "jobs/net-1/old").exists()
    assert examined(desk, folder)["name"] == "net"


def test_a_fresh_start_that_is_impossible(desk: Desk, accept: Accept, folder: Path) -> None:
    """Outputs beside the job file cannot be kept apart; nothing is accepted then."""
    checkpoint = {"dir": ".", "glob": "step-*.json", "step": r"step-(\d+)"}
    fields = {"checkpoint": checkpoint, "resume": {"mode": "inplace"}}
    old = accept(**fields)
    (folder / "step-5.json").write_text("{}")
    spec = examined(desk, folder, **fields)["spec"]
    new = {"id": "net-x", "spec": spec, "surroundings": None, "created_s": 1.0, "fresh_of": old}
    with pytest.raises(Unacceptable, match="beside job"):
        desk.answer("accept", {"jobs": [new]})
    assert [one["id"] for one in desk.answer("records", {})] == [old]


@pytest.mark.parametrize("fault", [OSError(5, "Input/output error"), RuntimeError("what")])
def test_a_fault_is_told_and_the_desk_stays(
    desk: Desk, accept: Accept, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    """A disk that fails, and a mistake of ours, are sentences; the next question is answered."""
    job = accept()

    def fail(*_: Any) -> None:
        raise fault

    with monkeypatch.context() as failing:
        failing.setattr("supervisor.views.documents.document", fail)
        with pytest.raises(ShelfUnavailable, match=str(fault).rpartition("] ")[2]):
            desk.answer("document", {"id": job})
    assert desk.answer("document", {"id": job})["id"] == job


def test_a_clerk_may_answer_every_question() -> None:
    """Whatever the desk answers has a shape that the daemon expects."""
    assert set(clerk_answers._SHAPES) == set(QUESTIONS)
