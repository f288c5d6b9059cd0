import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from supervisor.spec.compare import differences
from supervisor.spec.frozen import freeze, thaw
from supervisor.spec.job import JobSpec
from supervisor.spec.load import load_job
from supervisor.spec.plan import plan
from supervisor.spec.problems import SpecError
from supervisor.spec.resources import Resources

FOLDER = Path(__file__).parents[1] / "golden" / "spec"
ACCEPTED = sorted(FOLDER.glob("ok-*.yaml"))
FULL = FOLDER / "ok-hf.yaml"
OLDER = sorted(FOLDER.glob("frozen-v[1234]-*.json"))

NOTHING_TO_THE_QUEUE = {
    "priority": 0,
    "after": [],
    "key": None,
    "group": None,
    "hold_after": None,
    "array": {},
    "env_keep": [],
}


def spec_of(path: Path, text: str) -> JobSpec:
    """Load a job file with this text."""
    path.write_text(text)
    return load_job(path)


@pytest.mark.parametrize("path", ACCEPTED, ids=lambda path: path.stem)
def test_a_thawed_job_is_the_same_job(path: Path) -> None:
    """Freezing loses nothing, and freezing again gives the same text."""
    spec = load_job(path)

    again = thaw(freeze(spec))

    assert spec == again
    assert freeze(spec) == freeze(again)
    assert not differences(spec, again)


@pytest.mark.parametrize("path", OLDER, ids=lambda path: path.stem)
def test_a_job_frozen_by_an_older_version_means_what_it_meant(path: Path) -> None:
    """Every value is the one it was accepted with, also where the default is another today."""
    text = path.read_text()

    spec = thaw(text)

    then = json.loads(text)["job"]
    now = json.loads(freeze(spec))["job"]
    if then["resources"] is None:
        then["resources"] = Resources.model_construct().model_dump(mode="json", by_alias=True)
    then["timeouts"] = {"item": None, "chunk": None} | then["timeouts"]
    then = NOTHING_TO_THE_QUEUE | then
    if then["liveness"] == ["output", "checkpoint", "gpu", "cpu"]:
        then["liveness"] = ["heartbeat", *then["liveness"]]
    assert then == now


def test_an_older_job_of_the_same_file_has_not_changed() -> None:
    """What only newer jobs may say makes no difference to one that was accepted before."""
    resources = {"n": "2", "shared": "true"}
    cases: dict[str, dict[str, str]] = {
        "v2-least": {},
        "v2-resources": resources,
        "v3-least": {},
        "v3-resources": resources,
        "v3-hf": {"lr": "5e-4"},
        "v3-map": {},
        "v4-least": {},
        "v4-resources": resources,
        "v4-hf": {"lr": "5e-4"},
        "v4-map": {},
        "v4-train": {},
    }
    for name, given in cases.items():
        old = thaw((FOLDER / f"frozen-{name}.json").read_text())

        assert not differences(old, load_job(FOLDER / f"ok-{name[3:]}.yaml", given))


@pytest.mark.parametrize(
    "path", sorted(FOLDER.glob("frozen-v5-*.json")), ids=lambda path: path.stem
)
def test_a_job_frozen_by_this_version_is_read_as_it_was_written(path: Path) -> None:
    """Nothing that is written today may be read differently before the format has a new number."""
    text = path.read_text().rstrip("\n")

    assert text == freeze(thaw(text))


def test_a_frozen_job_of_an_array_holds_its_values_alone() -> None:
    """What its runner reads does not depend on the other jobs of the array."""
    job = json.loads((FOLDER / "frozen-v5-queue.json").read_text())["job"]

    assert (job["array"], job["values"]) == ({}, {"lr": "1e-2", "model": "small", "seed": "3"})
    assert (job["group"], job["key"]) == ("sweep", "sweep-1e-2-small-3")


def test_a_heartbeat_of_an_older_version_stays_a_number() -> None:
    """What was accepted with half an hour is not learned anew."""
    spec = thaw((FOLDER / "frozen-v1-least.json").read_text())

    assert (spec.timeouts.heartbeat_s, spec.liveness) == (1800.0, ("output", "checkpoint"))


def test_what_a_newer_version_does_by_itself_is_told_as_a_difference() -> None:
    """Whoever continues an older job is shown that its file means more than it did."""
    old = thaw((FOLDER / "frozen-v1-least.json").read_text())

    assert differences(old, load_job(FOLDER / "ok-least.yaml")) == [
        "  timeouts.heartbeat: 30m -> auto",
        "  liveness: [output, checkpoint] -> [heartbeat, output, checkpoint, gpu, cpu]",
    ]


def changed(**change: Any) -> str:
    """Freeze a job and change its text."""
    content = json.loads(freeze(load_job(FULL)))
    return json.dumps({**content, "job": {**content["job"], **change}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "this is not JSON"),
        ("[" * 100_000, "this is not JSON"),
        ("[]", "this is not a frozen job"),
        ('{"format": "1"}', "this is not a frozen job"),
        ('{"format": 6, "job": {}}', "its format is 6, and this supervise knows 5"),
        ('{"format": 1}', "not a frozen job: the job"),
        ('{"format": 1, "job": {}}', "not a frozen job: name"),
        ('{"format": 2}', "not a frozen job: the job"),
        ('{"format": 2, "job": {"timeouts": 3}}', "not a frozen job: name"),
        ('{"format": 0, "job": {}}', "its format is 0, and this supervise knows 5"),
        ('{"format": 3}', "not a frozen job: the job"),
        ('{"format": 3, "job": {"liveness": 3}}', "not a frozen job: name"),
        ('{"format": 4}', "not a frozen job: the job"),
        ('{"format": 4, "job": []}', "not a frozen job: the job"),
        ('{"format": 5}', "not a frozen job: the job"),
        (changed(priority="high"), "not a frozen job: priority"),
        (changed(after="x"), "not a frozen job: after"),
        (changed(array={"lr": [1]}), "not a frozen job: array.lr[0]"),
        (changed(resources=None), "not a frozen job: resources"),
        (changed(resources={"gpus": 1}), "not a frozen job: resources.gpu_memory"),
        (changed(tomorrow=1), "unknown here: tomorrow"),
        (changed(stop={"signals": ["TERM"], "politely": True}), "unknown here: stop.politely"),
        (changed(cwd=None), "not a frozen job: cwd"),
        (changed(command="x"), "not a frozen job: command"),
        (changed(command=["x", 1]), "not a frozen job: command[1]"),
        (changed(env=["x"]), "not a frozen job: env"),
        (changed(folder=3), "not a frozen job: folder"),
        (changed(warm="torch"), "not a frozen job: warm"),
        (changed(stop={}), "not a frozen job: stop.signals"),
        (changed(map={"entry": "a:b"}), "not a frozen job: map.items"),
        (changed(timeouts=3), "not a frozen job: timeouts"),
        (
            changed(timeouts={"startup": 1, "heartbeat": "car", "stop": 1, "total": None}),
            "not a frozen job: timeouts.heartbeat",
        ),
        (changed(done={"step": True}), "not a frozen job: done.step"),
        (
            changed(restart={"budget": 1, "window": None, "backoff": 1, "on": {}}),
            "not a frozen job: restart.backoff",
        ),
        (
            changed(resume={"mode": "telepathy", "argv": [], "env": {}}),
            "not a frozen job: resume.mode",
        ),
    ],
)
def test_what_cannot_be_thawed_says_why(text: str, message: str) -> None:
    """Damage and a newer version are told apart, and neither is a traceback."""
    with pytest.raises(SpecError) as caught:
        thaw(text)

    (problem,) = caught.value.problems
    assert message == problem.message
    assert problem.hint


def test_thawing_imports_no_yaml() -> None:
    """A detached runner stays small."""
    code = "import sys, supervisor.spec.frozen; print([m for m in sys.modules if 'yaml' in m])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_a_thawed_plan_makes_no_remarks() -> None:
    """Without the file nobody can say what was written in it."""
    spec = load_job(FULL)
    thawed = plan(thaw(freeze(spec)))

    assert "# default" not in thawed
    # Variables are frozen in the order of the alphabet, so lines are compared without theirs.
    assert sorted(line.split("  #")[0] for line in plan(spec).split("\n")) == sorted(
        line.split("  #")[0] for line in thawed.split("\n")
    )


def test_a_difference_is_told_in_the_files_own_words(tmp_path: Path) -> None:
    """Changed, added and removed keys, with units as people write them."""
    old = spec_of(
        tmp_path / "job.yaml",
        "name: a\ncommand: [x]\ntimeouts: {stop: 90s}\nenv: {A: 1, B: 2}\nparams: {lr: 0.1}\n",
    )
    new = spec_of(
        tmp_path / "job.yaml",
        "name: a\ncommand: [x, z]\ntimeouts: {stop: 2m}\nenv: {A: 1, C: 3}\nparams: {lr: 0.2}\n"
        'checkpoint: {glob: "*.pt"}\nresume: {mode: inplace}\nrestart: {budget: 8}\n',
    )

    assert differences(old, new) == [
        "  command: [x] -> [x, z]",
        '+ env.C: "3"',
        "  params.lr: {type: float, default: 0.1} -> {type: float, default: 0.2}",
        "  timeouts.stop: 1m30s -> 2m",
        "+ checkpoint.preset: null",
        "+ checkpoint.dir: .",
        '+ checkpoint.glob: "*.pt"',
        "+ checkpoint.step: null",
        "+ checkpoint.require: []",
        "+ checkpoint.forbid: []",
        "+ checkpoint.pointer: null",
        "+ checkpoint.keep: null",
        "  resume.mode: none -> inplace",
        "  restart.budget: 5 -> 8",
        "  -p lr: 0.1 -> 0.2",
        '- env.B: "2"',
    ]


def test_where_a_file_lies_is_no_difference(tmp_path: Path) -> None:
    """A folder that was moved holds the same job."""
    (tmp_path / "b").mkdir()
    text = "name: a\ncommand: [x]\n"

    assert not differences(
        spec_of(tmp_path / "job.yaml", text), spec_of(tmp_path / "b" / "job.yaml", text)
    )
